package serving

import (
	"context"
	"fmt"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/replica"
)

// Reconcile makes every replica of this server's nodes show what is declared: those that are not served yet are
// attached, those that show something else are switched, all to the same version together. A node that cannot be served
// becomes a problem and is tried again later; the others are served all the same.
func (s *Server) Reconcile(ctx context.Context) {
	s.Declared.Stable(func(now *follow.Declared) { s.Adopted(ctx, now) })
}

// Adopted does what Reconcile does, for a state that is being adopted.
func (s *Server) Adopted(ctx context.Context, now *follow.Declared) {
	r := &reconciliation{s: s, plan: newPlan(now), list: s.kept(now), failed: map[problems.Subject]error{}}
	for _, n := range now.Cluster.Nodes {
		if s.Serves(n) {
			r.place(n)
		}
	}
	r.apply(ctx)
	s.holding.Store(r.holding)
	s.replace(r.list)
	s.Push.Wake(r.moved...)
	s.forget(now)
	s.report(r.failed)
}

// reconciliation is one run of Reconcile.
type reconciliation struct {
	s       *Server
	plan    *plan
	list    []*export // all that is to be exported
	moves   []replica.Move
	moved   []cluster.NodeName
	failed  map[problems.Subject]error
	holding bool
}

// place decides what a node needs.
func (r *reconciliation) place(n *cluster.Node) {
	v, held, err := r.s.target(r.plan.now, n)
	r.holding = r.holding || held
	if err != nil {
		if err = r.plan.now.Missing(n); err != nil {
			r.failed[problems.Node(n.Name)] = err
		}
		return // a node without a version needs nothing
	}
	x, move, err := r.s.place(r.plan, n, v)
	if err != nil {
		r.failed[problems.Node(n.Name)] = err
		return
	}
	if x != nil {
		r.list = append(r.list, x)
	}
	if move != nil {
		r.moves, r.moved = append(r.moves, *move), append(r.moved, n.Name)
	}
}

// apply switches the replicas. Those that stay for a mount are tried again with the next run.
func (r *reconciliation) apply(ctx context.Context) {
	if len(r.moves) == 0 {
		return
	}
	held, err := r.s.move(ctx, r.moves)
	if r.s.unmoved = err != nil; r.s.unmoved {
		r.failed[problems.Of(problems.KindReplicas)] = err
	}
	for _, h := range held {
		r.failed[problems.Node(h.Node)] = heldError(h)
		for _, x := range r.list {
			if x.node == cluster.NodeName(h.Node) && !x.former {
				x.from = madeFrom{} // differs from every other, so the next run moves it again
			}
		}
	}
}

// target returns the version that a node's replica is to show now:
//
//  1. A node that has booted into its next version keeps it, also before the shared state has recorded the boot.
//  2. A node in the middle of a boot keeps the version of its kernel; held is true.
//  3. Every other node shows what it follows.
func (s *Server) target(now *follow.Declared, n *cluster.Node) (v image.Version, held bool, err error) {
	v, err = now.Version(n)
	_, next := now.Follows(n)
	boots := !next.IsZero()
	x := s.node(n.Name)
	if !boots && x != nil && err == nil && x.from.number == v.Number && x.from.version == v.Digest {
		return v, false, nil // as before
	}
	booting := s.Liveness.State(n.Name).Booting
	if !boots && !booting {
		return v, false, err
	}
	shows, known := s.Set.Followed(string(n.Name), string(n.Image.Name))
	if !known || err == nil && same(shows, v) {
		return v, false, err
	}
	if w, ok := now.State.Resolve(next); boots && ok && same(shows, w) {
		s.booted.Store(true)
		return w, false, nil
	}
	if booting {
		return shows, true, nil
	}
	return v, false, err
}

