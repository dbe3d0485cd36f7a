package coord

import "maps"

// Holders are servers, by node.
type Holders map[string]string

// with returns h with a change, without the nodes whose server is "" there.
func (h Holders) with(change Holders) Holders {
	m := maps.Clone(h)
	if m == nil {
		m = Holders{}
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_, server string) bool { return server == "" })
	return m
}
