package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

func TestAnUndoIsRefusedWhenWhatItLeadsBackToWasRemoved(t *testing.T) {
	for _, remove := range []int{1, 2} { // the current version; what n1 alone followed
		w := newWorld(3)
		if _, err := w.declare(t, 2, Now, "1"); err != nil {
			t.Fatal(err)
		}
		r, err := w.declare(t, 3, Now, "123456789")
		if err != nil {
			t.Fatal(err)
		}
		im := *w.s.Images["compute"]
		im.Versions = slices.DeleteFunc(slices.Clone(im.Versions), func(v image.Version) bool { return v.Number == remove })
		w.s.Images = map[string]*coord.Image{"compute": &im}
		if _, err := Undo(w.s, r.ID, "", w.now); !errors.Is(err, coord.ErrNotFound) || !strings.Contains(err.Error(), fmt.Sprint("compute@", remove)) {
			t.Errorf("without version %d: %v", remove, err)
		}
	}
}

func TestANodeThatHasLeftTheDescriptionIsNotWaitedFor(t *testing.T) {
	w := newWorld(2)
	r, err := w.declare(t, 2, Now, "12 3")
	if err != nil {
		t.Fatal(err)
	}
	r.Phase = Gating
	seen := map[string]Seen{"n1": {Presence: Served, Report: Report{Shows: compute(2)}, Answers: true}, "n2": {Presence: Gone}}
	if step := r.Next(seen, w.now.Add(2*Patience)); step != (Step{}) {
		t.Errorf("got %+v, want the next ring", step)
	}
}

func TestANodeOfAServerThatHasNotReportedIsWaitedFor(t *testing.T) {
	shows := func(version int, at time.Time) Seen {
		return Seen{Presence: Served, Server: "is2", Report: Report{At: at, Shows: compute(version)}}
	}
	for name, c := range map[string]struct {
		seen map[string]Seen
		want Step
	}{
		"its server has not reported": {
			map[string]Seen{"n2": {Server: "is2"}, "n3": shows(2, start)},
			Step{Wait: "unknown: n2 is served by is2, which has not reported"},
		},
		"two servers have not reported": {
			map[string]Seen{"n2": {Server: "is2"}, "n3": {Server: "is3"}},
			Step{Wait: "unknown: n[2-3] are served by is[2-3], which have not reported"},
		},
		"its server reported before the ring was declared": {
			map[string]Seen{"n2": shows(2, start.Add(-time.Second)), "n3": shows(2, start)},
			Step{Wait: "unknown: n2 is served by is2, which has not reported"},
		},
		"another node of the ring is behind": {
			map[string]Seen{"n2": shows(1, start), "n3": {Server: "is2"}},
			Step{Wait: "n2 to show compute@2; unknown: n3 is served by is2, which has not reported"},
		},
		"it has no replica yet": {
			map[string]Seen{"n2": {Presence: Served}, "n3": shows(2, start)},
			Step{Wait: "n2 to show compute@2"},
		},
		"it is gone":              {map[string]Seen{"n2": {Presence: Gone}, "n3": shows(2, start)}, Step{Enter: Gating}},
		"its server has reported": {map[string]Seen{"n2": shows(2, start.Add(time.Second)), "n3": shows(2, time.Time{})}, Step{Enter: Gating}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(2)
			if _, err := w.declare(t, 2, Now, "23 1"); err != nil {
				t.Fatal(err)
			}
			r := w.load(t, 1)
			if got := r.Next(c.seen, w.now.Add(100*Patience)); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
