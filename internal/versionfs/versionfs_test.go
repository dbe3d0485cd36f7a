package versionfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"dim/internal/image"
	"dim/internal/testkit"
)

// memory is a Source in a temporary directory.
type memory struct {
	dir   string
	trees map[image.Digest]image.Tree
}

func (m *memory) Tree(d image.Digest) (image.Tree, error) {
	t, ok := m.trees[d]
	if !ok {
		return nil, errors.New("no such tree")
	}
	return t, nil
}

func (m *memory) OpenBlob(d image.Digest) (*os.File, error) {
	return os.Open(filepath.Join(m.dir, d.String()))
}

func (m *memory) file(t *testing.T, name, text string) image.Entry {
	t.Helper()
	d := image.Sum([]byte(text))
	testkit.Must(t, os.WriteFile(filepath.Join(m.dir, d.String()), []byte(text), 0o600))
	return image.Entry{Name: name, Type: image.Regular, Mode: 0o644, Size: uint64(len(text)), Digest: d, Nlink: 1}
}

func (m *memory) tree(name string, entries ...image.Entry) image.Entry {
	d := image.Sum([]byte(name))
	m.trees[d] = entries
	return image.Entry{Name: name, Type: image.Directory, Mode: 0o755, Digest: d}
}

func link(name, target string) image.Entry {
	return image.Entry{Name: name, Type: image.Symlink, Mode: 0o777, Target: target, Nlink: 1}
}

func sample(t *testing.T) *FS {
	m := &memory{dir: t.TempDir(), trees: map[image.Digest]image.Tree{}}
	return New(m, m.tree("root",
		m.tree("etc",
			link("abs", "/usr/lib/x"), link("loop", "loop"), m.file(t, "motd", "hello\n"),
			link("out", "../../../../usr/lib/x")),
		link("lib", "usr/lib"),
		m.tree("usr", m.tree("lib", m.file(t, "x", "in lib\n")))))
}

func TestLinksAreFollowedInsideTheVersion(t *testing.T) {
	f := sample(t)
	for name, want := range map[string]string{
		"etc/motd": "hello\n", "lib/x": "in lib\n", "etc/abs": "in lib\n", "etc/out": "in lib\n",
	} {
		got, err := f.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("ReadFile(%s) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := f.ReadFile("etc/loop"); err == nil {
		t.Error("a link to itself can be read")
	}
	if _, err := f.ReadFile("etc/motd/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v, want not exist", err)
	}
	if target, err := f.ReadLink("lib"); err != nil || target != "usr/lib" {
		t.Errorf("ReadLink(lib) = %q, %v", target, err)
	}
}

func TestAnFSKeepsTheContractOfIoFS(t *testing.T) {
	sub := sample(t)
	m := sub.source.(*memory)
	f := New(m, m.tree("plain", m.tree("a", m.file(t, "b", "b")), m.file(t, "c", "")))
	if err := fstest.TestFS(f, "a/b", "c"); err != nil {
		t.Error(err)
	}
}
