package serving

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/image"
	"dim/internal/layers"
	"dim/internal/layers/pkgread"
	"dim/internal/pkgdb"
	"dim/internal/problems"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/versionfs"
)

// packageDecision is what was found out about the packages of a node, which stays true as long as key does.
type packageDecision struct {
	key       string // the versions, and the state of the layer's package database
	conflicts layers.PackageConflicts
	until     time.Time // when a database that cannot be read is read again; zero: when key changes
}

// unreadFor is how long a package database that cannot be read is not read again, whatever the node does to it.
const unreadFor = time.Minute

// packages compares the packages that a node has changed with those of version v, to which its replica is to go. What
// is returned is empty for a node that has changed none.
func (s *Server) packages(
	p *plan, n *cluster.Node, r *replica.Replica, v image.Version,
) (none layers.PackageConflicts, err error) {
	was := r.Version()
	if was.Digest == v.Digest {
		return none, nil
	}
	if same, err := p.samePackages(s, was, v); same || err != nil {
		return none, err
	}
	state, err := layers.PackageState(s.Set, string(n.Name), string(n.Image.Name))
	if state == "" || err != nil {
		return none, err
	}
	key := was.Digest.String() + v.Digest.String() + state
	s.deciding.Lock()
	known := s.decided[n.Name]
	s.deciding.Unlock()
	if time.Now().Before(known.until) || known.until.IsZero() && known.key == key {
		return known.conflicts, nil
	}
	if err := errors.Join(p.inStore(s, was), p.inStore(s, v)); err != nil {
		return none, err
	}
	version := func(v image.Version) pkgread.Version {
		return pkgread.Version{Digest: v.Digest, Files: versionfs.New(s.Store, v.Root)}
	}
	conflicts, err := layers.Of(r).PackageConflicts(layers.PackageComparison{
		Reader: s.Packages, Pair: pkgread.Pair{Old: version(was), Next: version(v)},
		Merged: n.Image.Merge[pkgdb.DpkgStatus] != "",
	})
	if err != nil {
		return none, fmt.Errorf("compare the packages of %s: %w", n.Name, err)
	}
	decision := packageDecision{key: key, conflicts: conflicts}
	if conflicts.Unread != "" {
		s.Log.Warn("package database cannot be read", "node", n.Name, "error", conflicts.Unread)
		decision.until = time.Now().Add(unreadFor)
	}
	s.deciding.Lock()
	defer s.deciding.Unlock()
	s.decided[n.Name] = decision
	return conflicts, nil
}

