package follow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow/stream"
	"dim/internal/pki"
	"dim/internal/problems"
)

// followsHeads reports whether this server is no head by a kept description. Then a description of the command line
// does not count.
func (f *Follower) followsHeads(kept *coord.Description) bool {
	if kept == nil {
		return false
	}
	c, err := f.parse(kept)
	if err != nil {
		return false
	}
	me, _ := c.Server(f.Server)
	return !me.Has(cluster.RoleHead)
}

// joinedHeads reports whether a kept state has other heads.
func (f *Follower) joinedHeads(kept coord.State) bool {
	if kept.Description == nil {
		return false
	}
	c, err := f.parse(kept.Description)
	return err == nil && len((&Declared{State: kept, Cluster: c}).OtherHeads(f.Server)) > 0
}

// IsHead reports whether this server is a head: what is declared can be changed here. It holds from Load on.
func (f *Follower) IsHead() bool { return f.heads == nil }

// followHeads makes heads the source of the state.
func (f *Follower) followHeads() error {
	if len(f.Etcd.Endpoints) > 0 {
		return f.errorf("an image server follows the heads and uses no etcd: leave --etcd out")
	}
	f.heads = stream.NewClient(stream.ClientOptions{
		Heads: f.Heads, Adopt: f.adoptFromHead, Log: f.Log,
		Tried: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.endSearch()
		},
	})
	return nil
}

// adoptFromHead adopts a state that a head has sent. With replace it takes the place of any other.
func (f *Follower) adoptFromHead(ctx context.Context, s coord.State, replace bool) error {
	f.adopting.Lock()
	defer f.adopting.Unlock()
	old := f.Now()
	if empty(s) && !empty(old.State) {
		return errors.New("it has lost what was declared")
	}
	if !replace {
		return f.adoptLocked(ctx, s)
	}
	f.acceptAny(old)
	if err := f.adoptLocked(ctx, s); err != nil {
		return err
	}
	f.noteReadmitted(old.State, f.Now().State) // now: who counts by the state before is dropped from the list
	return nil
}

// noteReadmitted notes the servers of next whose identities have ended by the state before. That is so after the shared
// state was put back from a copy that is older than their removal.
func (f *Follower) noteReadmitted(before, next coord.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, s := range next.Servers {
		r, ended := before.Revoked[s.ID]
		if _, still := next.Revoked[s.ID]; ended && !still {
			f.Log.Warn("a server that was removed is one of the cluster again", "server", name)
			f.identities.readmitted[s.ID] = r
		}
	}
}

// readmittedProblems lists the servers that were removed, and count again.
func (f *Follower) readmittedProblems() (list []problems.Problem) {
	now := f.Now().State
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, r := range f.identities.readmitted {
		if now.Servers[r.Server].ID != id {
			delete(f.identities.readmitted, id)
			continue
		}
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindSharedState), Since: r.Time,
			Text: fmt.Sprintf("server %s was removed%s, and counts as a server of the cluster again: "+
				"the heads have lost what was declared since", r.Server, atTime(" at ", r.Time)),
			Hint: fmt.Sprintf("on a head: dim server rm %s removes it again", r.Server),
		})
	}
	return list
}

// Confirm returns nil if Now returns what the shared state says now. It may adopt a state.
func (f *Follower) Confirm(ctx context.Context) error {
	c, err := f.Reachable(ctx)
	if err != nil {
		return err
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := f.adopt(ctx, s); err != nil {
		return err
	}
	if now := f.Now().State; now.Store != s.Store || now.Revision < s.Revision {
		return fmt.Errorf("this server follows revision %d, and the shared state has %d", now.Revision, s.Revision)
	}
	return nil
}

// Answers returns nil if the shared state answers.
func (f *Follower) Answers(ctx context.Context) error {
	if err := f.superseded(); err != nil {
		return err
	}
	c, err := f.opened(ctx)
	if err != nil {
		return err
	}
	return c.Answers(ctx)
}

// elsewhere refuses a change on an image server.
func (f *Follower) elsewhere() error {
	var heads []string
	for _, s := range f.Cluster().Servers {
		if s.Has(cluster.RoleHead) {
			heads = append(heads, fmt.Sprintf("%s (%s)", s.Name, s.Interfaces[0].Address))
		}
	}
	return control.Errorf(control.Unavailable, "this is the image server %s: what is declared is changed on a head",
		f.Server).WithHint("run the command on " + strings.Join(heads, " or "))
}

// headHealth returns the state of the connection to a head.
func (f *Follower) headHealth() control.Coord {
	s := f.heads.Status()
	c := control.Coord{Kind: "head", Head: string(s.Head), OK: s.Err == nil, Revision: f.Now().State.Revision}
	if s.Err != nil {
		c.Error = s.Err.Error()
	}
	return c
}

// ClockTolerance is how far the clocks of two servers may differ.
const ClockTolerance = 2 * time.Second

// headProblems lists what is wrong between this image server and its head.
func (f *Follower) headProblems() []problems.Problem {
	s := f.heads.Status()
	list := f.readmittedProblems()
	switch ended, ok := errors.AsType[*pki.EndedError](s.Err); {
	case ok:
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindSharedState), Since: ended.Time,
			Text: "this server was removed from the cluster" + atTime(" at ", ended.Time),
			Hint: fmt.Sprintf("it still serves its nodes what was declared last: switch it off; or let it join "+
				"again: on a head dim token --for %s, then here the command that it prints, with --replace", f.Server),
		})
	case s.Err != nil:
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindSharedState), Since: s.Since,
			Text: "no head can be followed: " + strings.ReplaceAll(s.Err.Error(), "\n", "; "),
			Hint: "nodes are served what was declared last; look at the head, and at the network to it",
		})
	}
	if s.Alone != "" {
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindSharedState), Since: s.Since,
			Text: fmt.Sprintf("head %s takes no changes: %s", s.Head, s.Alone),
			Hint: "nodes are served what was declared last; dim status on the head says what to do",
		})
	}
	if s.Ahead.Abs() > ClockTolerance {
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindServer, Name: string(f.Server)},
			Text:  fmt.Sprintf("its clock is off: that of head %s is %v ahead", s.Head, s.Ahead.Round(time.Second)),
			Hint:  "run chrony or systemd-timesyncd on both",
		})
	}
	return list
}
