package fds

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func testFile(t *testing.T, content []byte) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &File{FD: fd}
}

func TestReadAtReadsWhatPreadDoes(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	f := testFile(t, content)
	for _, r := range []struct{ off, n int }{
		{0, 0}, {0, 1}, {5, 100_000}, {len(content) - 3, 10}, {len(content), 10}, {len(content) + 9, 1},
	} {
		got, want := make([]byte, r.n), make([]byte, r.n)
		n, err := f.ReadAt(got, int64(r.off))
		wantN, wantErr := unix.Pread(f.FD, want, int64(r.off))
		if n != wantN || err != wantErr || !bytes.Equal(got, want) {
			t.Errorf("ReadAt(%d bytes at %d) = %d, %v; pread says %d, %v", r.n, r.off, n, err, wantN, wantErr)
		}
	}
}

// All callers of Sync return, however the syncs are shared, and an error reaches all that shared it.
func TestSyncsAreSharedAndAllReturn(t *testing.T) {
	good, bad := testFile(t, []byte("x")), &File{FD: -1}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 20 {
				if err := good.Sync(); err != nil {
					t.Error(err)
				}
				if err := bad.Sync(); err != unix.EBADF {
					t.Errorf("sync of no file: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if bad.Failures() == 0 || good.Failures() != 0 {
		t.Errorf("failures counted: %d of the bad file, %d of the good one", bad.Failures(), good.Failures())
	}
}
