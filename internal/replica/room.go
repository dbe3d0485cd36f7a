package replica

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// diskRoom is what nodes may take of the disk: all but a reserve, which is for the server's own journals, for etcd and
// for what an administrator does to gain space.
type diskRoom struct {
	percent uint64 // of the disk's bytes and objects that is the reserve; 0: there is none
	left    atomic.Int64
	looked  atomic.Int64 // when left was found, in nanoseconds since 1970; 0: never
}

const (
	// reserveLeast is the least reserve in bytes, or an eighth of the disk if that is less. etcd stops at 160 MB.
	reserveLeast = 256 << 20
	// lookInterval is how long what a look at the disk has found is used. Others may fill the disk meanwhile.
	lookInterval = time.Second
)

// reserve returns the bytes and objects of a file system that nodes may not take.
func (d *diskRoom) reserve(fs *unix.Statfs_t) (bytes, files uint64) {
	if d.percent == 0 {
		return 0, 0
	}
	size := fs.Blocks * uint64(fs.Bsize)
	return max(size/100*d.percent, min(reserveLeast, size/8)), fs.Files / 100 * d.percent
}

// mayTake returns ENOSPC if nodes may not take n more bytes, or one more object, of the disk. Removed files that are
// kept for a while go first.
func (s *Set) mayTake(n int64) error {
	if s.disk.percent == 0 {
		return nil
	}
	err := s.look(n)
	if err == vfs.ENOSPC && s.lingering.freeAll() {
		err = s.look(n)
	}
	return err
}

func (s *Set) look(n int64) error {
	d := &s.disk
	now := time.Now().UnixNano()
	if last := d.looked.Load(); last != 0 && now >= last && now-last < int64(lookInterval) && d.left.Add(-n) >= 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.root), &fs); err != nil {
		return err
	}
	bytes, files := d.reserve(&fs)
	left := int64(fs.Bavail*uint64(fs.Bsize)) - int64(bytes)
	if left < max(n, 1) || fs.Files > 0 && fs.Ffree <= files {
		d.looked.Store(0)
		return vfs.ENOSPC
	}
	d.left.Store(left - n)
	d.looked.Store(now)
	return nil
}
