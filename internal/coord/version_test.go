package coord

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/testkit"
)

func reserve(t *testing.T, c *Coord, name, server string) int {
	t.Helper()
	number := testkit.Value(c.ReserveVersion(t.Context(), name, server))(t)
	return number
}

func imageOf(t *testing.T, c *Coord, name string) *Image {
	t.Helper()
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	return s.Images[name]
}

func TestAReservedNumberIsPutOnce(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	if n := reserve(t, c, "compute", "head"); n != 1 {
		t.Fatalf("the first number is %d", n)
	}
	testkit.Must(t, c.Close())
	c = open(t, dir) // a crash changes nothing
	im := imageOf(t, c, "compute")
	if len(im.Versions) != 0 || im.Last != 1 || im.Reserved[1].Server != "head" || im.Reserved[1].Time.IsZero() {
		t.Errorf("reserved: %+v", im)
	}
	path := filepath.Join(t.TempDir(), "state.json")
	live := testkit.Value(c.Snapshot(t.Context()))(t)
	testkit.Must(t, SaveState(path, live))
	kept := testkit.Value(LoadState(path))(t)
	if diff := cmp.Diff(live, kept); diff != "" {
		t.Errorf("the kept state: %s", diff)
	}
	for range 2 {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	}
	im = imageOf(t, c, "compute")
	if len(im.Versions) != 1 || im.Last != 1 || im.Current != 1 || im.Reserved != nil {
		t.Errorf("put: %+v", im)
	}
	other := someVersion("compute", 1)
	other.Digest = image.Sum([]byte("other"))
	if err := c.PutVersion(t.Context(), other); !errors.Is(err, ErrConflict) {
		t.Errorf("another version of the same number: %v", err)
	}
}

func TestAReservationThatWasNotUsedIsDropped(t *testing.T) {
	c := open(t, t.TempDir())
	for i, server := range []string{"head", "head2", "head"} {
		if n := reserve(t, c, "compute", server); n != i+1 {
			t.Errorf("number %d for %s, want %d", n, server, i+1)
		}
	}
	im := imageOf(t, c, "compute")
	if len(im.Reserved) != 2 || im.Reserved[2].Server != "head2" || im.Reserved[3].Server != "head" {
		t.Errorf("reserved: %v", im.Reserved)
	}
	if err := c.PutVersion(t.Context(), someVersion("compute", 1)); !errors.Is(err, ErrConflict) {
		t.Errorf("a number whose reservation was dropped: %v", err)
	}
	// They may come in any order; the first one is the current one.
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 3)))
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 2)))
	im = imageOf(t, c, "compute")
	if len(im.Versions) != 2 || im.Last != 3 || im.Current != 3 || im.Reserved != nil {
		t.Errorf("put: %+v", im)
	}
}

func TestManyWhoReserveAtOnceGetDifferentNumbers(t *testing.T) {
	c := open(t, t.TempDir())
	const servers, rounds = 4, 5
	ends := make(chan error)
	for i := range servers {
		go func() {
			ends <- func() error {
				for range rounds {
					n, err := c.ReserveVersion(context.Background(), "compute", fmt.Sprintf("head%d", i))
					if err != nil {
						return err
					}
					if err := c.PutVersion(context.Background(), someVersion("compute", n)); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range servers {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	im := imageOf(t, c, "compute")
	if len(im.Versions) != servers*rounds || im.Last != servers*rounds || im.Reserved != nil {
		t.Errorf("%d versions, last %d, reserved %v", len(im.Versions), im.Last, im.Reserved)
	}
}

func TestTheNumberOfARemovedNewestVersionIsNotGivenAgain(t *testing.T) {
	c := open(t, t.TempDir())
	for n := 1; n <= 2; n++ {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n)))
	}
	two := image.Ref{Image: "compute", Number: 2}
	testkit.Value(c.RemoveVersions(t.Context(), func(State) ([]image.Ref, error) { return []image.Ref{two}, nil }))(t)
	if err := c.PutVersion(t.Context(), someVersion("compute", 2)); !errors.Is(err, ErrConflict) {
		t.Errorf("the removed version was put again: %v", err)
	}
	if n := reserve(t, c, "compute", "head"); n != 3 {
		t.Errorf("the number after the removed version is %d", n)
	}
}

func TestAStateWithoutACurrentVersionKeepsTheOneBefore(t *testing.T) {
	c := open(t, t.TempDir())
	for n := 1; n <= 2; n++ {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n)))
	}
	// as in states that were made before there were rollouts
	testkit.Value(c.client.Delete(t.Context(), c.imageKey("compute", "current")))(t)
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", reserve(t, c, "compute", "head"))))
	if im := imageOf(t, c, "compute"); im.Current != 2 {
		t.Errorf("the current version is %d", im.Current)
	}
}

func TestTheLastNumberOnlyGrows(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 4)))
	var got []int
	for _, last := range []int{2, 7, 5} {
		put(t, c, Change{Last: map[string]int{"compute": last}})
		got = append(got, imageOf(t, c, "compute").Last)
	}
	if !slices.Equal(got, []int{4, 7, 7}) {
		t.Errorf("after 2, 7 and 5 it is %v", got)
	}
}

func TestNumbersAreReservedForNamesOnly(t *testing.T) {
	c := open(t, t.TempDir())
	for _, name := range []string{"", "a/b"} {
		if _, err := c.ReserveVersion(t.Context(), name, "head"); err == nil {
			t.Errorf("a number of %q was reserved", name)
		}
	}
}
