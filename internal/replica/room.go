package replica

import (
	"sync/atomic"
	"time"

	"dim/internal/diskroom"
	"dim/internal/vfs"
)

// diskRoom is what nodes may take of the disk: all but a reserve, which is for the server's own journals, for etcd and
// for what an administrator does to gain space.
type diskRoom struct {
	percent uint64 // of the disk's bytes and objects that is the reserve; 0: there is none
	left    atomic.Int64
	looked  atomic.Int64 // when left was found, in nanoseconds since 1970; 0: never
}

// lookInterval is how long the result of a look at the disk is used. Other programs may fill the disk meanwhile.
const lookInterval = time.Second

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
	room, err := diskroom.Look(int(s.root), d.percent)
	if err != nil {
		return err
	}
	if room.Lacks(uint64(max(n, 1))) != "" {
		d.looked.Store(0)
		return vfs.ENOSPC
	}
	d.left.Store(int64(room.Free-room.Reserve) - n)
	d.looked.Store(now)
	return nil
}
