package oncrpc

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The bounds of pipes. One holds a page in each of its slots, so 1 MiB of a file from any multiple of 4096 on; that
// much any process may ask for (pipe(7), pipe-max-size).
const (
	pipesMax = 256
	pipeSize = 1 << 20
)

// pipe carries the end of a reply from a file to a socket: not the bytes, but references to the pages of the page cache
// that hold them, so that the server copies nothing. sendfile(2) would do without the pipe, but a page that the
// disk cannot give must be known before the reply's head is sent.
type pipe struct {
	r, w int
	n    int // bytes in it
	home *pipes
}

// pipes keeps the pipes of a server. There are at most pipesMax: who finds none copies.
type pipes struct {
	mu   sync.Mutex
	free []*pipe
	made int
}

// get returns an empty pipe, nil when there is none to be had.
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
	p := &pipe{r: fd[0], w: fd[1], home: ps}
	if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		p.close()
		return nil
	}
	return p
}

// close closes the free pipes; no reply may be under way.
func (ps *pipes) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.free {
		p.close()
	}
	ps.made -= len(ps.free)
	ps.free = nil
}

// release gives p back. One that is not empty is of no more use.
func (p *pipe) release() {
	ps := p.home
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

// fill takes n bytes of the file fd from off and what XDR pads them with. It may wait for a disk. When it returns
// false something else is in the pipe.
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

// drain moves what is in the pipe to a socket. It returns false when the socket takes no more now.
func (p *pipe) drain(socket uintptr) (done bool, err error) {
	for p.n > 0 {
		m, _, e := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(p.r), 0, socket, 0, uintptr(p.n), unix.SPLICE_F_NONBLOCK)
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

// SpliceMin is from how many bytes on Splice costs less than to copy.
const SpliceMin = 32 << 10

// errTaken is an invariant: a reply ends with what was spliced.
var errTaken = errors.New("a reply was spliced twice")

// Splice ends the reply with n bytes, not 0, of the open file fd from off on, as opaque data with its padding but
// without its length. The file's pages themselves go to the client, some time after the call: so their bytes must never
// change. The file may be closed when Splice has returned. It may wait for a disk. When it returns false nothing was
// appended, for whatever reason: the bytes are to be read and appended in the ordinary way. Not for procedures with Once.
func (c *Call) Splice(fd int, off int64, n int) bool {
	if c.tail != nil {
		panic(errTaken)
	}
	p := c.srv.pipes.get()
	if p == nil {
		return false
	}
	if !p.fill(fd, off, n) {
		p.spoil()
		return false
	}
	c.tail = p
	return true
}

// spoil releases a pipe of which it is not known what is in it.
func (p *pipe) spoil() {
	p.n = max(p.n, 1)
	p.release()
}
