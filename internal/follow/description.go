package follow

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
)

// Describe returns the description that c was parsed from, as the shared state keeps it.
func Describe(c *cluster.Cluster) coord.Description {
	d := coord.Description{Applied: time.Now().UTC()}
	var all []byte
	for _, f := range c.Sources() {
		d.Files = append(d.Files, coord.File{Name: f.Name, Data: f.Data})
		sum := image.Sum(f.Data)
		all = append(append(append(all, f.Name...), 0), sum[:]...)
	}
	d.Digest = image.Sum(all)
	return d
}

// parse parses a description of the shared state, which must have this server.
func (f *Follower) parse(d *coord.Description) (*cluster.Cluster, error) {
	c, err := Parse(d)
	if err != nil {
		return nil, err
	}
	return c, f.checkServer(c)
}

// Parse parses a description of the shared state.
func Parse(d *coord.Description) (*cluster.Cluster, error) {
	if len(d.Files) == 0 {
		return nil, errors.New("parse description: it has no files")
	}
	return cluster.Parse(cluster.Source{
		Name: d.Files[0].Name, XML: d.Files[0].Data,
		Open: func(name string) ([]byte, error) {
			i := slices.IndexFunc(d.Files, func(f coord.File) bool { return f.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("%s is not part of the description", name)
			}
			return d.Files[i].Data, nil
		},
	})
}

// checkServer returns an error unless a description has this server.
func (f *Follower) checkServer(c *cluster.Cluster) error {
	if _, ok := c.Server(f.Server); ok {
		return nil
	}
	var names []string
	for _, s := range c.Servers {
		names = append(names, string(s.Name))
	}
	return control.Errorf(control.NotFound, "serve as %s: cluster %s has no server of that name; it has %s",
		f.Server, c.Name, nodeset.Fold(names)).WithHint("--as NAME says which server this is")
}
