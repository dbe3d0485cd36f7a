package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
)

// declared is the declared state as this server understands it. It is never changed, only replaced.
type declared struct {
	state   coord.State
	cluster *cluster.Cluster
	digest  image.Digest // of the description that cluster was parsed from
	problem string       // why the state's own description is not the one followed
}

func (d *daemon) declared() *declared       { return d.current.Load() }
func (d *daemon) cluster() *cluster.Cluster { return d.current.Load().cluster }

// follows returns what n's replica follows now, and from the node's next boot on.
func (c *declared) follows(n *cluster.Node) (now, next image.Ref) {
	return c.state.Follows(string(n.Name), string(n.Image.Name))
}

// version returns the version that a node's replica is to show.
func (c *declared) version(n *cluster.Node) (image.Version, error) {
	r, _ := c.follows(n)
	v, ok := c.state.Resolve(r)
	if !ok {
		return v, fmt.Errorf("image %s has no version yet: run `dim image capture %s` on the head", r, r.Image)
	}
	return v, nil
}

// missing tells why n has no version, when that is not only that its image was not captured yet.
func (c *declared) missing(n *cluster.Node) error {
	r, _ := c.follows(n)
	if r.Number == 0 && r.Tag == "" {
		return nil
	}
	return fmt.Errorf("serve %s: there is no %s", n.Name, r)
}

// load finds what holds from the start, without the shared state: the description of Config.ClusterFile or the kept one, and the kept
// state. A kept state that cannot be read is done without when there is a description.
func (d *daemon) load() error {
	kept, err := coord.LoadState(d.layout.state())
	switch {
	case err != nil && (d.config.ClusterFile == "" || errors.Is(err, coord.ErrNewerFormat)):
		return d.errorf("%w", err)
	case err != nil:
		d.log.Error("kept state cannot be read; going on without it", "error", err)
	}
	now := &declared{state: kept}
	switch {
	case d.config.ClusterFile != "":
		if now.cluster, err = cluster.Load(d.config.ClusterFile); err != nil {
			return err
		}
		now.digest = describe(now.cluster).Digest
	case kept.Description != nil:
		if now.cluster, err = parse(kept.Description); err != nil {
			return err
		}
		now.digest = kept.Description.Digest
	default:
		return d.errorf("no cluster description has been applied: give one with --cluster FILE")
	}
	if _, ok := now.cluster.Server(d.server); !ok {
		return d.unknownServer(now.cluster)
	}
	d.current.Store(now)
	return nil
}

func (d *daemon) unknownServer(c *cluster.Cluster) error {
	var names []string
	for _, s := range c.Servers {
		names = append(names, string(s.Name))
	}
	return d.errorf("cluster %s has no server of that name; it has %s, and --as NAME says which this is", c.Name, strings.Join(names, ", "))
}

// describe returns the description that c was parsed from.
func describe(c *cluster.Cluster) coord.Description {
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

// parse parses a description from the shared state.
func parse(d *coord.Description) (*cluster.Cluster, error) {
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

// refresh adopts the state as it is now: who changed something calls it, so that the change is in force when the call returns.
func (d *daemon) refresh(ctx context.Context, c *coord.Coord) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return coded(err)
	}
	return d.adopt(ctx, s)
}

// adopt makes s what holds, unless something newer does already. A description that this program cannot follow is a problem
// that is shown; the server goes on with the one before.
func (d *daemon) adopt(ctx context.Context, s coord.State) error {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	return d.adoptLocked(ctx, s)
}

func (d *daemon) adoptLocked(ctx context.Context, s coord.State) error {
	old := d.declared()
	if old.state.Store == s.Store && s.Revision <= old.state.Revision {
		return nil
	}
	if empty(s) && !empty(old.state) {
		d.log.Error("the shared state is empty; what was kept of it will be put back")
		d.untold.Store(true)
		return nil
	}
	now := &declared{state: s, cluster: old.cluster, digest: old.digest}
	if s.Description != nil && s.Description.Digest != old.digest {
		c, err := parse(s.Description)
		if err == nil {
			if _, ok := c.Server(d.server); !ok {
				err = d.unknownServer(c)
			}
		}
		if err == nil {
			now.cluster, now.digest = c, s.Description.Digest
		} else {
			now.problem = err.Error()
			d.log.Error("description not followed", "error", err)
		}
	}
	if err := coord.SaveState(d.layout.state(), now.kept(old)); err != nil {
		d.log.Error("declared state not kept", "error", err) // a full disk: go on, a restart reads an older one
	}
	d.current.Store(now)
	d.reconcileLocked(ctx)
	d.watches.rouse()
	return nil
}

// empty reports whether nothing was declared in s yet, or all was lost.
func empty(s coord.State) bool { return s.Description == nil && len(s.Images) == 0 }

// kept is what a restart is to find: the state with the description that is followed. A description that is not followed does not keep
// the server from starting; it is looked at again then, because the revision is the old one.
func (c *declared) kept(old *declared) coord.State {
	s := c.state
	if c.problem == "" && s.Description != nil {
		return s
	}
	s.Description, s.Revision = old.followed(), old.state.Revision
	return s
}

// followed is the description that c.cluster was parsed from.
func (c *declared) followed() *coord.Description {
	if in := c.state.Description; in != nil && in.Digest == c.digest {
		return in
	}
	made := describe(c.cluster)
	return &made
}
