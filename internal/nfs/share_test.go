package nfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"dim/internal/oncrpc"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// sharing is a tree whose Share returns another file.
type sharing struct {
	vfs.FS
	path   string
	shared atomic.Int32
}

func (s *sharing) Share(*vfs.Cred, vfs.Handle) (vfs.Shared, bool) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, false
	}
	s.shared.Add(1)
	return openFile{f}, true
}

type openFile struct{ *os.File }

func (f openFile) Descriptor() int { return int(f.Fd()) }
func (f openFile) Release()        { f.Close() }

func TestBytesThatNeverChangeAreShared(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcde"), 10_000)
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "blob")
	tree := &sharing{FS: directory(t, dir), path: other}
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o600), os.WriteFile(other, content, 0o600))
	client := mounted(t, tree)
	h, err := client.Lookup(&vfs.Cred{}, client.Root(), "f", new(vfs.Attr))
	if err != nil {
		t.Fatal(err)
	}
	check := func(shares int32) {
		t.Helper()
		tree.shared.Store(0)
		for _, r := range []struct{ off, n int }{
			{0, 10},
			{0, oncrpc.SpliceMin - 1},
			{7, 70_000},
			{0, len(content)},
			{len(content) - 50_000, 50_000},
			{len(content) - 40_000, 90_000},
			{len(content), 70_000},
		} {
			got := make([]byte, r.n)
			want := content[r.off:min(len(content), r.off+r.n)]
			n, eof, err := client.ReadOnce(&vfs.Cred{}, h, got, uint64(r.off))
			if err != nil || !bytes.Equal(got[:n], want) || eof != (r.off+r.n >= len(content)) {
				t.Errorf("%d bytes at %d: read %d bytes, eof %v, %v; or wrong bytes", r.n, r.off, n, eof, err)
			}
		}
		if n := tree.shared.Load(); n != shares {
			t.Errorf("shared %d times, want %d", n, shares)
		}
	}
	check(4)
	// Bytes that cannot be spliced are read.
	if err := os.Truncate(other, 0); err != nil {
		t.Fatal(err)
	}
	check(4)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	check(0)
}