// Begin switches the root of a node that begins to boot to the version that the node follows from this boot on,
// because its kernel will be of that version. The root stays there once the boot is reported to Liveness; before that a
// switch may still move it.
func (s *Server) Begin(ctx context.Context, n *cluster.Node) {
	before := s.Declared.Now()
	ref, next := before.Follows(n)
	boots := !next.IsZero()
	if boots {
		ref = next
	}
	v, ok := before.State.Resolve(ref)
	if shows, served := s.Shows(n.Name); !ok || !served || same(shows, v) {
		return
	}
	s.Declared.Stable(func(now *follow.Declared) {
		if now != before {
			return // it was decided anew just now; the node boots what its replica shows
		}
		if err := s.pin(ctx, now, n, v); err != nil {
			s.Problems.Set(problems.Node(n.Name), err)
			s.unsettled.Store(true)
			return
		}
		if boots {
			s.Log.Info("node boots the version that it was to change to", "node", n.Name, "version", v.Ref().String())
			s.booted.Store(true)
		}
	})
}

// pin makes a node's replica show v.
func (s *Server) pin(ctx context.Context, now *follow.Declared, n *cluster.Node, v image.Version) error {
	x, move, err := s.place(newPlan(now), n, v)
	if err != nil {
		return err
	}
	if move != nil {
		held, err := s.move(context.WithoutCancel(ctx), []replica.Move{*move})
		if len(held) > 0 {
			return heldError(held[0])
		}
		if err != nil {
			return err
		}
	}
	if x != nil {
		s.replace(append(s.kept(now), x))
	}
	return nil
}

// move switches replicas and logs what happened. It returns those that stay for a mount.
func (s *Server) move(ctx context.Context, moves []replica.Move) ([]replica.Held, error) {
	report, err := s.Set.Switch(ctx, moves)
	for _, a := range report.Aside {
		s.Log.Info("a node's own copy was set aside",
			"node", a.Node, "image", a.Image, "path", "/"+a.Path, "kind", string(a.Kind))
	}
	for _, err := range report.Missed {
		s.Log.Warn("no snapshot was taken before a switch", "error", err)
	}
	if report.Snapshots > 0 {
		s.Log.Info("snapshots of layers taken", "snapshots", report.Snapshots)
	}
	if err != nil {
		return report.Held, fmt.Errorf("switch replicas: %w", err)
	}
	if report.Replicas > 0 {
		s.Log.Info("replicas switched",
			"replicas", report.Replicas, "paths", report.Paths, "aside", len(report.Aside), "took", report.Took)
	}
	return report.Held, nil
}

// heldError is a replica that does not follow because of a mount, in words for a person.
type heldError replica.Held

func (h heldError) Error() string {
	return fmt.Sprintf("its replica stays as it is: a mount there is on /%s, which changes; "+
		"unmount it, or reboot the node", h.Path)
}

// kept returns the exports that stay whatever is decided about replicas: versions, and the replicas of nodes that this
// server still serves.
func (s *Server) kept(now *follow.Declared) []*export {
	var list []*export
	for _, x := range s.table.Load().trees {
		if x.node == "" {
			list = append(list, x)
			continue
		}
		if n, ok := now.Cluster.Node(x.node); ok && s.Serves(n) {
			y := *x
			y.former = x.fs.Tree() != treeOf(n)
			list = append(list, &y)
		}
	}
	return list
}

// forget drops what is known of nodes that are no longer declared.
func (s *Server) forget(now *follow.Declared) {
	for name := range s.declared {
		if _, ok := now.Cluster.Node(name); !ok {
			s.Liveness.Forget(name)
			s.Push.Forget(name)
			delete(s.declared, name)
		}
	}
	for _, n := range now.Cluster.Nodes {
		s.declared[n.Name] = true
	}
}

// maxLogged bounds the lines of log when the same happens to all nodes.
const maxLogged = 5

// report stores what failed, in place of what failed before, and logs what is new.
func (s *Server) report(failed map[problems.Subject]error) {
	s.unsettled.Store(len(failed) > 0)
	fresh := 0
	for about, err := range failed {
		if s.Problems.Set(about, err) {
			if fresh++; fresh <= maxLogged {
				s.Log.Error("not served as declared", "reason", about.String(), "error", err)
			}
		}
	}
	if fresh > maxLogged {
		s.Log.Error("more is not served as declared", "count", fresh-maxLogged)
	}
	s.Problems.Remove(func(about problems.Subject) bool {
		_, still := failed[about]
		return !still && (about.Kind == problems.KindReplicas || about.Kind == problems.KindNode)
	})
}
