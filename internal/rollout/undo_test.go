package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dim/internal/coord"
	"dim/internal/image"
)

func TestARolloutForTheNextBootChangesNodesAsTheyBoot(t *testing.T) {
	s := newSite(3)
	if _, err := s.declare(3, Now, "9"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.declare(2, Boot, "123456789"); err != nil {
		t.Fatal(err)
	}
	want(t, s, "1(2)1(2)1(2)1(2)1(2)1(2)1(2)1(2)3(2)")
	s.boot("n1")
	s.boot("n9")
	s.boot("n1")
	want(t, s, "21(2)1(2)1(2)1(2)1(2)1(2)1(2)2")
	undo(t, s, 2, "")
	want(t, s, "2(1)11111112(3)")
	s.boot("n1")
	s.boot("n9")
	want(t, s, "111111113")
	if len(s.state.Next) > 0 || s.state.Images["compute"].Current != 1 || len(s.state.Desired) != 1 {
		t.Errorf("at the end next is %v, desired %v", s.state.Next, s.state.Desired)
	}
}

// After any rollouts: undoing all of them, the last first, restores what each node followed before each of them.
func TestAnUndoRestoresWhatNodesFollowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSite(4)
		var texts []string
		for i := range rapid.IntRange(1, 6).Draw(t, "rollouts") {
			texts = append(texts, s.text())
			r := Rollout{Image: "compute", Version: rapid.IntRange(1, 4).Draw(t, "version"), When: Now}
			text := rapid.SampledFrom([]string{"123456789", "1 23456789", "1", "23 45", "678 9"}).Draw(t, "rings")
			r.Rings, r.All = rings(text)
			_, c, err := r.Declare(s.state, nil, s.now)
			if err != nil {
				t.Fatal(err)
			}
			s.apply(c)
			for rapid.Bool().Draw(t, "on") && s.load(t, i+1).State == Running {
				s.next(t, i+1, s.seen(), nil)
			}
			if r := s.load(t, i+1); r.UnderWay() {
				c, err := Stop(s.state, i+1, 0, s.now)
				if err != nil {
					t.Fatal(err)
				}
				s.apply(c)
			}
		}
		for i := len(texts); i > 0; i-- {
			undo(t, s, i, "")
			if got := s.text(); got != texts[i-1] {
				t.Fatalf("after undoing rollout %d: %s, before it %s", i, got, texts[i-1])
			}
		}
	})
}

func TestAnUndoIsRefusedWhenAVersionThatItRestoresWasRemoved(t *testing.T) {
	for _, remove := range []int{1, 2} { // the current version; what n1 alone followed
		s := newSite(3)
		if _, err := s.declare(2, Now, "1"); err != nil {
			t.Fatal(err)
		}
		r, err := s.declare(3, Now, "123456789")
		if err != nil {
			t.Fatal(err)
		}
		im := *s.state.Images["compute"]
		im.Versions = slices.DeleteFunc(slices.Clone(im.Versions), func(v image.Version) bool {
			return v.Number == remove
		})
		s.state.Images = map[string]*coord.Image{"compute": &im}
		_, err = Undo(s.state, r.ID, "", s.now)
		if !errors.Is(err, coord.ErrNotFound) || !strings.Contains(err.Error(), fmt.Sprint("compute@", remove)) {
			t.Errorf("without version %d: %v", remove, err)
		}
	}
}
