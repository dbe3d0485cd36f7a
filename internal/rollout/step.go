package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

// Presence tells what is known of a node.
type Presence int

// A node is Unknown until its server has reported.
const (
	Unknown Presence = iota
	Served           // its server has reported
	Gone             // the description has no such node, or gives it another image
)

// Report is what the server that serves a node tells of it.
type Report struct {
	At      time.Time // when the server told it; the zero time: it is true now
	Shows   image.Ref // the version that the node's replica shows; the zero Ref: it has no replica yet
	Problem string    // why the replica does not show what is declared
	Booting bool      // the replica keeps the version of the kernel that the node was given, until the node runs
	Stage   string    // of the node's boot, for messages
}

// Seen is what is known of one node.
type Seen struct {
	Presence
	Server  string // the server that serves the node
	Report         // the server's, unless the node is Unknown
	Answers bool   // the node is up
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
	ring := r.Rings[r.Ring]
	var behind, failed, unknown Nodes
	silent := map[string]bool{} // servers of nodes that are unknown
	why := ""
	for _, n := range ring.Nodes {
		s := seen[n]
		switch {
		case s.Presence == Gone:
			continue
		case s.Presence == Unknown, !s.At.IsZero() && s.At.Before(ring.Declared):
			unknown, silent[s.Server] = append(unknown, n), true
			continue
		case s.Shows == r.Ref():
			continue
		case s.Problem != "" && !s.Booting:
			failed, why = append(failed, n), s.Problem
		}
		behind = append(behind, n)
	}
	var wait []string
	switch {
	case len(failed) > 0 && now.Sub(r.Since) > Patience:
		return Step{Pause: fmt.Sprintf("%s cannot be moved: %s", failed, why)}
	case len(behind) > 0 && r.When == Boot:
		wait = append(wait, fmt.Sprintf("%s to boot", behind))
	case len(behind) > 0:
		wait = append(wait, fmt.Sprintf("%s to show %s", behind, r.Ref()))
	}
	if len(unknown) > 0 {
		wait = append(wait, unknownText(unknown, slices.Sorted(maps.Keys(silent))))
	}
	if len(wait) > 0 {
		return Step{Wait: strings.Join(wait, "; ")}
	}
	return r.After()
}

// unknownText says which servers have not reported about which nodes.
func unknownText(nodes, servers Nodes) string {
	is, has := "is", "has"
	if len(nodes) > 1 {
		is = "are"
	}
	if len(servers) > 1 {
		has = "have"
	}
	return fmt.Sprintf("unknown: %s %s served by %s, which %s not reported", nodes, is, servers, has)
}

func (r *Rollout) gating(seen map[string]Seen, now time.Time) Step {
	if left := r.Since.Add(r.Soak).Sub(now); left > 0 {
		return Step{Wait: fmt.Sprintf("the soak time: %s left", left.Round(time.Second))}
	}
	var silent Nodes
	for _, n := range r.Rings[r.Ring].Ran {
		if s := seen[n]; !s.Answers && s.Presence != Gone {
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
	f := decide(s)
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
