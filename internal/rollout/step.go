package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster/nodeset"
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
	Silent  bool      // nothing has been heard of its server since
}

// Seen is what is known of one node.
type Seen struct {
	Gone    bool    // the description has no such node, or gives it another image
	Server  string  // the server that serves the node
	Report  *Report // nil: unknown, the server has not reported
	Answers bool    // the node is up
}

// unknown reports whether the node's server has not reported since a time that the node shows the version, and says
// nothing now.
func (s *Seen) unknown(since time.Time, ref image.Ref) bool {
	r := s.Report
	return r == nil || !r.At.IsZero() && r.At.Before(since) || r.Silent && r.Shows != ref
}

func (s *Seen) stage() string {
	if s.Report == nil {
		return "unknown"
	}
	return s.Report.Stage
}

const (
	// patience is how long a problem may last before the node counts as failed.
	patience = time.Minute
	// behindTime is how long a node that changes at once may take without a problem that is known.
	behindTime = 5 * time.Minute
)

// Step is what a rollout needs next: to wait, to run a command, to be paused, to enter a phase, or, when it is the
// zero Step, to declare its next ring or to end.
type Step struct {
	Wait    string // what it waits for: ask again later
	Run     string // a command
	Command string // which one that is: "hook" or "check"
	Pause   string // why
	Enter   Phase
	Without string // node set: the nodes of the ring that have failed, and that it goes on without
	Skip    string // servers that have not got the version, and that it no longer waits for
	Shown   int    // set by the caller of Advance: how many nodes of the rollout show the version
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
	st := r.sorted(seen)
	waited := now.Sub(r.Since)
	var lost Nodes
	if waited > patience {
		lost = append(append(lost, st.failed...), st.unknown...)
	}
	if waited > behindTime && r.When == Now {
		lost = append(lost, st.behind...)
	}
	switch {
	case r.spares(lost):
		st.spare(lost)
	case waited > patience && !r.spares(st.failed):
		return Step{Pause: fmt.Sprintf("%s cannot be moved: %s", st.failed, st.problem)}
	default:
		lost = nil
	}
	var wait []string
	switch behind := append(st.behind, st.failed...); {
	case len(behind) > 0 && r.When == Boot:
		wait = append(wait, fmt.Sprintf("%s to boot", behind))
	case len(behind) > 0:
		wait = append(wait, fmt.Sprintf("%s to show %s", behind, r.Ref()))
	}
	if len(st.unknown) > 0 {
		wait = append(wait, unknownText(st.unknown, slices.Sorted(maps.Keys(st.servers))))
	}
	if len(wait) > 0 {
		return Step{Wait: strings.Join(wait, "; ")}
	}
	step := r.After()
	step.Without = lost.String()
	return step
}

// standing are the nodes of a ring that do not show the version.
type standing struct {
	behind  Nodes // without a problem that is known
	failed  Nodes // with one
	unknown Nodes // their server has not reported
	problem string
	servers map[string]bool // of the nodes in unknown
}

// sorted returns how the nodes of the present ring stand.
func (r *Rollout) sorted(seen map[string]Seen) *standing {
	ring := &r.Rings[r.Ring]
	st := &standing{servers: map[string]bool{}}
	for _, n := range ring.Nodes {
		s := seen[n]
		switch {
		case s.Gone:
		case s.unknown(ring.Declared, r.Ref()):
			st.unknown, st.servers[s.Server] = append(st.unknown, n), true
		case s.Report.Shows == r.Ref():
		case s.Report.Left:
		case s.Report.Problem != "" && !s.Report.Booting:
			st.failed, st.problem = append(st.failed, n), s.Report.Problem
		default:
			st.behind = append(st.behind, n)
		}
	}
	return st
}

// spare removes nodes.
func (st *standing) spare(lost Nodes) {
	spared := func(n string) bool { return slices.Contains(lost, n) }
	st.behind, st.failed = slices.DeleteFunc(st.behind, spared), slices.DeleteFunc(st.failed, spared)
	st.unknown = slices.DeleteFunc(st.unknown, spared)
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
	return fmt.Sprintf("unknown: %s %s served by %s, which %s not reported since", nodes, is, servers, has)
}

func (r *Rollout) gating(seen map[string]Seen, now time.Time) Step {
	if left := r.Since.Add(r.Soak).Sub(now); left > 0 {
		return Step{Wait: fmt.Sprintf("the soak time: %s left", left.Round(time.Second))}
	}
	ring := &r.Rings[r.Ring]
	var silent, lost Nodes
	for _, n := range ring.Ran {
		if s := seen[n]; !s.Answers && !s.Gone && !slices.Contains(ring.Without, n) {
			silent = append(silent, n)
		}
	}
	late := now.Sub(r.Since.Add(r.Soak)) > patience
	if late && r.spares(silent) {
		lost, silent = silent, nil
	}
	switch {
	case len(silent) > 0 && late:
		first := seen[silent[0]]
		return Step{Pause: fmt.Sprintf("%s ran before and is now at %q", silent, first.stage())}
	case len(silent) > 0:
		return Step{Wait: fmt.Sprintf("an answer of %s", silent)}
	case r.Check != "":
		return Step{Run: r.Check, Command: "check", Without: lost.String()}
	}
	return Step{Without: lost.String()}
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
	if err := is.leave(step.Without); err != nil {
		return coord.Change{}, err
	}
	switch {
	case step.Pause != "":
		is.State, is.Reason, is.Since = Paused, step.Pause, now
	case step.Enter != "":
		is.Phase, is.Since = step.Enter, now
	case is.Prefetching():
		is.Skipped = step.Skip
		is.declareRing(d, 0, ran, now)
	case is.Ring == len(is.Rings)-1:
		is.State, is.Ended, is.Shown = done, now, &step.Shown
	default:
		is.declareRing(d, is.Ring+1, ran, now)
	}
	change := d.change
	return change, is.put(&change)
}

// leave notes which nodes of the present ring the rollout goes on without.
func (r *Rollout) leave(set string) error {
	if set == "" {
		return nil
	}
	lost, err := nodeset.Expand(set, nodeset.Options{})
	if err != nil {
		return fmt.Errorf("advance rollout %d: %w", r.ID, err)
	}
	r.Rings = slices.Clone(r.Rings)
	ring := &r.Rings[r.Ring]
	ring.Without = union(ring.Without, lost)
	return nil
}
