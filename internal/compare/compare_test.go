package compare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/fstest"

	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/testkit"
)

// source holds trees and counts how many are loaded.
type source struct {
	trees map[image.Digest]image.Tree
	loads int
	err   error
}

func (s *source) Tree(d image.Digest) (image.Tree, error) {
	s.loads++
	return s.trees[d], s.err
}

// version returns a version with n files whose contents are text.
func (s *source) version(t *testing.T, n int, text string) *image.Version {
	t.Helper()
	var tree image.Tree
	for i := range n {
		tree = append(tree, image.Entry{
			Name: fmt.Sprintf("f%08d", i), Type: image.Regular,
			Size: uint64(len(text)), Digest: image.Sum([]byte(text)),
		})
	}
	d := image.Sum(testkit.Value(tree.Encode())(t))
	s.trees[d] = tree
	root := image.Entry{Type: image.Directory, Mode: 0o755, Digest: d}
	return &image.Version{Image: "compute", Number: 1, Digest: image.Sum([]byte(d.String())), Root: root}
}

func newSource() *source { return &source{trees: map[image.Digest]image.Tree{}} }

func newComparer(s *source) *Comparer { return newComparerOf(s, fstest.MapFS{}) }

// newComparerOf returns a Comparer of versions that have the same files.
func newComparerOf(s *source, files fstest.MapFS) *Comparer {
	reader := confine.Program{Argv: []string{readerName}}
	return New(s.Tree, func(image.Entry) readfs.FS { return files }, reader, slog.New(slog.DiscardHandler))
}

func (c *Comparer) count(t *testing.T, from, to *image.Version) int {
	t.Helper()
	changes, err := c.Changes(t.Context(), from, to)
	testkit.Must(t, err)
	return len(changes)
}

func TestTwoVersionsAreComparedOnce(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 3, "one"), s.version(t, 3, "two")
	c := newComparer(s)
	for range 3 {
		if n := c.count(t, one, two); n != 3 {
			t.Errorf("%d paths differ, want 3", n)
		}
	}
	if s.loads != 2 {
		t.Errorf("%d trees were loaded, want 2", s.loads)
	}
	if n := c.count(t, two, one); n != 3 || s.loads != 4 {
		t.Errorf("the other way: %d paths, %d trees", n, s.loads)
	}
}

func TestAVerdictIsReachedOnceFromTheKeptChanges(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 3, "one"), s.version(t, 3, "two")
	c := newComparer(s)
	c.Keep(one, two, testkit.Value(newComparer(s).Changes(t.Context(), one, two))(t))
	s.err = errors.New("this tree was compared before")
	for range 2 {
		v, err := c.Verdict(t.Context(), one, two)
		testkit.Must(t, err)
		if v.Data != 3 {
			t.Errorf("%d paths are in effect at once, want 3", v.Data)
		}
	}
}

func TestWhatFailedIsNotKept(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 3, "one"), s.version(t, 3, "two")
	c := newComparer(s)
	s.err = errors.New("disk")
	if _, err := c.Changes(t.Context(), one, two); !errors.Is(err, s.err) {
		t.Errorf("got error %v", err)
	}
	if _, err := c.Verdict(t.Context(), one, two); !errors.Is(err, s.err) {
		t.Errorf("got error %v", err)
	}
	s.err = nil
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Changes(ended, one, two); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if n := c.count(t, one, two); n != 3 {
		t.Errorf("%d paths differ, want 3", n)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	s := newSource()
	c := newComparer(s)
	base := s.version(t, 1, "base")
	var versions []*image.Version
	for i := range maxPairs + 4 {
		versions = append(versions, s.version(t, 1, fmt.Sprint(i)))
		c.count(t, base, versions[i])
		c.count(t, base, versions[0]) // used again and again
	}
	loads := s.loads
	for _, v := range []*image.Version{versions[0], versions[len(versions)-1]} {
		c.count(t, base, v)
	}
	if s.loads != loads || len(c.kept) != maxPairs {
		t.Errorf("%d trees loaded again, %d pairs kept", s.loads-loads, len(c.kept))
	}
	c.Keep(base, s.version(t, 1, "half"), make([]treediff.Change, maxChanges/2))
	c.Keep(base, s.version(t, 1, "rest"), make([]treediff.Change, maxChanges/2))
	if len(c.kept) != 2 {
		t.Errorf("%d pairs kept beside those that fill the room", len(c.kept))
	}
	c.Keep(base, s.version(t, 1, "huge"), make([]treediff.Change, maxChanges+1))
	if len(c.kept) != 2 {
		t.Errorf("%d pairs kept after one that is too large, want the 2 from before", len(c.kept))
	}
}
