package oncrpc

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bounds of pipes. A pipe holds a page in each of its slots, so 1 MiB of a file from any multiple of 4096 on. Any
// process may ask for that size (pipe(7), pipe-max-size).
const (
	pipesMax = 256
	pipeSize = 1 << 20
)

// pipe carries the end of a reply from a file to a socket. It holds references to pages of the page cache, so that
// the server copies no bytes. sendfile(2) needs no pipe, but with it an error of the disk would be found only after
// the head of the reply was sent.
type pipe struct {
	r, w int
	n    int // bytes in the pipe
	pool *pipes
}

// pipes keeps the pipes of a server, at most pipesMax. A reply for which there is none is copied.
type pipes struct {
	mu   sync.Mutex
	free []*pipe
	made int
}

// get returns an empty pipe, or nil if there are pipesMax in use or none can be made.
func (ps *pipes) get() *pipe {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if last := len(ps.free) - 1; last >= 0 {
		p := ps.free[last]
		ps.free = ps.free[:last]
		return p
	}
	if ps.made == pipesMax {
		return nil
	}
	p := ps.open()
	if p != nil {
		ps.made++
	}
	return p
}

func (ps *pipes) open() *pipe {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	p := &pipe{r: fd[0], w: fd[1], pool: ps}
	if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		p.close()
		return nil
	}
	return p
}

// close closes the free pipes. No reply may be under way.
func (ps *pipes) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.free {
		p.close()
	}
	ps.made -= len(ps.free)
	ps.free = nil
}

// release returns p to the free pipes, or closes it if it is not empty.
func (p *pipe) release() {
	ps := p.pool
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.n == 0 {
		ps.free = append(ps.free, p)
		return
	}
	p.close()
	ps.made--
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// fill puts n bytes of the file fd from off on into the pipe, and the padding of XDR. It may wait for a disk. When it
// returns false, the content of the pipe is undefined.
func (p *pipe) fill(fd int, off int64, n int) bool {
	for p.n < n {
		m, err := unix.Splice(fd, &off, p.w, nil, n-p.n, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || m <= 0 {
			return false
		}
		p.n += int(m)
	}
	rest := pad(n) - n
	if rest == 0 {
		return true
	}
	m, err := unix.Write(p.w, make([]byte, rest))
	p.n += max(m, 0)
	return err == nil && m == rest
}

// drain moves the content of the pipe to a socket. It returns false when the socket takes no more now.
func (p *pipe) drain(socket uintptr) (done bool, err error) {
	for p.n > 0 {
		n := uintptr(p.n)
		m, _, e := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(p.r), 0, socket, 0, n, unix.SPLICE_F_NONBLOCK)
		switch {
		case e == unix.EINTR:
		case e == unix.EAGAIN:
			return false, nil
		case e != 0:
			return true, e
		case m == 0:
			return true, io.ErrUnexpectedEOF
		default:
			p.n -= int(m)
		}
	}
	return true, nil
}

// SpliceMin is the number of bytes from which on Splice costs less than a copy.
const SpliceMin = 32 << 10

// errTaken is the panic for a broken invariant: what was spliced ends the reply.
var errTaken = errors.New("a reply was spliced twice")

// Splice ends the reply with n bytes of the open file fd from off on, as opaque data with its padding but without
// its length. n must not be 0. The pages of the file are sent after the call, so its bytes must never change. The
// file may be closed when Splice has returned. Splice may wait for a disk. If it returns false, nothing was
// appended, and the procedure has to read and append the bytes itself. It must not be used by procedures with Once.
func (c *Call) Splice(fd int, off int64, n int) bool {
	if c.tail != nil {
		panic(errTaken)
	}
	p := c.srv.pipes.get()
	if p == nil {
		return false
	}
	if !p.fill(fd, off, n) {
		p.discard()
		return false
	}
	c.tail = p
	return true
}

// discard releases a pipe whose content is undefined.
func (p *pipe) discard() {
	p.n = max(p.n, 1)
	p.release()
}
