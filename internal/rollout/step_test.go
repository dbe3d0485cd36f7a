package rollout

import (
	"errors"
	"testing"
	"time"
)

func TestAFailurePausesTheRollout(t *testing.T) {
	for name, c := range map[string]struct {
		phase   Phase
		seen    *Seen // of n1; nil: all is well
		command error // of the phase
		reason  string
	}{
		"a node cannot be moved": {
			switching, &Seen{Answers: true, Report: &Report{Shows: compute(1), Problem: "disk full"}}, nil,
			"n1 cannot be moved: disk full",
		},
		"the hook fails": {hooking, nil, errors.New("exit status 1"), "exit status 1"},
		"a node does not answer": {
			gating, &Seen{Report: &Report{Shows: compute(2), Stage: "dhcp"}}, nil,
			`n1 ran before and is now at "dhcp"`,
		},
		"the check fails": {gating, nil, errors.New("exit status 2"), "exit status 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(2)
			if _, err := s.declare(2, Now, "1 23456789", withCommands); err != nil {
				t.Fatal(err)
			}
			for s.load(t, 1).Phase != c.phase {
				s.next(t, 1, s.seen(), nil)
			}
			seen := s.seen()
			if c.seen != nil {
				seen["n1"] = *c.seen
			}
			for range 5 {
				if s.load(t, 1).State == Running {
					s.next(t, 1, seen, c.command)
				}
				s.now = s.now.Add(patience + time.Second)
			}
			r := s.load(t, 1)
			if r.State != Paused || r.Reason != c.reason {
				t.Fatalf("%s: %q, want %q", r.State, r.Reason, c.reason)
			}
			want(t, s, "211111111")
			change, err := Resume(s.state, 1, s.now)
			if err != nil {
				t.Fatal(err)
			}
			s.apply(change)
			for range 20 {
				if s.load(t, 1).State == Running {
					s.next(t, 1, s.seen(), nil)
					s.now = s.now.Add(time.Minute)
				}
			}
			if r := s.load(t, 1); r.State != done {
				t.Errorf("after it was resumed it is %+v", r)
			}
			want(t, s, "222222222")
		})
	}
}

func TestANodeOfAServerThatHasNotReportedIsWaitedFor(t *testing.T) {
	shows := func(version int, at time.Time) Seen {
		return Seen{Server: "is2", Report: &Report{At: at, Shows: compute(version)}}
	}
	for name, c := range map[string]struct {
		seen map[string]Seen
		want Step
	}{
		"its server has not reported": {
			map[string]Seen{"n2": {Server: "is2"}, "n3": shows(2, start)},
			Step{Wait: "unknown: n2 is served by is2, which has not reported since"},
		},
		"two servers have not reported": {
			map[string]Seen{"n2": {Server: "is2"}, "n3": {Server: "is3"}},
			Step{Wait: "unknown: n[2-3] are served by is[2-3], which have not reported since"},
		},
		"its server reported before the ring was declared": {
			map[string]Seen{"n2": shows(2, start.Add(-time.Second)), "n3": shows(2, start)},
			Step{Wait: "unknown: n2 is served by is2, which has not reported since"},
		},
		"another node of the ring is behind": {
			map[string]Seen{"n2": shows(1, start), "n3": {Server: "is2"}},
			Step{Wait: "n2 to show compute@2; unknown: n3 is served by is2, which has not reported since"},
		},
		"it has no replica yet": {
			map[string]Seen{"n2": {Report: &Report{}}, "n3": shows(2, start)},
			Step{Wait: "n2 to show compute@2"},
		},
		"it is gone": {map[string]Seen{"n2": {Gone: true}, "n3": shows(2, start)}, Step{Enter: gating}},
		"its server has reported": {
			map[string]Seen{"n2": shows(2, start.Add(time.Second)), "n3": shows(2, time.Time{})},
			Step{Enter: gating},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(2)
			if _, err := s.declare(2, Now, "23 1"); err != nil {
				t.Fatal(err)
			}
			r := s.load(t, 1)
			if got := r.Next(c.seen, s.now.Add(100*patience)); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestANodeThatHasLeftTheDescriptionIsNotWaitedFor(t *testing.T) {
	s := newSite(2)
	r, err := s.declare(2, Now, "12 3")
	if err != nil {
		t.Fatal(err)
	}
	r.Phase = gating
	seen := map[string]Seen{"n1": {Report: &Report{Shows: compute(2)}, Answers: true}, "n2": {Gone: true}}
	if step := r.Next(seen, s.now.Add(2*patience)); step != (Step{}) {
		t.Errorf("got %+v, want the next ring", step)
	}
}

func TestANodeThatWasOffNeedNotAnswer(t *testing.T) {
	s := newSite(2)
	if _, err := s.declare(2, Now, "1 23456789"); err != nil {
		t.Fatal(err)
	}
	r := s.load(t, 1)
	r.Rings[0].Ran = nil
	r.Phase = gating
	if step := r.Next(map[string]Seen{"n1": {Report: &Report{Shows: compute(2)}}}, s.now); step != (Step{}) {
		t.Errorf("got %+v, want the next ring", step)
	}
}

func TestRingsForTheNextBootWaitForBoots(t *testing.T) {
	s := newSite(2)
	if _, err := s.declare(2, Boot, "1 23456789"); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(100 * time.Hour)
	if step := s.next(t, 1, s.seen(), nil); step.Wait != "n1 to boot" {
		t.Errorf("got %+v", step)
	}
	s.boot("n1")
	for range 3 {
		if s.load(t, 1).State == Running {
			s.next(t, 1, s.seen(), nil)
		}
	}
	want(t, s, "21(2)1(2)1(2)1(2)1(2)1(2)1(2)1(2)")
}

func TestAStepOfARolloutThatWasChangedIsRefused(t *testing.T) {
	s := newSite(2)
	if _, err := s.declare(2, Now, "1 23"); err != nil {
		t.Fatal(err)
	}
	r := s.load(t, 1)
	c, err := Pause(s.state, 1, "by hand", s.now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	if _, err := r.Advance(s.state, Step{}, nil, s.now); !errors.Is(err, ErrConflict) {
		t.Errorf("a step of a rollout that was paused: %v", err)
	}
}

func TestNodesThatStayBecauseOfTheirPackagesHoldNothingUp(t *testing.T) {
	r := Rollout{
		Image: "compute", Version: 2, When: Now, State: Running, Phase: switching,
		Rings: []Ring{{Nodes: Nodes{"n1", "n2"}}},
	}
	seen := map[string]Seen{
		"n1": {Report: &Report{Shows: compute(1), Left: true}},
		"n2": {Report: &Report{Shows: compute(1)}},
	}
	if step := r.Next(seen, time.Now()); step.Wait != "n2 to show compute@2" {
		t.Errorf("got %+v", step)
	}
	seen["n2"] = Seen{Report: &Report{Shows: compute(2)}}
	if step := r.Next(seen, time.Now()); step != (Step{}) {
		t.Errorf("when the other one has moved: %+v", step)
	}
}
