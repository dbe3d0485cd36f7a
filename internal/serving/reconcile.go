package serving

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/quantity"
	"dim/internal/recordmerge"
	"dim/internal/replica"
	"dim/internal/store"
)

// Reconcile makes every replica of this server's nodes show what is declared: those that are not served yet are
// attached, those that show something else are switched, all to the same version together. A node that cannot be served
// becomes a problem and is tried again later; the others are served all the same.
func (s *Server) Reconcile(ctx context.Context) {
	s.Declared.Stable(func(now *follow.Declared) { s.Adopted(ctx, now) })
}

// Adopted does what Reconcile does, for a state that is being adopted.
func (s *Server) Adopted(ctx context.Context, now *follow.Declared) {
	r := &reconciliation{
		s: s, plan: newPlan(now), list: s.kept(now), failed: map[problems.Subject]error{},
		left: map[cluster.NodeName]string{},
	}
	var mine []*cluster.Node
	if !s.Closed() {
		mine = now.NodesOf(s.Server)
	}
	s.first.all.Store(int64(len(mine)))
	waiting := r.rename()
	for i, n := range mine {
		if !waiting[n.Name] {
			r.place(n)
			r.placeNext(n)
		}
		s.first.placed.Store(int64(i + 1))
	}
	r.apply(ctx)
	r.keepLeft()
	s.holding.Store(r.holding)
	s.replace(r.list)
	s.Push.Wake(r.moved...)
	s.arriving.reconciled()
	s.forget(now)
	s.report(r.failed)
	if s.holding.Load() || s.unsettled.Load() {
		s.await()
	}
	s.first.once.Do(func() { close(s.first.done) })
}

// reconciliation is one run of Reconcile.
type reconciliation struct {
	s       *Server
	plan    *plan
	list    []*export // all that is to be exported
	attach  []*export // of list, whose replicas are to be attached
	specs   []replica.Spec
	moves   []replica.Move
	moved   []cluster.NodeName
	again   []*cluster.Node // of attach: those that are attached as they were, and are to be placed again
	left    map[cluster.NodeName]string
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
	if err := r.s.late(r.plan, n); err != nil {
		r.failed[problems.Node(n.Name)] = err
	}
	p, err := r.s.place(r.plan, n, r.s.whole(r.plan, n, v))
	switch {
	case err != nil:
		r.failed[problems.Node(n.Name)] = err
	case p.left != "":
		r.list = append(r.list, p.export)
		r.left[n.Name] = p.left
	case p.spec != nil:
		if p.again {
			r.again = append(r.again, n)
		}
		r.attach, r.specs = append(r.attach, p.export), append(r.specs, *p.spec)
	case p.export != nil:
		r.list = append(r.list, p.export)
		r.moves, r.moved = append(r.moves, *p.move), append(r.moved, n.Name)
	}
}

// whole returns v, or what n showed before if v has not arrived yet: a version is shown when the store has all of it.
// If what n showed is not known or not here either, that is the current version of the image, or the newest one here.
func (s *Server) whole(p *plan, n *cluster.Node, v image.Version) image.Version {
	if x := s.node(n.Name); x != nil && x.from.number == v.Number && x.from.version == v.Digest {
		return v
	}
	if err := p.inStore(s, v); !errors.Is(err, store.ErrNotFound) {
		return v
	}
	im := p.now.State.Images[v.Image]
	was, known := s.Set.Followed(string(n.Name), string(n.Image.Name))
	if !known {
		was, known = im.Followed()
	}
	if known && p.inStore(s, was) == nil {
		return was
	}
	for _, w := range slices.Backward(im.Versions) {
		if p.inStore(s, w) == nil {
			return w
		}
	}
	return v
}

// apply attaches and switches the replicas. Those that stay as they are, for a mount or an error, are tried again with
// the next run.
func (r *reconciliation) apply(ctx context.Context) {
	if len(r.specs) > 0 {
		r.attachAll(ctx)
	}
	if len(r.moves) > 0 {
		report := r.s.move(ctx, r.moves)
		r.noteStaying(&report)
	}
}

