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

// Renaming is a change of the name of a node.
type Renaming struct {
	From string `json:"from"` // its name before
	ID   string `json:"id"`   // of the change; nodes that were renamed together have the same
}

// withRenaming returns nodes that are being renamed, by the new name, with a change, without the nodes whose Renaming
// is zero there.
func withRenaming(now, change map[string]Renaming) map[string]Renaming {
	m := maps.Clone(now)
	if m == nil {
		m = map[string]Renaming{}
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, r Renaming) bool { return r == Renaming{} })
	return m
}
