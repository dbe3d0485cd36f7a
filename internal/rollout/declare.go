package rollout

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

// kept is how many rollouts are remembered after their end.
const kept = 100

// decision collects the change of a declared state.
type decision struct {
	state  coord.State // before the change
	change coord.Change
}

func decide(s coord.State) *decision {
	return &decision{s, coord.Change{Desired: coord.Refs{}, Next: coord.Refs{}, Current: map[string]int{}}}
}

// current returns the reference to the current version of an image after the change.
func (d *decision) current(name string) image.Ref {
	n, ok := d.change.Current[name]
	if !ok {
		v, _ := d.state.Images[name].Followed()
		n = v.Number
	}
	return image.Ref{Image: name, Number: n}
}

// follow makes node follow now, and next from its next boot on. A reference to the current version is not declared: it is the default.
func (d *decision) follow(node string, now, next image.Ref) {
	if now == d.current(now.Image) {
		now = image.Ref{}
	}
	if d.state.Desired[node] != now {
		d.change.Desired[node] = now
	}
	if d.state.Next[node] != next {
		d.change.Next[node] = next
	}
}

// setCurrent makes ref's version the current one of its image.
func (d *decision) setCurrent(ref image.Ref) {
	if d.current(ref.Image) != ref {
		d.change.Current[ref.Image] = ref.Number
	}
}

// Declare begins a rollout with its first ring; of r it takes what a person decides: Image, Version, When, Rings without Ran, All, Soak, Check and
// Hook. ran are the nodes that run now. The error is ErrConflict when one that is under way has nodes in common with it, and coord.ErrNotFound
// when there is no such version.
func Declare(s coord.State, r Rollout, ran []string, now time.Time) (Rollout, coord.Change, error) {
	if _, ok := s.Images[r.Image].Version(r.Version); !ok { // it was removed just now
		return r, coord.Change{}, fmt.Errorf("roll out %s: %w", r.Ref(), coord.ErrNotFound)
	}
	active, err := Active(s)
	if err != nil {
		return r, coord.Change{}, err
	}
	for _, other := range active {
		if common := intersection(other.Nodes(), r.Nodes()); len(common) > 0 {
			return r, coord.Change{}, fmt.Errorf("roll out %s: rollout %d of %s to %s is %s: %w", r.Ref(), other.ID, other.Ref(), common, other.State, ErrConflict)
		}
	}
	numbers := slices.Sorted(maps.Keys(s.Rollouts))
	r.ID = 1
	if len(numbers) > 0 {
		r.ID = numbers[len(numbers)-1] + 1
	}
	f := decide(s)
	r.Current = f.current(r.Image).Number
	r.Before = before(s, r.Nodes())
	r.Started = now
	r.declareRing(f, 0, ran, now)
	change := f.change
	if err := r.put(&change); err != nil {
		return r, change, err
	}
	for _, old := range numbers[:max(0, len(numbers)-kept)] {
		if !slices.ContainsFunc(active, func(a Rollout) bool { return a.ID == old }) {
			change.Rollouts[old] = nil
		}
	}
	return r, change, nil
}

func before(s coord.State, nodes []string) []Before {
	type key struct{ desired, next image.Ref }
	groups := map[key]*Before{}
	var order []*Before
	for _, n := range nodes {
		k := key{s.Desired[n], s.Next[n]}
		if groups[k] == nil {
			groups[k] = &Before{Desired: k.desired, Next: k.next}
			order = append(order, groups[k])
		}
		groups[k].Nodes = append(groups[k].Nodes, n)
	}
	list := make([]Before, len(order))
	for i, b := range order {
		list[i] = *b
	}
	return list
}

func intersection(a, b []string) Nodes {
	in := make(map[string]bool, len(a))
	for _, n := range a {
		in[n] = true
	}
	return slices.DeleteFunc(slices.Clone(b), func(n string) bool { return !in[n] })
}

// declareRing lets the nodes of a ring follow the version. When it is the last one and there is nothing to be done or seen after it,
// that is the end of the rollout: nodes that cannot follow yet are tried again, rollout or not.
func (r *Rollout) declareRing(f *decision, ring int, ran []string, now time.Time) {
	r.Rings = slices.Clone(r.Rings)
	r.Rings[ring].Ran, r.Rings[ring].Declared = intersection(r.Rings[ring].Nodes, ran), now
	r.State, r.Ring, r.Phase, r.Since, r.Reason = Running, ring, Switching, now, ""
	pinned := r.pinned(f.state)
	last := ring == len(r.Rings)-1
	if last && r.All {
		f.setCurrent(r.Ref())
	}
	for _, n := range r.Moved() { // those of earlier rings too: what they follow may be the current version now
		switch {
		case r.When == Now:
			f.follow(n, r.Ref(), image.Ref{})
		case pinned[n] == r.Ref():
			f.follow(n, pinned[n], image.Ref{})
		default:
			f.follow(n, pinned[n], r.Ref())
		}
	}
	if last && r.Hook == "" && r.Check == "" {
		r.State, r.Ended = Done, now
	}
}

// pinned is what the nodes of the rings that were declared follow now, whatever the current version may become.
func (r *Rollout) pinned(s coord.State) coord.Refs {
	m := coord.Refs{}
	for _, n := range r.Moved() {
		m[n], _ = s.Follows(n, r.Image)
	}
	return m
}

// Booted lets nodes follow for good what they were to follow from this boot on.
func Booted(s coord.State, booted coord.Refs) coord.Change {
	f := decide(s)
	for node, ref := range booted {
		if s.Next[node] != ref {
			continue // it was decided otherwise meanwhile
		}
		f.follow(node, ref, image.Ref{})
	}
	return f.change
}

