package rollout

import (
	"fmt"
	"slices"
	"time"

	"dim/internal/coord"
)

// Seen is what is seen of one node.
type Seen struct {
	Shows   int    // the version of the rollout's image that its replica shows; 0: not known here
	Problem string // why it does not show what is declared
	Booting bool   // it keeps the version whose kernel it was given until it runs
	Answers bool   // it is up
	Gone    bool   // it has left the description
	Stage   string // where it is, for messages
}

// Patience is for how long what is wrong may pass by itself before the rollout is paused.
const Patience = time.Minute

// Step is what is to be done next: exactly one of its fields is set.
type Step struct {
	Wait  string // for what; look again later
	Run   string // the command of the phase
	Pause string // why
	Enter Phase  // another phase; "" with all else empty: the next ring
}

// Next decides what a running rollout needs, by what is seen of the nodes of its ring. It does not run the command of a phase twice: who ran it, and it
// succeeded, calls After.
func (r *Rollout) Next(seen map[string]Seen, now time.Time) Step {
	switch r.Phase {
	case Switching:
		return r.switching(seen, now)
	case Hooking:
		return Step{Run: r.Hook}
	case Gating:
		return r.gating(seen, now)
	}
	return Step{Pause: fmt.Sprintf("it is in the unknown phase %q", r.Phase)}
}

// After is the step behind the phase whose command succeeded, or that has none.
func (r *Rollout) After() Step {
	switch {
	case r.Phase == Switching && r.Hook != "":
		return Step{Enter: Hooking}
	case r.Phase != Gating && (r.Ring < len(r.Rings)-1 || r.Check != ""):
		return Step{Enter: Gating}
	}
	return Step{}
}

func (r *Rollout) switching(seen map[string]Seen, now time.Time) Step {
	nodes := r.Rings[r.Ring].Nodes
	var behind, failed Nodes
	why := ""
	for _, n := range nodes {
		s := seen[n]
		switch {
		case s.Shows == r.Version || s.Shows == 0 && s.Problem == "":
			continue
		case s.Problem != "" && !s.Booting:
			failed, why = append(failed, n), s.Problem
		}
		behind = append(behind, n)
	}
	switch {
	case len(behind) == 0:
		return r.After()
	case len(failed) > 0 && now.Sub(r.Since) > Patience:
		return Step{Pause: fmt.Sprintf("%s cannot be moved: %s", failed, why)}
	case r.When == Boot:
		return Step{Wait: fmt.Sprintf("%s to boot", behind)}
	}
	return Step{Wait: fmt.Sprintf("%s to show %s", behind, r.Ref())}
}

func (r *Rollout) gating(seen map[string]Seen, now time.Time) Step {
	if left := r.Since.Add(r.Soak).Sub(now); left > 0 {
		return Step{Wait: fmt.Sprintf("the soak time: %s left", left.Round(time.Second))}
	}
	var silent Nodes
	for _, n := range r.Rings[r.Ring].Ran {
		if s := seen[n]; !s.Answers && !s.Gone {
			silent = append(silent, n)
		}
	}
	switch {
	case len(silent) > 0 && now.Sub(r.Since.Add(r.Soak)) > Patience:
		return Step{Pause: fmt.Sprintf("%s ran before and is now at %q", silent, seen[silent[0]].Stage)}
	case len(silent) > 0:
		return Step{Wait: fmt.Sprintf("an answer of %s", silent)}
	case r.Check != "":
		return Step{Run: r.Check}
	}
	return Step{}
}

// Advance declares the step that follows on r, as it was seen, provided that nobody has changed the rollout meanwhile (ErrConflict). ran
// are the nodes of the next ring that run now.
func Advance(s coord.State, r Rollout, step Step, ran []string, now time.Time) (coord.Change, error) {
	is, err := mustLoad(s, r.ID)
	if err != nil {
		return coord.Change{}, err
	}
	if is.State != r.State || is.Ring != r.Ring || is.Phase != r.Phase || !is.Since.Equal(r.Since) {
		return coord.Change{}, fmt.Errorf("go on with rollout %d: it was changed: %w", r.ID, ErrConflict)
	}
	f := newFollows(s)
	switch {
	case step.Pause != "":
		is.State, is.Reason, is.Since = Paused, step.Pause, now
	case step.Enter != "":
		is.Phase, is.Since = step.Enter, now
	case is.Ring == len(is.Rings)-1:
		is.State, is.Ended = Done, now
	default:
		is.declareRing(f, is.Ring+1, slices.Clone(ran), now)
	}
	change := f.change
	return change, is.put(&change)
}
