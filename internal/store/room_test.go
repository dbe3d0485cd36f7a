package store

import (
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/testkit"
)

// A batch that would take of the reserve ends with an error, and leaves nothing behind.
func TestABatchStopsAtTheReserve(t *testing.T) {
	disk := disktest.New(t, "mkfs.ext4", "-q")
	s := testkit.Value(Open(filepath.Join(disk.Dir, "store"), Options{Reserve: 50}))(t)
	defer s.Close()
	free := func() uint64 {
		var fs unix.Statfs_t
		testkit.Must(t, unix.Syncfs(int(s.root.Fd())), unix.Statfs(disk.Dir, &fs))
		return fs.Bfree * uint64(fs.Bsize) >> 20
	}
	before := free()
	b := begin(t, s)
	noise := rand.NewChaCha8([32]byte{})
	_, err := b.PutBlob(t.Context(), io.LimitReader(noise, 390<<20))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "MB are free, and the reserve is ") {
		t.Errorf("390 MB: %v", err)
	}
	if left := free(); left < 100 {
		t.Errorf("%d MB are left", left)
	}
	b.Abort()
	if after := free(); before-after > 2 {
		t.Errorf("%d MB were free before, %d after", before, after)
	}
	b = begin(t, s)
	defer b.Abort()
	if _, err := b.PutBytes([]byte("small")); err != nil {
		t.Errorf("after it: %v", err)
	}
}
