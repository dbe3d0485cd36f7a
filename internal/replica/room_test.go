package replica

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// A node cannot take the reserve of the disk. The journal, a removal and a switch still have room.
func TestANodeCannotTakeTheReserve(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	disk := disktest.New(t, "mkfs.ext4", "-q")
	testkit.Must(t, o.s.Close())
	o.opts.Dir, o.opts.Reserve = filepath.Join(disk.Dir, "replicas"), 5
	o.open()
	t.Cleanup(func() { o.s.Close() })
	o.WriteFile("etc/fill", "x")
	fill, part := o.Handle("etc/fill"), []byte(strings.Repeat("y", 1<<20))
	var err error
	size := 0
	for ; err == nil && size < 500; size++ {
		_, err = o.Write(root, fill, part, uint64(size)<<20, vfs.Unstable)
	}
	var st unix.Statfs_t
	testkit.Must(t, unix.Statfs(disk.Dir, &st))
	free, all := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	if err != vfs.ENOSPC || free < all/10 || free > all/5 {
		t.Errorf("after %d MB: %v, %d of %d MB are free", size, err, free>>20, all>>20)
	}
	if fs := testkit.Value(o.StatFS(fill))(t); fs.BytesAvail > 4<<20 {
		t.Errorf("the node sees %d bytes", fs.BytesAvail)
	}
	if _, err := o.Write(root, fill, part, 0, vfs.Unstable); err != nil {
		t.Errorf("a write to what is there: %v", err)
	}
	o.to(two)
	o.Want("etc/a", "a2")
	if err := os.WriteFile(filepath.Join(disk.Dir, "etcd"), part, 0o600); err != nil {
		t.Errorf("the server's own file: %v", err)
	}
	o.RemoveAll("etc/fill")
	o.WriteFile("etc/more", "more")
}
