// Package followtest opens a follow.Follower for tests of packages that use one. It is for tests only; no program
// imports it.
//
// It must not know what the declared state is used for.
package followtest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/testkit"
)

// Open returns a Follower of the server head that follows a new shared state, and that state. In it the description
// text is applied. prepare is called before the Follower runs.
func Open(t testing.TB, text string, prepare ...func(*follow.Follower)) (*follow.Follower, *coord.Coord) {
	t.Helper()
	f := newFollower(t, text)
	for _, p := range prepare {
		p(f)
	}
	run(t, f)
	c := testkit.Value(f.Change(t.Context()))(t)
	return f, c
}

// Unavailable returns a Follower of the server head whose shared state cannot be opened, and that has the description
// text.
func Unavailable(t testing.TB, text string) *follow.Follower {
	t.Helper()
	f := newFollower(t, text)
	testkit.Must(t, os.WriteFile(f.CoordDir, nil, 0o600)) // a file where a directory is wanted
	run(t, f)
	<-f.Searched()
	return f
}

func newFollower(t testing.TB, text string) *follow.Follower {
	t.Helper()
	dir := t.TempDir()
	f := follow.New(follow.Options{
		Server: "head", StateFile: filepath.Join(dir, "state.json"), CoordDir: filepath.Join(dir, "coord"),
		ClusterFile: filepath.Join(dir, "cluster.xml"), Log: slog.New(slog.DiscardHandler),
	})
	testkit.Must(t, os.WriteFile(f.ClusterFile, []byte(text), 0o600), f.Load())
	return f
}

// run runs f until the test ends.
func run(t testing.TB, f *follow.Follower) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		testkit.Must(t, <-ended, f.Close())
	})
}

// Put puts versions to c, which f follows, and returns when f has adopted them.
func Put(t testing.TB, f *follow.Follower, c *coord.Coord, versions ...image.Version) {
	t.Helper()
	for _, v := range versions {
		testkit.Must(t, c.PutVersion(t.Context(), v))
	}
	testkit.Must(t, f.Refresh(t.Context(), c))
}

// Declare makes a change in c, which f follows, and returns when f has adopted it.
func Declare(t testing.TB, f *follow.Follower, c *coord.Coord, change coord.Change) {
	t.Helper()
	testkit.Must(t, c.Decide(t.Context(), func(coord.State) (coord.Change, error) { return change, nil }))
	testkit.Must(t, f.Refresh(t.Context(), c))
}

// Version returns a version that is in no store.
func Version(name string, number int) image.Version {
	return image.Version{
		Image: name, Number: number, Digest: image.Sum([]byte{byte(number)}), Root: image.Entry{Type: image.Directory},
		Created: time.Date(2026, 1, number, 0, 0, 0, 0, time.UTC),
	}
}
