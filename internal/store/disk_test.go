package store

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// blocks returns the bytes that the file takes on disk.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// memoryDir returns a temporary directory in memory where there is one: what is tested here is order, not the disk, and thousands of
// syncs take minutes.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dim-store-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
