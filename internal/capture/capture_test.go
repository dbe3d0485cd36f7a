package capture

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/image"
	"dim/internal/store"
)

// lab is a store, a master and what captures it.
type lab struct {
	t     *testing.T
	store *store.Store
	o     Options
}

func newLab(t *testing.T) *lab {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &lab{t, s, Options{Image: "test", Dir: t.TempDir(), CacheDir: t.TempDir()}}
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
	err := image.Walk(context.Background(), l.store.Tree, &v.Root, func(path string, e *image.Entry) error {
		all[path] = e
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

func TestTheDebianMaster(t *testing.T) {
	const master = "/var/tmp/dim-lab/master"
	if _, err := os.Stat(master + "/etc/debian_version"); err != nil || testing.Short() {
		t.Skip("no Debian tree in " + master)
	}
	l := newLab(t)
	l.o.Dir = master
	first := l.capture()
	t.Logf("%+v problems %v", first.Version, first.Problems)
	again := l.capture()
	if again.Changed || again.FilesRead != 0 {
		t.Errorf("an unchanged master: changed %v, %d files read", again.Changed, again.FilesRead)
	}
	l.o.CacheDir = ""
	afresh := l.capture()
	if afresh.Changed {
		t.Errorf("a capture without notes found changes: %v", afresh.Version.Digest)
	}
}
