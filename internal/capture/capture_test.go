package capture

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/capture/unpack"
	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
	"dim/internal/testkit"
)

// lab has a store, a master and the options to capture it.
type lab struct {
	t     *testing.T
	store *store.Store
	o     Options
}

const readerName = "dim-reader"

func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		tasks := map[string]confine.Task{unpack.TaskName: unpack.Task}
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, tasks))
	}
	os.Exit(m.Run())
}

func newLab(t *testing.T) *lab {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &lab{t, s, Options{
		Image: "test", Dir: t.TempDir(), CacheDir: t.TempDir(), Reserve: testkit.Counter(),
		Reader: confine.Program{Argv: []string{readerName}},
	}}
}

func (l *lab) path(name string) string { return filepath.Join(l.o.Dir, name) }

func (l *lab) write(name, content string) {
	l.t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.path(name)), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(l.path(name), []byte(content), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) capture() Result {
	l.t.Helper()
	r, err := Run(context.Background(), l.store, l.o)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// entries returns everything in a version by path.
func (l *lab) entries(v image.Version) map[string]*image.Entry {
	l.t.Helper()
	all := map[string]*image.Entry{}
	err := treediff.Walk(context.Background(), l.store.Tree, &v.Root, func(path string, e *image.Entry) error {
		all[path] = e
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

func TestARealMaster(t *testing.T) {
	master := os.Getenv("DIM_LAB_MASTER")
	if master == "" {
		t.Skip("needs an installed root in DIM_LAB_MASTER, and takes more than 5 s")
	}
	l := newLab(t)
	l.o.Dir = master
	first := l.capture()
	if len(first.Problems) > 0 {
		t.Errorf("problems: %v", first.Problems)
	}
	if again := l.capture(); again.Changed {
		t.Errorf("an unchanged master: %v", again.Changes)
	}
	l.o.CacheDir = ""
	if afresh := l.capture(); afresh.Changed {
		t.Errorf("a capture without notes: %v", afresh.Changes)
	}
	l.sound()
	got := l.entries(first.Version)
	for path, want := range oracle(t, master) {
		switch path {
		case "dev", "proc", "sys":
			want.Mtime = image.Time{}
		}
		e := got[path]
		if e == nil {
			t.Errorf("%q is missing", path)
			continue
		}
		have := *e
		if have.Type == image.Directory {
			have.Digest = image.Digest{}
		}
		want.Data = have.Data // the oracle does not find holes
		if d := cmp.Diff(want, have); d != "" {
			t.Errorf("%q (-master +capture):\n%s", path, d)
		}
		delete(got, path)
	}
	for path := range got {
		t.Errorf("%q should not be there", path)
	}
}

func TestAVersionNeedsANumber(t *testing.T) {
	l := newLab(t)
	l.write("f", "1")
	number := l.o.Reserve
	refused := errors.New("refused")
	reserved := 0
	l.o.Reserve = func(context.Context) (int, error) {
		reserved++
		return 0, refused
	}
	if _, err := Run(t.Context(), l.store, l.o); !errors.Is(err, refused) {
		t.Errorf("got %v, want the error of Reserve", err)
	}
	if _, err := l.store.Versions("test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("versions without a number: %v", err)
	}
	l.o.DryRun = true
	if r := l.capture(); !r.Changed || reserved != 1 {
		t.Errorf("dry run: %+v, %d numbers", r, reserved)
	}
	l.o.DryRun = false
	l.o.Reserve = func(ctx context.Context) (int, error) {
		reserved++
		return number(ctx)
	}
	if r := l.capture(); r.Version.Number != 1 || r.Version.Files != 1 {
		t.Errorf("after that: %+v", r)
	}
	if r := l.capture(); r.Changed || reserved != 2 {
		t.Errorf("unchanged: %+v, %d numbers", r, reserved)
	}
	l.write("f", "2")
	l.o.Reserve = func(context.Context) (int, error) { return 1, nil }
	if _, err := Run(t.Context(), l.store, l.o); err == nil {
		t.Error("two versions have the same number")
	}
	l.o.Reserve = nil
	if _, err := Run(t.Context(), l.store, l.o); err == nil {
		t.Error("a capture without Reserve has succeeded")
	}
}

func TestAReviewSeesTheChangesBeforeTheVersionIsMade(t *testing.T) {
	l := newLab(t)
	l.write("f", "1")
	l.capture()
	l.write("f", "changed")
	l.write("g", "new")
	reviewed := 0
	l.o.Review = func(_ context.Context, r *Result) {
		reviewed++
		newest, err := l.store.Resolve(image.Ref{Image: "test"})
		if err != nil || newest.Number != 1 || r.Before.Number != 1 || r.Version.Number != 0 || r.Added != 1 ||
			len(r.Changes) < 2 {
			t.Errorf("newest %d, %v; %+v", newest.Number, err, r)
		}
	}
	r := l.capture()
	if reviewed != 1 || r.Version.Number != 2 || len(r.Changes) < 2 {
		t.Errorf("%d reviews; %+v", reviewed, r)
	}
	if l.capture(); reviewed != 1 {
		t.Error("an unchanged master was reviewed")
	}
}
