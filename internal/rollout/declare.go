package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

// kept is the number of rollouts whose records are kept after their end.
const kept = 100

// decision collects a change of the declared state.
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

// follow makes node follow now, and next from its next boot on. A reference to the current version is not declared:
// it is the default.
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

// Declare begins a rollout with its first ring. The caller sets what a person decides: Image, Version, When, Rings
// without Ran, All, OnConflict, Soak, Check, Hook and MaxFailed. ran are the nodes that are up now.
//
// The error is ErrConflict when a rollout that has something left to do has a node in common with this one, and
// coord.ErrNotFound when there is no such version.
func (r Rollout) Declare(s coord.State, ran []string, now time.Time) (Rollout, coord.Change, error) {
	if _, ok := s.Images[r.Image].Version(r.Version); !ok { // it may have been removed a moment ago
		return r, coord.Change{}, fmt.Errorf("roll out %s: %w", r.Ref(), coord.ErrNotFound)
	}
	active, err := new(Records).Of(s).Active()
	if err != nil {
		return r, coord.Change{}, err
	}
	d := decide(s)
	if err := r.takeOver(d, active, now); err != nil {
		return r, coord.Change{}, err
	}
	numbers := slices.Sorted(maps.Keys(s.Rollouts))
	r.ID = 1
	if len(numbers) > 0 {
		r.ID = numbers[len(numbers)-1] + 1
	}
	r.Current = d.current(r.Image).Number
	r.Before = before(s, r.Nodes())
	r.Started = now
	if r.Prefetching() {
		r.State, r.Since = Running, now
	} else {
		r.declareRing(d, 0, ran, now)
	}
	change := d.change
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

// takeOver ends the rollouts whose nodes all are in r. The error is ErrConflict when one that has something left to do
// has a node in common with r. One that has declared nothing yet, because servers get its version, is no conflict if
// all its nodes are in r.
func (r *Rollout) takeOver(d *decision, active []Rollout, now time.Time) error {
	for i := range active {
		other := &active[i]
		common := intersection(other.Nodes(), r.Nodes())
		switch {
		case len(common) == 0:
		case !other.OnlyWaits() && !(other.Prefetching() && len(common) == len(other.Nodes())):
			return conflictError(fmt.Sprintf("roll out %s: rollout %d (%s) is still %s on %s",
				r.Ref(), other.ID, other.Ref(), other.State, common))
		case len(common) == len(other.Nodes()):
			other.State, other.Ended, other.Reason = replaced, now, ""
			if err := other.put(&d.change); err != nil {
				return err
			}
		}
	}
	return nil
}

// before returns what s declares for nodes, grouped.
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

// intersection returns the names of b that are in a.
func intersection(a, b []string) Nodes {
	in := asSet(a)
	return slices.DeleteFunc(slices.Clone(b), func(n string) bool { return !in[n] })
}

// subtract returns the elements of a that are not in b.
func subtract(a, b []string) Nodes {
	in := asSet(b)
	return slices.DeleteFunc(slices.Clone(a), func(n string) bool { return in[n] })
}

func asSet(list []string) map[string]bool {
	in := make(map[string]bool, len(list))
	for _, n := range list {
		in[n] = true
	}
	return in
}

// declareRing makes the nodes of a ring follow the version.
func (r *Rollout) declareRing(d *decision, ring int, ran []string, now time.Time) {
	r.Rings = slices.Clone(r.Rings)
	r.Rings[ring].Ran, r.Rings[ring].Declared = intersection(r.Rings[ring].Nodes, ran), now
	r.State, r.Ring, r.Phase, r.Since, r.Reason = Running, ring, switching, now, ""
	followed := r.followed(d.state)
	if ring == len(r.Rings)-1 && r.All {
		d.setCurrent(r.Ref())
	}
	for _, n := range r.declared() { // with earlier rings: their reference may name the current version now
		if r.When == Now || followed[n] == r.Ref() {
			d.follow(n, r.Ref(), image.Ref{})
		} else {
			d.follow(n, followed[n], r.Ref())
		}
	}
}

// followed returns what the nodes of the declared rings follow in s.
func (r *Rollout) followed(s coord.State) coord.Refs {
	m := coord.Refs{}
	for _, n := range r.declared() {
		m[n], _ = s.Follows(n, r.Image)
	}
	return m
}

// Booted makes nodes follow what they booted: the references that they were to follow from this boot on. A node for
// which something else was declared since is left out.
func Booted(s coord.State, booted coord.Refs) coord.Change {
	d := decide(s)
	for node, ref := range booted {
		if s.Next[node] == ref {
			d.follow(node, ref, image.Ref{})
		}
	}
	return d.change
}

// Pause pauses a rollout; reason is shown.
func Pause(s coord.State, id int, reason string, now time.Time) (coord.Change, error) {
	return alter(s, id, func(r *Rollout) error {
		if r.State != Running {
			return stateError(fmt.Sprintf("pause rollout %d: it is %s, not running", id, r.State))
		}
		r.State, r.Reason, r.Since = Paused, reason, now
		return nil
	})
}

// Resume continues a paused rollout. Its phase begins again: the hook, or the soak time and the check.
func Resume(s coord.State, id int, now time.Time) (coord.Change, error) {
	return alter(s, id, func(r *Rollout) error {
		if r.State != Paused {
			return stateError(fmt.Sprintf("resume rollout %d: it is %s, not paused", id, r.State))
		}
		r.State, r.Reason, r.Since = Running, "", now
		return nil
	})
}

// Stop ends a rollout where it is: the nodes that have moved keep its version, the others are not moved, also not at
// their next boot. shown is how many of its nodes show the version.
func Stop(s coord.State, id, shown int, now time.Time) (coord.Change, error) {
	r, err := loadExisting(s, id)
	if err != nil {
		return coord.Change{}, err
	}
	if !r.UnderWay() {
		return coord.Change{}, stateError(fmt.Sprintf("stop rollout %d: it is already %s", id, r.State))
	}
	d := decide(s)
	r.cancelBoots(d)
	r.State, r.Ended, r.Reason, r.Shown = stopped, now, "", &shown
	return d.change, r.put(&d.change)
}

// cancelBoots lets the nodes that have not booted the version yet follow what they follow now. If the version was made
// the current one of the image, it is that no longer: not all nodes have moved to it.
func (r *Rollout) cancelBoots(d *decision) {
	var waiting, others Nodes
	for _, n := range r.declared() {
		if _, next := d.state.Follows(n, r.Image); next == r.Ref() {
			waiting = append(waiting, n)
		} else if d.state.Desired[n].IsZero() {
			others = append(others, n)
		}
	}
	if len(waiting) == 0 {
		return
	}
	if r.madeCurrent() && r.Current > 0 && d.current(r.Image) == r.Ref() {
		d.setCurrent(r.previous())
		for _, n := range others { // they followed the current version without a reference of their own
			d.follow(n, r.Ref(), d.state.Next[n])
		}
	}
	for _, n := range waiting {
		now, _ := d.state.Follows(n, r.Image)
		d.follow(n, now, image.Ref{})
	}
}

// alter changes the record alone.
func alter(s coord.State, id int, change func(*Rollout) error) (coord.Change, error) {
	var c coord.Change
	r, err := loadExisting(s, id)
	if err == nil {
		err = change(&r)
	}
	if err == nil {
		err = r.put(&c)
	}
	return c, err
}

// loadExisting is Load with the error coord.ErrNotFound when there is no such rollout.
func loadExisting(s coord.State, id int) (Rollout, error) {
	r, ok, err := Load(s, id)
	if err == nil && !ok {
		err = fmt.Errorf("rollout %d: %w", id, coord.ErrNotFound)
	}
	return r, err
}
