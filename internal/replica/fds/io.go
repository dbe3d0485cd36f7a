package fds

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// group lets those who want the same file synced at the same time share one fsync.
type group struct {
	mu   sync.Mutex
	now  *turn // under way
	next *turn // those who came since it began; it does not cover them
}

// turn is one fsync. err is set when done is closed.
type turn struct {
	done chan struct{}
	err  error
}

// Sync returns when an fsync that began after the call of Sync has ended.
func (f *File) Sync() error {
	g := &f.group
	g.mu.Lock()
	if g.now == nil {
		t := &turn{done: make(chan struct{})}
		g.now = t
		g.mu.Unlock()
		return f.lead(t)
	}
	if g.next != nil {
		t := g.next
		g.mu.Unlock()
		<-t.done
		return t.err
	}
	before, t := g.now, &turn{done: make(chan struct{})}
	g.next = t
	g.mu.Unlock()
	<-before.done
	g.mu.Lock()
	g.now, g.next = t, nil
	g.mu.Unlock()
	return f.lead(t)
}

// lead does the fsync of t.
func (f *File) lead(t *turn) error {
	t.err = fsync(f.FD)
	g := &f.group
	g.mu.Lock()
	if g.next == nil {
		g.now = nil
	}
	g.mu.Unlock()
	close(t.done)
	return t.err
}

func fsync(fd int) error {
	for {
		if err := unix.Fsync(fd); err != unix.EINTR {
			return err
		}
	}
}

// ReadAt reads as pread(2). What is in memory is read without announcing it to the scheduler: copying 256 KiB takes long enough
// for it to give our place to another thread, which costs more than the copy.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 0 {
		v := syscall.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
		n, _, e := syscall.RawSyscall6(unix.SYS_PREADV2, uintptr(f.FD), uintptr(unsafe.Pointer(&v)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
		if e == 0 && n > 0 {
			return int(n), nil
		}
	}
	return unix.Pread(f.FD, p, off)
}
