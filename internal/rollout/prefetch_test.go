package rollout

import (
	"errors"
	"testing"
	"time"
)

func withPrefetch(r *Rollout) { r.Prefetch() }

func TestTheFirstRingWaitsForServersButNotForEver(t *testing.T) {
	r := Rollout{ID: 1, Image: "compute", Version: 2, Phase: prefetching, Since: start}
	const has, gets, mute, had = "is1", "is2", "is3", "is4"
	known := func(s string) (bool, time.Time) {
		silent := map[string]time.Duration{has: time.Hour, gets: time.Hour, mute: 15 * time.Second, had: 0}
		return s == has || s == had, start.Add(silent[s])
	}
	for _, tt := range []struct {
		servers []string
		after   time.Duration
		want    Step
	}{
		{[]string{has}, 0, Step{}},
		{[]string{has, gets}, time.Minute, Step{Wait: "is2 to have compute@2, for 9m0s more"}},
		{[]string{has, gets, mute}, 0, Step{Wait: "is[2-3] to have compute@2, for 10m0s more"}},
		{[]string{has, gets, mute}, time.Minute, Step{Wait: "is2 to have compute@2, for 9m0s more"}},
		{[]string{has, gets, mute}, 10 * time.Minute, Step{Skip: "is[2-3]"}},
		{[]string{has, mute}, 15 * time.Second, Step{Skip: "is3"}},
		{[]string{has, had}, 0, Step{Skip: "is4"}},
	} {
		if got := r.Prefetched(tt.servers, known, start.Add(tt.after)); got != tt.want {
			t.Errorf("%v after %v: %+v, want %+v", tt.servers, tt.after, got, tt.want)
		}
	}
}

func TestNothingMovesBeforeTheServersHaveTheVersion(t *testing.T) {
	s := newSite(2)
	if _, err := s.declare(2, Now, "123456789", withPrefetch); err != nil {
		t.Fatal(err)
	}
	want(t, s, "111111111")
	t.Run("another one of some of its nodes is a conflict", func(t *testing.T) {
		if _, err := s.declare(2, Now, "123"); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v", err)
		}
	})
	s.advance(t, s.load(t, 1), Step{Skip: "is3"})
	want(t, s, "222222222")
	if r := s.load(t, 1); r.Skipped != "is3" || r.Phase != switching || s.state.Images["compute"].Current != 2 {
		t.Errorf("%+v", r)
	}
}

func TestARolloutThatMovedNothingYetEndsWithoutATrace(t *testing.T) {
	for name, end := range map[string]func(s *site) error{
		"stop": func(s *site) error {
			c, err := Stop(s.state, 1, 0, s.now)
			s.apply(c)
			return err
		},
		"undo": func(s *site) error {
			c, err := Undo(s.state, 1, "", s.now)
			s.apply(c)
			return err
		},
		"another of all its nodes": func(s *site) error {
			_, err := s.declare(1, Now, "123456789", withPrefetch)
			return err
		},
		"a pause and a resume": func(s *site) error {
			c, err := Pause(s.state, 1, "", s.now)
			s.apply(c)
			if err != nil {
				return err
			}
			c, err = Resume(s.state, 1, s.now)
			s.apply(c)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(2)
			if _, err := s.declare(2, Now, "123456789", withPrefetch); err != nil {
				t.Fatal(err)
			}
			if err := end(s); err != nil {
				t.Error(err)
			}
			want(t, s, "111111111")
			if n := s.state.Images["compute"].Current; n != 1 {
				t.Errorf("the current version is %d", n)
			}
		})
	}
}
