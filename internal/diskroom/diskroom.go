// Package diskroom computes how much of a file system may be used: what is free, less a reserve.
//
// It must not know what the reserve is for.
package diskroom

import (
	"fmt"
	"syscall"
)

// least is the least reserve in bytes, or an eighth of the file system if that is less. etcd stops at 160 MB.
const least = 256 << 20

// Room is what is free of a file system, and the reserve.
type Room struct {
	Free, Reserve           uint64 // bytes
	Inodes                  uint64 // 0: the file system does not count them
	FreeInodes, LeastInodes uint64 // the reserve of inodes is LeastInodes
}

// Look returns the room of the file system of an open file. The reserve is a part of it in percent; 0: there is none.
func Look(fd int, percent uint64) (Room, error) {
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(fd, &fs); err != nil {
		return Room{}, err
	}
	block := uint64(fs.Bsize)
	r := Room{Free: fs.Bavail * block, Inodes: fs.Files, FreeInodes: fs.Ffree}
	r.Reserve, r.LeastInodes = Reserve(fs.Blocks*block, fs.Files, percent)
	return r, nil
}

// Reserve returns the reserve, in bytes and inodes, of a file system of a size.
func Reserve(size, inodes, percent uint64) (bytes, files uint64) {
	if percent == 0 {
		return 0, 0
	}
	return max(size/100*percent, min(least, size/8)), inodes / 100 * percent
}

// Lacks returns why n more bytes and one more inode cannot be taken; "" if they can.
func (r *Room) Lacks(n uint64) (why string) {
	switch {
	case r.Free < r.Reserve || r.Free-r.Reserve < n:
		return fmt.Sprintf("%d MB are free, and the reserve is %d MB", r.Free>>20, r.Reserve>>20)
	case r.Inodes > 0 && r.FreeInodes <= r.LeastInodes:
		return fmt.Sprintf("%d inodes are free, and the reserve is %d", r.FreeInodes, r.LeastInodes)
	}
	return ""
}