// samePackages reports whether two versions have the same databases of packages. It compares them once.
func (p *plan) samePackages(s *Server, a, b image.Version) (bool, error) {
	pair := [2]image.Digest{a.Digest, b.Digest}
	if same, ok := p.same[pair]; ok {
		return same, nil
	}
	for _, v := range []image.Version{a, b} {
		if err := p.inStore(s, v); err != nil && !s.Partial(v) {
			return false, err
		}
	}
	x, y := versionfs.New(s.Store, a.Root), versionfs.New(s.Store, b.Root)
	same := true
	for _, path := range pkgdb.DatabaseFiles() {
		var found [2]image.Entry
		for i, version := range []*versionfs.FS{x, y} {
			var err error
			if found[i], err = version.Entry(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
		}
		same = same && found[0].Digest == found[1].Digest
	}
	p.same[pair] = same
	return same, nil
}

// onConflict returns what becomes of node n if it has changed packages that its version changes too, as its latest
// rollout says.
func (p *plan) onConflict(s *Server, n *cluster.Node) pkgdb.OnConflict {
	rollouts, err := p.now.Rollouts().List()
	if err != nil {
		s.Log.Error("rollout cannot be read", "error", err)
	}
	for i := range rollouts {
		r := &rollouts[i]
		if r.Image == string(n.Image.Name) && r.OnConflict != "" && slices.Contains(r.Nodes(), string(n.Name)) {
			return r.OnConflict
		}
	}
	return pkgdb.LeaveNode
}

// addPackages adds to move what becomes of the packages that node and master have both changed. left is not empty if
// the node is not to be moved: it tells why.
func addPackages(move *replica.Move, c *layers.PackageConflicts, on func() pkgdb.OnConflict) (left string) {
	if left = leftBy(c, move.Version, on); left != "" || len(c.List) == 0 && c.Unread == "" {
		return left
	}
	if on() == pkgdb.MasterWins {
		move.Extra = c.Paths
		return ""
	}
	move.Stay = c.Files
	for _, p := range c.List {
		move.StayPackages = append(move.StayPackages, p.Name)
	}
	move.StayPackages = slices.Compact(move.StayPackages) // architectures of a package follow each other
	return ""
}

// leftBy returns why a node stays with the version that it shows; "" if it does not.
func leftBy(c *layers.PackageConflicts, v image.Version, on func() pkgdb.OnConflict) string {
	if !c.Busy {
		switch {
		case len(c.List) == 0 && c.Unread == "" || on() == pkgdb.MasterWins:
			return ""
		case on() == pkgdb.NodeWins && !c.Whole && c.Unread == "":
			return ""
		}
	}
	return leftText(c, v)
}

// leftText tells why nodes stay: which packages they and version v have both changed.
func leftText(c *layers.PackageConflicts, v image.Version) string {
	if c.Busy {
		return fmt.Sprintf("not moved to %s, because dpkg runs there or was interrupted (/var/lib/dpkg/updates); it "+
			"is moved when dpkg has ended, and dpkg --configure -a on the node completes an interrupted run", v.Ref())
	}
	if c.Unread != "" {
		return fmt.Sprintf("not moved to %s, because its %s; with --on-conflict master the node gets the master's, "+
			"and its own is set aside", v.Ref(), c.Unread)
	}
	text := fmt.Sprintf("not moved to %s, because node and master have changed packages: %s", v.Ref(),
		pkgdb.Describe(c.List))
	if c.Whole {
		return text + "; the master's database would replace the node's as a whole, so --on-conflict node is not " +
			"possible; with --on-conflict master they are the master's"
	}
	return text + "; with --on-conflict master they are the master's, with --on-conflict node they stay the node's"
}

// keptText tells which packages stay the node's; "" if none do.
func keptText(c *layers.PackageConflicts, move *replica.Move) string {
	if len(move.StayPackages) == 0 {
		return ""
	}
	return "these packages stay the node's: " + pkgdb.Describe(c.List)
}

// placeNext notes a node that will not change to its next version when it boots, because of its packages. That dpkg
// runs there now does not matter: it will have ended.
func (r *reconciliation) placeNext(n *cluster.Node) {
	_, next := r.plan.now.Follows(n)
	v, ok := r.plan.now.State.Resolve(next)
	if !ok {
		return
	}
	root, attached := r.s.Set.Find(treeOf(n))
	if !attached || errors.Is(r.plan.inStore(r.s, v), store.ErrNotFound) {
		return
	}
	conflicts, err := r.s.packages(r.plan, n, root, v)
	if err != nil {
		r.failed[problems.Node(n.Name)] = err
		return
	}
	conflicts.Busy = false
	if left := leftBy(&conflicts, v, func() pkgdb.OnConflict { return r.plan.onConflict(r.s, n) }); left != "" {
		r.left[n.Name] = left
	}
}

// Left returns why a node stays with what it shows because of its packages, also when it boots; "" if it does not.
func (s *Server) Left(node cluster.NodeName) string {
	if left := s.left.Load(); left != nil {
		return (*left)[node]
	}
	return ""
}

// keepLeft notes the nodes that stay because of their packages, and makes problems of them: one for all nodes that stay
// for the same reason.
func (r *reconciliation) keepLeft() {
	r.s.left.Store(&r.left)
	byText := map[string][]string{}
	for node, text := range r.left {
		byText[text] = append(byText[text], string(node))
	}
	for text, nodes := range byText {
		r.failed[problems.Subject{Kind: problems.KindPackages, Name: nodeset.Fold(nodes)}] = errors.New(text)
	}
	r.s.deciding.Lock()
	defer r.s.deciding.Unlock()
	for node := range r.s.decided {
		if r.left[node] == "" {
			delete(r.s.decided, node)
		}
	}
}
