package rollout

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
}

// site is a shared state in memory with the nodes n1 to n9.
type site struct {
	state coord.State
	shows coord.Refs // what the nodes' replicas show
	now   time.Time
}

// newSite returns a site that has versions 1 to n of compute. The first is current.
func newSite(n int) *site {
	im := &coord.Image{Last: n, Current: 1}
	for i := 1; i <= n; i++ {
		im.Versions = append(im.Versions, image.Version{Image: "compute", Number: i})
	}
	s := &site{shows: coord.Refs{}, now: start}
	images := map[string]*coord.Image{"compute": im}
	s.put(coord.Change{}, coord.State{Images: images, Rollouts: map[int]json.RawMessage{}})
	return s
}

func compute(version int) image.Ref { return image.Ref{Image: "compute", Number: version} }

func all() []string {
	var names []string
	for i := 1; i <= 9; i++ {
		names = append(names, fmt.Sprint("n", i))
	}
	return names
}

// apply puts a change into the state and switches the nodes.
func (s *site) apply(c coord.Change) { s.put(c, s.state) }

func (s *site) put(c coord.Change, state coord.State) {
	s.state = c.Onto(state)
	for _, n := range all() {
		s.shows[n], _ = s.state.Follows(n, "compute")
	}
}

func (s *site) boot(n string) {
	if next := s.state.Next[n]; !next.IsZero() {
		s.apply(Booted(s.state, coord.Refs{n: next}))
	}
}

// rings returns rings of nodes that are given by their numbers, and whether these are all nodes: "1 23 456".
func rings(text string) (rings []Ring, allNodes bool) {
	count := 0
	for part := range strings.FieldsSeq(text) {
		var ring Ring
		for _, c := range part {
			ring.Nodes = append(ring.Nodes, "n"+string(c))
			count++
		}
		rings = append(rings, ring)
	}
	return rings, count == len(all())
}

// declare begins a rollout.
func (s *site) declare(version int, when When, ringText string, more ...func(*Rollout)) (Rollout, error) {
	r := Rollout{Image: "compute", Version: version, When: when}
	r.Rings, r.All = rings(ringText)
	for _, set := range more {
		set(&r)
	}
	r, c, err := r.Declare(s.state, all(), s.now)
	if err == nil {
		s.apply(c)
	}
	return r, err
}

func (s *site) load(t tester, id int) Rollout {
	t.Helper()
	r, ok, err := Load(s.state, id)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return r
}

// next takes and returns the next step of a rollout. command is the result of its command, if it runs one.
func (s *site) next(t tester, id int, seen map[string]Seen, command error) Step {
	t.Helper()
	r := s.load(t, id)
	step := r.Next(seen, s.now)
	switch {
	case step.Wait != "":
		return step
	case step.Run != "" && command == nil:
		s.advance(t, r, r.After())
	case step.Run != "":
		s.advance(t, r, Step{Pause: command.Error()})
	default:
		s.advance(t, r, step)
	}
	return step
}

func (s *site) advance(t tester, r Rollout, step Step) {
	t.Helper()
	c, err := r.Advance(s.state, step, all(), s.now)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
}

// seen returns what is known of the nodes when all of them are up and show what they follow.
func (s *site) seen() map[string]Seen {
	m := map[string]Seen{}
	for n, ref := range s.shows {
		m[n] = Seen{Answers: true, Report: &Report{Shows: ref, Stage: "running"}}
	}
	return m
}

// text returns the numbers of the versions that the nodes follow, in brackets those from their next boot on.
func (s *site) text() string {
	var b strings.Builder
	for _, n := range all() {
		fmt.Fprint(&b, s.shows[n].Number)
		if next := s.state.Next[n]; !next.IsZero() {
			fmt.Fprintf(&b, "(%d)", next.Number)
		}
	}
	return b.String()
}

func want(t *testing.T, s *site, text string) {
	t.Helper()
	if got := s.text(); got != text {
		t.Errorf("nodes follow %s, want %s", got, text)
	}
}

func undo(t tester, s *site, id int, when When) {
	t.Helper()
	c, err := Undo(s.state, id, when, s.now)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
}

func withCommands(r *Rollout) { r.Soak, r.Hook, r.Check = time.Minute, "hook", "check" }
