package versions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/testkit"
)

func TestStoreAndSharedStateAreMadeToAgree(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	settle := func(t *testing.T) {
		t.Helper()
		testkit.Must(t, s.Settle(t.Context(), "compute"))
	}
	reserve := func(ctx context.Context) (int, error) { return s.Reserve(ctx, "compute") }

	t.Run("without versions there is nothing to do", func(t *testing.T) {
		settle(t)
		s.check(t, nil, nil)
	})
	t.Run("a version that a crash kept from the shared state is put", func(t *testing.T) {
		s.store("one", reserve)
		s.check(t, nil, []int{1})
		settle(t)
		s.check(t, []int{1}, []int{1})
		if _, ok := s.Follow.Now().State.Resolve(ref(1)); !ok {
			t.Error("it was not adopted")
		}
	})
	t.Run("a version that was removed from the shared state goes", func(t *testing.T) {
		s.publish("two", "three")
		testkit.Value(s.coord.RemoveVersions(t.Context(), func(coord.State) ([]image.Ref, error) {
			return []image.Ref{ref(3)}, nil
		}))(t)
		testkit.Must(t, s.Follow.Refresh(t.Context(), s.coord))
		s.check(t, []int{1, 2}, []int{1, 2, 3})
		settle(t)
		s.check(t, []int{1, 2}, []int{1, 2})
	})
	t.Run("unless a replica shows it", func(t *testing.T) {
		s.publish("four")
		s.shown = []image.Version{testkit.Value(s.Store.Resolve(ref(4)))(t)}
		testkit.Value(s.coord.RemoveVersions(t.Context(), func(coord.State) ([]image.Ref, error) {
			return []image.Ref{ref(4)}, nil
		}))(t)
		testkit.Must(t, s.Follow.Refresh(t.Context(), s.coord))
		settle(t)
		s.check(t, []int{1, 2}, []int{1, 2, 4})
		s.shown = nil
		settle(t)
		s.check(t, []int{1, 2}, []int{1, 2})
	})
	t.Run("a number is never given again", func(t *testing.T) {
		if got := testkit.Value(reserve(t.Context()))(t); got != 5 {
			t.Errorf("the next number is %d", got)
		}
	})
}

func TestVersionsOfAStateThatWasLostComeBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	compute, other := testkit.Counter(), testkit.Counter()
	s.store("one", compute)
	s.store("two", compute)
	s.storeOf("other", "one", other)
	s.storeOf("other", "two", other)
	kept := coord.State{Images: map[string]*coord.Image{
		"compute": {Last: 7, Current: 1, Versions: []image.Version{followtest.Version("compute", 1)}},
	}}
	testkit.Must(t, s.PutPending(t.Context(), s.coord, coord.State{}, kept))
	images := testkit.Value(s.coord.Snapshot(t.Context()))(t).Images
	for _, tt := range []struct {
		name, image   string
		current, last int
	}{
		{"what was kept is declared again", "compute", 1, 7},
		{"of an image that was not kept the newest becomes the current one", "other", 2, 2},
	} {
		im := images[tt.image]
		if im.Current != tt.current || im.Last != tt.last || !slices.Equal(numbers(im.Versions), []int{1, 2}) {
			t.Errorf("%s: versions %v, current %d, last %d", tt.name, numbers(im.Versions), im.Current, im.Last)
		}
	}
}

func TestADamagedRecordOfAVersionIsMendedFromTheSharedState(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.publish("one", "two")
	want := testkit.Value(s.Store.Resolve(ref(2)))(t)
	record := filepath.Join(s.Store.Dir(), "versions/compute/2.json")
	for _, bytes := range []string{"", "\x00\x00", `{"format": 1, "image": "other"}`, `{"format":`} {
		testkit.Must(t, os.WriteFile(record, []byte(bytes), 0o600))
		s.RewriteRecords(t.Context())
		got, err := s.Store.Resolve(ref(2))
		if err != nil || got.Digest != want.Digest || !got.Created.Equal(want.Created) || got.Files != want.Files {
			t.Errorf("record %q: got %+v, %v; want %+v", bytes, got, err, want)
		}
	}
	t.Run("a record that was removed", func(t *testing.T) {
		testkit.Must(t, os.Remove(record))
		want := []string{"versions/compute/2.json: it was missing; it was written anew from the shared state"}
		if got := s.RewriteRecords(t.Context()); !slices.Equal(got, want) {
			t.Errorf("done: %q", got)
		}
		testkit.Value(s.Store.Resolve(ref(2)))(t)
	})
	t.Run("not if content is missing", func(t *testing.T) {
		v := testkit.Value(s.Store.Resolve(ref(2)))(t)
		tree := filepath.Join(s.Store.Dir(), "trees", v.Root.Digest.String()[:2], v.Root.Digest.String())
		testkit.Must(t, os.Remove(record), os.Rename(tree, tree+".away"))
		if got := s.RewriteRecords(t.Context()); len(got) > 0 {
			t.Errorf("done: %q", got)
		}
		testkit.Must(t, os.Rename(tree+".away", tree))
		s.RewriteRecords(t.Context())
	})
	t.Run("a version that the shared state does not know stays damaged", func(t *testing.T) {
		s.store("three", func(context.Context) (int, error) { return 9, nil })
		testkit.Must(t, os.WriteFile(filepath.Join(s.Store.Dir(), "versions/compute/9.json"), nil, 0o600))
		s.RewriteRecords(t.Context())
		if damaged := testkit.Value(s.Store.Damaged())(t); len(damaged) != 1 || damaged[0].Ref != ref(9) {
			t.Errorf("damaged are %v", damaged)
		}
	})
}

func TestAVersionThatCannotBePublishedIsCapturedAllTheSame(t *testing.T) {
	s := newAlone(t)
	v := s.store("one", testkit.Counter())
	s.Follow = followtest.Unavailable(t, small)
	err := s.Publish(t.Context(), v)
	if err == nil || !strings.Contains(err.Error(), "compute@1 is captured, but not announced") {
		t.Errorf("publish: %v", err)
	}
	var e *control.Error
	if !errors.As(err, &e) || e.Code != control.Unavailable {
		t.Errorf("the cause is lost: %v", err)
	}
	if _, err := s.Reserve(t.Context(), "compute"); code(t, err) != control.Unavailable {
		t.Errorf("reserve: %v", err)
	}
	if err := s.Settle(t.Context(), "compute"); code(t, err) != control.Unavailable {
		t.Errorf("settle: %v", err)
	}
	if stored := numbers(testkit.Value(s.stored())(t)); !slices.Equal(stored, []int{1}) {
		t.Errorf("the store has %v", stored)
	}
}
