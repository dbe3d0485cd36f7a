package store

import (
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
