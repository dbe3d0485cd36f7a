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

// Report is what the server of a node tells of it.
type Report struct {
	At      time.Time // when the server told it; the zero time: it is true now
	Shows   image.Ref // the version that the node's replica shows; the zero Ref: it has no replica yet
	Problem string    // why the replica does not show what is declared
	Left    bool      // it stays with what it shows because of its packages, as the rollout wants
	Booting bool      // the replica keeps the version of the kernel that the node was given, until the node runs
	Stage   string    // of the node's boot, for messages
}

// Seen is what is known of one node.
type Seen struct {
	Gone    bool    // the description has no such node, or gives it another image
	Server  string  // the server that serves the node
	Report  *Report // nil: unknown, the server has not reported
	Answers bool    // the node is up
}

// unknown reports whether the node's server has not reported since a time.
func (s *Seen) unknown(since time.Time) bool {
	return s.Report == nil || !s.Report.At.IsZero() && s.Report.At.Before(since)
}

func (s *Seen) stage() string {
	if s.Report == nil {
		return "unknown"
	}
	return s.Report.Stage
}

// patience is how long a problem may last before it pauses the rollout.
const patience = time.Minute

// Step is what a rollout needs next: to wait, to run a command, to be paused, to enter a phase, or, when it is the
// zero Step, to declare its next ring or to end.
type Step struct {
	Wait    string // what it waits for: ask again later
	Run     string // a command
	Command string // which one that is: "hook" or "check"
	Pause   string // why
	Enter   Phase
	Shown   int // set by the caller of Advance: how many nodes of the rollout show the version
}

// Next returns what a running rollout needs, given what is known of the nodes of its ring. After the command of a
// phase has succeeded, the caller takes the step that After returns, and does not call Next again before that.
func (r *Rollout) Next(seen map[string]Seen, now time.Time) Step {
	switch r.Phase {
	case switching:
		return r.switching(seen, now)
	case hooking:
		return Step{Run: r.Hook, Command: "hook"}
	case gating:
		return r.gating(seen, now)
	}
	return Step{Pause: fmt.Sprintf("its phase %q is unknown", r.Phase)}
}

// Soaked reports whether the soak time of the ring is over. From then on Next needs to know which nodes answer.
func (r *Rollout) Soaked(now time.Time) bool {
	return r.Phase == gating && now.Sub(r.Since) >= r.Soak
}

// After returns the step that follows a phase whose command has succeeded, or that has none.
func (r *Rollout) After() Step {
	switch {
	case r.Phase == switching && r.Hook != "":
		return Step{Enter: hooking}
	case r.Phase != gating && (r.Ring < len(r.Rings)-1 || r.Check != ""):
		return Step{Enter: gating}
	}
	return Step{}
}

func (r *Rollout) switching(seen map[string]Seen, now time.Time) Step {
	ring := r.Rings[r.Ring]
	var behind, failed, unknown Nodes
	servers := map[string]bool{} // of the nodes in unknown
	problem := ""
	for _, n := range ring.Nodes {
		s := seen[n]
		switch {
		case s.Gone:
		case s.unknown(ring.Declared):
			unknown, servers[s.Server] = append(unknown, n), true
		case s.Report.Shows == r.Ref():
		case s.Report.Left:
		default:
			behind = append(behind, n)
			if s.Report.Problem != "" && !s.Report.Booting {
				failed, problem = append(failed, n), s.Report.Problem
			}
		}
	}
	if len(failed) > 0 && now.Sub(r.Since) > patience {
		return Step{Pause: fmt.Sprintf("%s cannot be moved: %s", failed, problem)}
	}
	var wait []string
	switch {
	case len(behind) > 0 && r.When == Boot:
		wait = append(wait, fmt.Sprintf("%s to boot", behind))
	case len(behind) > 0:
		wait = append(wait, fmt.Sprintf("%s to show %s", behind, r.Ref()))
	}
	if len(unknown) > 0 {
		wait = append(wait, unknownText(unknown, slices.Sorted(maps.Keys(servers))))
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
		if s := seen[n]; !s.Answers && !s.Gone {
			silent = append(silent, n)
		}
	}
	switch {
	case len(silent) > 0 && now.Sub(r.Since.Add(r.Soak)) > patience:
		first := seen[silent[0]]
		return Step{Pause: fmt.Sprintf("%s ran before and is now at %q", silent, first.stage())}
	case len(silent) > 0:
		return Step{Wait: fmt.Sprintf("an answer of %s", silent)}
	case r.Check != "":
		return Step{Run: r.Check, Command: "check"}
	}
	return Step{}
}

// Advance returns the change that takes step, which Next or After returned for r. ran are the nodes of the next ring
// that are up now. The error is ErrConflict when the rollout in s is no longer as it was in r.
func (r *Rollout) Advance(s coord.State, step Step, ran []string, now time.Time) (coord.Change, error) {
	is, err := loadExisting(s, r.ID)
	if err != nil {
		return coord.Change{}, err
	}
	if is.State != r.State || is.Ring != r.Ring || is.Phase != r.Phase || !is.Since.Equal(r.Since) {
		return coord.Change{}, fmt.Errorf("advance rollout %d: %w", r.ID, ErrConflict)
	}
	d := decide(s)
	switch {
	case step.Pause != "":
		is.State, is.Reason, is.Since = Paused, step.Pause, now
	case step.Enter != "":
		is.Phase, is.Since = step.Enter, now
	case is.Ring == len(is.Rings)-1:
		is.State, is.Ended, is.Shown = done, now, &step.Shown
	default:
		is.declareRing(d, is.Ring+1, ran, now)
	}
	change := d.change
	return change, is.put(&change)
}
