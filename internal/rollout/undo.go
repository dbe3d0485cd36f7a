package rollout

import (
	"fmt"
	"slices"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

// Undo makes every node follow again what it followed before the rollout. When tells when nodes that have changed
// already change back; "" is as the rollout changed them.
//
// The error is ErrConflict when a node was moved since, and coord.ErrNotFound when a version that a node followed was
// removed.
func Undo(s coord.State, id int, when When, now time.Time) (coord.Change, error) {
	r, err := loadExisting(s, id)
	if err != nil {
		return coord.Change{}, err
	}
	if r.State == undone {
		return coord.Change{}, stateError(fmt.Sprintf("undo rollout %d: it is already undone", id))
	}
	if when == "" {
		when = r.When
	}
	if when != Now && when != Boot {
		return coord.Change{}, stateError(fmt.Sprintf("undo rollout %d: when is %q, neither now nor boot", id, when))
	}
	if moved := r.movedSince(s); len(moved) > 0 {
		return coord.Change{}, conflictError(fmt.Sprintf("undo rollout %d: %s moved since", id, moved))
	}
	if err := r.checkPrevious(s); err != nil {
		return coord.Change{}, err
	}
	d := decide(s)
	if r.madeCurrent() && r.Current > 0 {
		d.setCurrent(r.previous())
	}
	r.restore(d, when)
	r.State, r.Ended, r.Reason, r.Shown = undone, now, "", nil
	change := d.change
	return change, r.put(&change)
}

// madeCurrent reports whether the rollout has made its version the current one.
func (r *Rollout) madeCurrent() bool { return r.All && !r.Prefetching() && r.Ring == len(r.Rings)-1 }

// movedSince returns the nodes that no longer follow what the rollout declared for them. A rollout for the next boot
// that was stopped left those that had not booted as they were.
func (r *Rollout) movedSince(s coord.State) Nodes {
	cancelled := r.State == stopped && r.When == Boot
	current, _ := s.Images[r.Image].Followed()
	if r.madeCurrent() && current.Number != r.Version && !(cancelled && current.Number == r.Current) {
		return r.declared()
	}
	before := coord.Refs{}
	if cancelled {
		for _, b := range r.Before {
			for _, n := range b.Nodes {
				before[n] = r.previousOf(&b)
			}
		}
	}
	return slices.DeleteFunc(r.declared(), func(n string) bool {
		now, next := s.Follows(n, r.Image)
		return now == r.Ref() && next.IsZero() || r.When == Boot && next == r.Ref() ||
			cancelled && now == before[n] && next.IsZero()
	})
}

// checkPrevious checks that the versions that an undo restores are still there.
func (r *Rollout) checkPrevious(s coord.State) error {
	var refs []image.Ref
	if r.madeCurrent() && r.Current > 0 {
		refs = append(refs, r.previous())
	}
	for _, b := range r.Before {
		if len(intersection(r.declared(), b.Nodes)) > 0 {
			refs = append(refs, b.Desired, b.Next)
		}
	}
	for _, ref := range refs {
		if ref.IsZero() {
			continue
		}
		if _, ok := s.Resolve(ref); !ok {
			return fmt.Errorf("undo rollout %d: %s, which it leads back to, was removed: %w",
				r.ID, ref, coord.ErrNotFound)
		}
	}
	return nil
}

// restore declares again what was declared before the rollout.
func (r *Rollout) restore(d *decision, when When) {
	followed := r.followed(d.state)
	for _, b := range r.Before {
		for _, n := range intersection(r.declared(), b.Nodes) {
			previous := b.Desired
			if previous.Image != r.Image {
				previous = d.current(r.Image)
			}
			if when == Boot && followed[n] == r.Ref() && previous != r.Ref() {
				d.follow(n, r.Ref(), previous)
				continue
			}
			d.change.Desired[n] = b.Desired
			d.change.Next[n] = b.Next
		}
	}
}