// Pause keeps a rollout where it is; why is shown.
func Pause(s coord.State, id int, why string, now time.Time) (coord.Change, error) {
	return alter(s, id, func(r *Rollout) error {
		if r.State != Running {
			return stateError(fmt.Sprintf("pause rollout %d: it is %s, not running", id, r.State))
		}
		r.State, r.Reason, r.Since = Paused, why, now
		return nil
	})
}

// Resume lets a paused rollout go on: what it was at begins again, be it the hook, the soak time or the check.
func Resume(s coord.State, id int, now time.Time) (coord.Change, error) {
	return alter(s, id, func(r *Rollout) error {
		if r.State != Paused {
			return stateError(fmt.Sprintf("resume rollout %d: it is %s, not paused", id, r.State))
		}
		r.State, r.Reason, r.Since = Running, "", now
		return nil
	})
}

// Stop ends a rollout where it is: the nodes of the rings that were declared keep the version, the others theirs.
func Stop(s coord.State, id int, now time.Time) (coord.Change, error) {
	return alter(s, id, func(r *Rollout) error {
		if !r.UnderWay() {
			return stateError(fmt.Sprintf("stop rollout %d: it is %s already", id, r.State))
		}
		r.State, r.Ended = Stopped, now
		return nil
	})
}

// alter changes the record alone.
func alter(s coord.State, id int, how func(*Rollout) error) (coord.Change, error) {
	var c coord.Change
	r, err := mustLoad(s, id)
	if err == nil {
		err = how(&r)
	}
	if err == nil {
		err = r.put(&c)
	}
	return c, err
}

func mustLoad(s coord.State, id int) (Rollout, error) {
	r, ok, err := Load(s, id)
	if err == nil && !ok {
		err = fmt.Errorf("rollout %d: %w", id, coord.ErrNotFound)
	}
	return r, err
}

// Undo gives every node back what it followed before the rollout: at once, or, for those that have changed already, when they boot; "" is
// as the rollout did it. The error is ErrConflict when somebody has moved a node since, and coord.ErrNotFound when a version that one
// followed was removed.
func Undo(s coord.State, id int, when When, now time.Time) (coord.Change, error) {
	r, err := mustLoad(s, id)
	if err != nil {
		return coord.Change{}, err
	}
	if r.State == Undone {
		return coord.Change{}, stateError(fmt.Sprintf("undo rollout %d: it is undone already", id))
	}
	if when == "" {
		when = r.When
	}
	if when != Now && when != Boot {
		return coord.Change{}, stateError(fmt.Sprintf("undo rollout %d: when is %q, neither now nor boot", id, when))
	}
	f := decide(s)
	made := r.All && r.Ring == len(r.Rings)-1 // the current version
	if moved := r.movedSince(s, made); len(moved) > 0 {
		return coord.Change{}, fmt.Errorf("undo rollout %d: %s moved since: %w", id, moved, ErrConflict)
	}
	if err := r.mayGoBack(s, made); err != nil {
		return coord.Change{}, err
	}
	follow := r.pinned(s)
	if made && r.Current > 0 {
		f.setCurrent(r.before())
	}
	r.restore(f, when, follow)
	r.State, r.Ended, r.Reason = Undone, now, ""
	change := f.change
	return change, r.put(&change)
}

// mayGoBack reports what an undo leads back to and is no longer there. made tells that the rollout has made its version the current one.
func (r *Rollout) mayGoBack(s coord.State, made bool) error {
	var refs []image.Ref
	if made && r.Current > 0 {
		refs = append(refs, r.before())
	}
	for _, b := range r.Before {
		if len(intersection(r.Moved(), b.Nodes)) > 0 {
			refs = append(refs, b.Desired, b.Next)
		}
	}
	for _, ref := range refs {
		if ref.IsZero() {
			continue
		}
		if _, ok := s.Resolve(ref); !ok {
			return fmt.Errorf("undo rollout %d: %s, which it leads back to, was removed: %w", r.ID, ref, coord.ErrNotFound)
		}
	}
	return nil
}

// restore lets nodes follow what they did; follow is what they follow now.
func (r *Rollout) restore(f *decision, when When, follow coord.Refs) {
	for _, b := range r.Before {
		for _, n := range intersection(r.Moved(), b.Nodes) {
			was := b.Desired
			if was.Image != r.Image {
				was = f.current(r.Image)
			}
			if when == Boot && follow[n] == r.Ref() && was != r.Ref() {
				f.follow(n, r.Ref(), was)
				continue
			}
			f.change.Desired[n] = b.Desired
			f.change.Next[n] = b.Next
		}
	}
}

// movedSince returns the nodes that no longer follow what the rollout told them to.
func (r *Rollout) movedSince(s coord.State, made bool) Nodes {
	if current, _ := s.Images[r.Image].Followed(); made && current.Number != r.Version {
		return r.Moved()
	}
	return slices.DeleteFunc(r.Moved(), func(n string) bool {
		now, next := s.Follows(n, r.Image)
		return now == r.Ref() && next.IsZero() || r.When == Boot && next == r.Ref()
	})
}

// PutBack is all that s says about who follows what, to be put into a state that was lost.
func PutBack(s coord.State) coord.Change {
	c := coord.Change{
		Desired: maps.Clone(s.Desired), Next: maps.Clone(s.Next), Current: map[string]int{}, Rollouts: map[int]json.RawMessage{},
	}
	maps.Copy(c.Rollouts, s.Rollouts)
	for name, im := range s.Images {
		if v, ok := im.Followed(); ok {
			c.Current[name] = v.Number
		}
	}
	return c
}
