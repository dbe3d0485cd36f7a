package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/coord/member"
)

// errNewPeers ends the watch of an embedded etcd that has to listen for other heads from now on.
var errNewPeers = errors.New("the embedded etcd is started again, to let other heads join")

// lacksPeers reports whether there are other heads, and the embedded etcd does not listen for them.
func (f *Follower) lacksPeers() bool {
	f.mu.Lock()
	listens := f.peers
	f.mu.Unlock()
	if listens || f.Peers == nil || len(f.Etcd.Endpoints) > 0 {
		return false
	}
	p, err := f.Peers(f.Now())
	return err == nil && p != nil
}

// newPeers returns a channel that fires some time after alone was closed, so that the change that declared another head
// comes to its end first.
func newPeers(ctx context.Context, alone <-chan struct{}) <-chan struct{} {
	fires := make(chan struct{})
	go func() {
		select {
		case <-alone:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(peersPause):
			close(fires)
		case <-ctx.Done():
		}
	}()
	return fires
}

// embedded completes the options of an embedded etcd.
func (f *Follower) embedded(o *coord.Options) (err error) {
	o.Dir, o.Name = f.CoordDir, string(f.Server)
	if f.Peers == nil {
		return nil
	}
	if o.Peers, err = f.Peers(f.Now()); err != nil || o.Peers == nil || o.Peers.Join == nil {
		return err
	}
	if !member.Exists(o.Dir) && f.space() < spaceNeeded {
		return fmt.Errorf("%w: take part in it: the disk of %s has %d MB free", coord.ErrUnavailable, f.data(),
			f.space()>>20)
	}
	return nil
}

// leave sets the directory of an etcd aside that the other heads have removed.
func (f *Follower) leave(why error) {
	f.reopen(why)
	if err := setAside(f.CoordDir, ".removed"); err != nil {
		f.Log.Error("the directory of the embedded etcd cannot be set aside", "error", err)
	}
}

// Members returns the heads that take part in the embedded etcd, nil if this head is alone.
func (f *Follower) Members() (list []control.Member) {
	s, ok := f.Embedded()
	if !ok || len(s.Members) < 2 {
		return nil
	}
	for _, p := range s.Members {
		list = append(list, control.Member{Server: p.Name, Leads: p.ID == s.Leader, Votes: !p.Learner})
	}
	return list
}

// Embedded returns what the embedded etcd knows of its cluster; ok is false if there is no embedded etcd, or it does
// not run.
func (f *Follower) Embedded() (s member.Status, ok bool) {
	c := f.shared()
	if c == nil || c.Member() == nil {
		return s, false
	}
	return c.Member().Status(), true
}
