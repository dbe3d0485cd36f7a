package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
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

// ref returns the reference that a node's replica follows.
func (c *declared) ref(n *cluster.Node) image.Ref {
	if r, err := image.ParseRef(c.state.Desired[string(n.Name)]); err == nil && r.Image == string(n.Image.Name) {
		return r
	}
	return image.Ref{Image: string(n.Image.Name)}
}

// version returns the version that a node's replica is to show.
func (c *declared) version(n *cluster.Node) (image.Version, error) {
	r := c.ref(n)
	v, ok := c.state.Resolve(r)
	if !ok {
		return v, fmt.Errorf("image %s has no version yet: run `dim image capture %s` on the head", r, r.Image)
	}
	return v, nil
}

// load finds what holds from the start, without the shared state: the description of Config.ClusterFile or the kept one, and the kept state.
func (d *daemon) load() error {
	kept, err := coord.LoadState(d.layout.state())
	if err != nil {
		return err
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
		return d.errorf("cluster %s has no server of that name", now.cluster.Name)
	}
	d.current.Store(now)
	return nil
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

// follow finds the shared state and adopts what it says, until ctx ends.
func (d *daemon) follow(ctx context.Context) error {
	pause := time.Second
	for {
		c, err := d.openCoord(ctx)
		if err == nil {
			err = c.Watch(ctx, coord.State{}, func(s coord.State) error { return d.adopt(ctx, s) })
		}
		if ctx.Err() != nil {
			return nil
		}
		d.noteCoord(nil, err)
		d.log.Error("shared state not available; serving what was declared last", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, time.Minute)
		}
	}
}

// openCoord opens the shared state, once, and tells it what this server knows and it does not: the description given on the
// command line, and versions in the store, if a crash came between the two or the state was lost.
func (d *daemon) openCoord(ctx context.Context) (*coord.Coord, error) {
	c := d.shared()
	if c == nil {
		var err error
		o := coord.Options{Endpoints: d.config.Endpoints, Log: d.log}
		if len(o.Endpoints) == 0 {
			o.Dir = d.layout.coord()
		}
		if c, err = coord.Open(ctx, o); err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.coord = c // from now on close closes it
		d.mu.Unlock()
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if d.config.ClusterFile != "" && (s.Description == nil || s.Description.Digest != d.declared().digest) {
		if _, err := c.PutDescription(ctx, describe(d.cluster()), coord.Any); err != nil {
			return nil, err
		}
	}
	if err := d.tellVersions(ctx, c, s); err != nil {
		return nil, err
	}
	d.noteCoord(c, nil)
	return c, nil
}

// tellVersions adds the versions that are in the store and newer than all that the shared state ever had.
func (d *daemon) tellVersions(ctx context.Context, c *coord.Coord, s coord.State) error {
	names, err := d.store.Images()
	if err != nil {
		return err
	}
	for _, name := range names {
		versions, err := d.store.Versions(name)
		if err != nil {
			return err
		}
		last := 0
		if im := s.Images[name]; im != nil {
			last = im.Last
		}
		for _, v := range versions {
			if v.Number <= last {
				continue
			}
			if err := c.PutVersion(ctx, v); err != nil && !errors.Is(err, coord.ErrConflict) {
				return err
			}
		}
	}
	return nil
}

func (d *daemon) shared() *coord.Coord {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.coord
}

// noteCoord notes how the shared state is; c stays what it is when nil.
func (d *daemon) noteCoord(c *coord.Coord, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c != nil {
		d.coord = c
	}
	d.coordErr = err
	select {
	case <-d.tried:
	default:
		close(d.tried)
	}
}

// change returns the shared state for a change, or an error that a person can do something about. Right after the start
// it waits until the state was looked for.
func (d *daemon) change(ctx context.Context) (*coord.Coord, error) {
	select {
	case <-d.tried:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.coord == nil || d.coordErr != nil {
		return nil, control.Errorf(control.Unavailable, "the shared state is not available: %v", d.coordErr).
			WithHint("nodes are served what was declared last; changes wait until it is back")
	}
	return d.coord, nil
}

// refresh adopts the state as it is now: who changed something calls it, so that the change is in force when the call returns.
func (d *daemon) refresh(ctx context.Context, c *coord.Coord) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	return d.adopt(ctx, s)
}

// adopt makes s what holds, unless something newer does already. A description that this program cannot follow is a problem
// that is shown; the server goes on with the one before.
func (d *daemon) adopt(ctx context.Context, s coord.State) error {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	old := d.declared()
	if old.state.Store == s.Store && s.Revision <= old.state.Revision {
		return nil
	}
	now := &declared{state: s, cluster: old.cluster, digest: old.digest}
	if s.Description != nil && s.Description.Digest != old.digest {
		c, err := parse(s.Description)
		if err == nil {
			if _, ok := c.Server(d.server); !ok {
				err = d.errorf("cluster %s has no server of that name", c.Name)
			}
		}
		if err == nil {
			now.cluster, now.digest = c, s.Description.Digest
		} else {
			now.problem = err.Error()
			d.log.Error("description not followed", "error", err)
		}
	}
	if err := coord.SaveState(d.layout.state(), s); err != nil {
		d.log.Error("declared state not kept", "error", err) // a full disk: go on, a restart reads an older one
	}
	d.current.Store(now)
	if err := d.reconcileLocked(ctx); err != nil {
		d.log.Error("not all replicas follow", "error", err)
	}
	return nil
}