// attachAll attaches the replicas that are not served yet. Those that it attaches as they were are placed again then.
func (r *reconciliation) attachAll(ctx context.Context) {
	again := make(map[cluster.NodeName]bool, len(r.again))
	for _, n := range r.again {
		again[n.Name] = true
	}
	all, errs := r.s.Set.AttachAll(ctx, r.specs)
	for i, x := range r.attach {
		if errs[i] != nil {
			r.failed[problems.Node(x.node)] = errs[i]
			continue
		}
		if x.fs = all[i]; !again[x.node] {
			r.list = append(r.list, x)
		}
	}
	for _, n := range r.again {
		if r.failed[problems.Node(n.Name)] == nil {
			r.place(n)
		}
	}
}

// noteStaying notes the replicas that were not switched.
func (r *reconciliation) noteStaying(report *replica.Report) {
	stay := map[cluster.NodeName]bool{}
	for _, h := range report.Held {
		stay[cluster.NodeName(h.Node)] = true
		r.failed[problems.Node(h.Node)] = heldError(h)
	}
	same := sameCause(report.Failed)
	if same != nil {
		r.failed[problems.Of(problems.KindReplicas)] = fmt.Errorf("switch %d replicas: %w", len(report.Failed), same)
	}
	for of, err := range report.Failed {
		node, _ := of.Name()
		stay[cluster.NodeName(node)] = true
		if same == nil {
			r.failed[problems.Node(node)] = fmt.Errorf("switch its replica: %w", err)
		}
	}
	for _, x := range r.list {
		if stay[x.node] && !x.former {
			x.from = madeFrom{} // differs from every other, so the next run moves it again
		}
	}
}

// sameCause returns the error that several failures have in common; nil if they differ.
func sameCause(failed map[*replica.Replica]error) (same error) {
	if len(failed) < 2 {
		return nil
	}
	for _, err := range failed {
		if same != nil && err.Error() != same.Error() {
			return nil
		}
		same = err
	}
	return same
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
// because its kernel will be of that version. It waits a while for one that has not arrived. The root stays there once
// the boot is reported to Liveness; before that a switch may still move it.
func (s *Server) Begin(ctx context.Context, n *cluster.Node) {
	s.arriving.dropLate(n.Name)
	b, ok := s.nextBoot(n)
	if ok && !s.servable(&b) {
		s.awaitVersion(ctx, n, &b)
		b, ok = s.nextBoot(n) // another state may have been adopted meanwhile
	}
	if !ok || !s.servable(&b) {
		return
	}
	s.Declared.Stable(func(now *follow.Declared) {
		if now != b.now {
			return // it was decided anew just now; the node boots what its replica shows
		}
		if err := s.pin(ctx, now, n, b.version); err != nil {
			s.Problems.Set(problems.Node(n.Name), err)
			s.unsettled.Store(true)
			s.await()
			return
		}
		if b.changes {
			s.Log.Info("node boots the version that it was to change to", "node", n.Name,
				"version", b.version.Ref().String())
			s.booted.Store(true)
		}
	})
}

// pin makes a node's replica show v.
func (s *Server) pin(ctx context.Context, now *follow.Declared, n *cluster.Node, v image.Version) error {
	p, err := s.place(newPlan(now), n, v)
	switch {
	case err != nil || p.export == nil:
		return err
	case p.left != "":
		s.Log.Warn("node boots its former version", "node", n.Name, "reason", p.left)
		return nil
	case p.spec != nil:
		if p.export.fs, err = s.Set.Attach(*p.spec); err != nil {
			return err
		}
		if p.again {
			return s.pin(ctx, now, n, v)
		}
	default:
		report := s.move(context.WithoutCancel(ctx), []replica.Move{*p.move})
		if len(report.Held) > 0 {
			return heldError(report.Held[0])
		}
		if err := report.Failed[p.move.Replica]; err != nil {
			return fmt.Errorf("switch its replica: %w", err)
		}
	}
	s.replace(append(s.kept(now), p.export))
	return nil
}

// move switches replicas and logs what happened.
func (s *Server) move(ctx context.Context, moves []replica.Move) replica.Report {
	report, err := s.Set.Switch(ctx, moves)
	for i := range report.Aside {
		a := &report.Aside[i]
		facts := []any{"node", a.Node, "image", a.Image, "path", "/" + a.Path, "kind", a.What()}
		if len(a.Conflicts) > 0 {
			s.Log.Warn("a node's own copy was set aside", append(facts, "reason", conflictText(a.Conflicts))...)
			continue
		}
		s.Log.Info("a node's own copy was set aside", facts...)
	}
	for _, err := range report.Missed {
		s.Log.Warn("no snapshot was taken before a switch", "error", err)
	}
	if report.Snapshots > 0 {
		s.Log.Info("snapshots of layers taken", "snapshots", report.Snapshots)
	}
	if err != nil && len(report.Failed) == 0 {
		s.Log.Error("after a switch of replicas", "error", err) // the replicas that failed are problems
	}
	if report.Replicas > 0 {
		s.Log.Info("replicas switched",
			"replicas", report.Replicas, "paths", report.Paths, "aside", len(report.Aside), "took", report.Took)
	}
	return report
}

// conflictText returns the first of some conflicts, and how many there are besides.
func conflictText(list []recordmerge.Conflict) string {
	text := list[0].String()
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s more like it)", quantity.Count(n))
	}
	return text
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
		if x.lent != nil {
			continue // replace keeps those that are lent then
		}
		if x.node == "" {
			list = append(list, x)
			continue
		}
		if n, ok := now.Cluster.Node(x.node); ok && s.serves(now, n) {
			y := *x
			y.former = x.fs.Tree() != treeOf(n)
			list = append(list, &y)
		}
	}
	return list
}

