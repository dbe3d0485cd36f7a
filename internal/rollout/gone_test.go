package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

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
	seen := map[string]Seen{"n1": {Shows: 2, Answers: true}, "n2": {Gone: true}}
	if step := r.Next(seen, w.now.Add(2*Patience)); step != (Step{}) {
		t.Errorf("got %+v, want the next ring", step)
	}
}
