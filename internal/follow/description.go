package follow

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/learned"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
)

// Describe returns the description that c was parsed from, as the shared state keeps it.
func Describe(c *cluster.Cluster) coord.Description {
	d := coord.Description{Applied: time.Now().UTC()}
	for _, f := range c.Sources() {
		d.Files = append(d.Files, coord.File{Name: f.Name, Data: f.Data})
	}
	d.Digest = digest(d.Files)
	return d
}

func digest(files []coord.File) image.Digest {
	var all []byte
	for _, f := range files {
		sum := image.Sum(f.Data)
		all = append(append(append(all, f.Name...), 0), sum[:]...)
	}
	return image.Sum(all)
}

// Learned returns the list of learned hardware addresses of a description, nil if it has none. There may be no
// description.
func Learned(d *coord.Description) []byte {
	if d == nil {
		return nil
	}
	for _, f := range d.Files[min(1, len(d.Files)):] {
		if f.Name == learned.File {
			return f.Data
		}
	}
	return nil
}

// withLearned returns d with the learned hardware addresses of another description, unless it has its own.
func withLearned(d coord.Description, of *coord.Description) coord.Description {
	if data := Learned(of); data != nil && Learned(&d) == nil {
		d.Files = append(slices.Clip(d.Files), coord.File{Name: learned.File, Data: data})
		d.Digest = digest(d.Files)
	}
	return d
}

// Expect keeps c, the parsed form of the description with a digest, so that this description is not parsed again when
// it is adopted next. c must have this server.
func (f *Follower) Expect(d image.Digest, c *cluster.Cluster) { f.expected.Store(&expected{d, c}) }

// expected is a parsed description that may be adopted next.
type expected struct {
	digest  image.Digest
	cluster *cluster.Cluster
}

// parse parses a description of the shared state, which must have this server.
func (f *Follower) parse(d *coord.Description) (*cluster.Cluster, error) {
	if x := f.expected.Swap(nil); x != nil && x.digest == d.Digest {
		return x.cluster, nil
	}
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
		Name: d.Files[0].Name, XML: d.Files[0].Data, Learned: Learned(d),
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