// forget drops what is known of nodes that another description declared, and ends the service of their replicas.
func (s *Server) forget(now *follow.Declared) {
	if s.described == now.Cluster {
		return
	}
	s.described = now.Cluster
	gone := false
	for name := range s.declared {
		if _, ok := now.Cluster.Node(name); !ok {
			s.Liveness.Forget(name)
			s.Push.Forget(name)
			delete(s.declared, name)
			gone = true
		}
	}
	if gone {
		s.Set.Detach(func(node string) bool {
			_, ok := now.Cluster.Node(cluster.NodeName(node))
			return ok
		})
	}
	for _, n := range now.Cluster.Nodes {
		s.declared[n.Name] = true
	}
}

// maxLogged bounds the lines of log when the same happens to all nodes.
const maxLogged = 5

// logFailure logs why something is not served as declared. A version that is on its way is no error.
func (s *Server) logFailure(about problems.Subject, err error) {
	if waits, ok := errors.AsType[*awaitedError](err); ok {
		s.Log.Info("waits for a version", "reason", about.String(), "version", waits.ref.String())
		return
	}
	s.Log.Error("not served as declared", "reason", about.String(), "error", err)
}

// report stores what failed, in place of what failed before, and logs what is new.
func (s *Server) report(failed map[problems.Subject]error) {
	s.unsettled.Store(len(failed) > 0)
	fresh := 0
	for about, err := range failed {
		if s.Problems.Set(about, err) {
			if fresh++; fresh <= maxLogged {
				s.logFailure(about, err)
			}
		}
	}
	if fresh > maxLogged {
		s.Log.Warn("more is not served as declared", "count", fresh-maxLogged)
	}
	s.Problems.Remove(func(about problems.Subject) bool {
		_, still := failed[about]
		return !still && (about.Kind == problems.KindReplicas || about.Kind == problems.KindNode ||
			about.Kind == problems.KindPackages)
	})
}
