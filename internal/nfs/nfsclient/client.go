// Package nfsclient is a small NFS version 3 client for tests, checks and load making. It speaks to one port
// over TCP, keeps any number of calls in flight, caches nothing and retries nothing.
//
// Client is a connection, Tree shows one mounted export as a vfs.FS, so that whatever is said or tested of a vfs.FS
// can be said of the server, too. It must not be used to keep data: there is no recovery.
//
// Replies are decoded on the goroutine that reads the connection, straight from the receive buffer. All methods
// may be called from any number of goroutines.
package nfsclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"

	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// The programs.
const (
	ProgramNFS   = 100003
	ProgramMount = 100005
	version      = 3
)

const (
	lastFragment = 1 << 31
	recordMax    = 2 << 20
)

// RPCError is a call that was refused below the program.
type RPCError struct {
	Denied bool   // by authentication: Stat is auth_stat, else accept_stat
	Stat   uint32 // RFC 5531 section 9
}

// Error tells whether the call was denied or not accepted, and the number.
func (e *RPCError) Error() string {
	if e.Denied {
		return fmt.Sprintf("rpc: denied, auth_stat %d", e.Stat)
	}
	return fmt.Sprintf("rpc: refused, accept_stat %d", e.Stat)
}

// ErrReply is a reply that does not decode.
var ErrReply = errors.New("nfs reply: malformed")

// Client is one connection.
type Client struct {
	nc   net.Conn
	xid  atomic.Uint32
	done chan struct{} // the reading goroutine ended

	mu      sync.Mutex
	pending map[uint32]*pending
	out     []byte
	spare   []byte
	writing bool
	err     error
}

// pending is a call that waits for its reply.
type pending struct {
	results func(*oncrpc.Decoder) error
	end     chan error
}

// Dial connects to addr, host:port.
func Dial(ctx context.Context, addr string) (*Client, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewClient(nc), nil
}

// NewClient returns a Client on nc, which it closes.
func NewClient(nc net.Conn) *Client {
	c := &Client{nc: nc, done: make(chan struct{}), pending: make(map[uint32]*pending)}
	c.xid.Store(rand.Uint32()) // the server takes equal calls with equal xids for one
	go c.read()
	return c
}

// Close closes the connection; calls in flight fail.
func (c *Client) Close() error {
	err := c.nc.Close()
	<-c.done
	return err
}

// LocalAddr returns our end of the connection.
func (c *Client) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// Do makes one call and waits for its reply. args appends the arguments, results decodes what
// follows a successful reply's header. cred is sent as AUTH_SYS, nil as AUTH_NONE.
func (c *Client) Do(program, proc uint32, cred *vfs.Cred, args func(*oncrpc.Encoder), results func(*oncrpc.Decoder) error) error {
	p := &pending{results: results, end: make(chan error, 1)}
	xid := c.xid.Add(1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.pending[xid] = p
	e := oncrpc.NewEncoder(c.out)
	start := e.Len()
	putCall(&e, xid, program, proc, cred)
	if args != nil {
		args(&e)
	}
	e.PutUint32(start, uint32(e.Len()-start-4)|lastFragment)
	c.out = e.Bytes()
	c.flush()
	c.mu.Unlock()
	return <-p.end
}

// flush writes what is to be sent unless another goroutine is at it. It is called with the lock held, which it gives up meanwhile.
func (c *Client) flush() {
	if c.writing {
		return
	}
	c.writing = true
	for len(c.out) > 0 && c.err == nil {
		b := c.out
		c.out = c.spare[:0]
		c.mu.Unlock()
		_, err := c.nc.Write(b)
		c.mu.Lock()
		c.spare = b
		if err != nil {
			c.fail(err)
		}
	}
	c.writing = false
}

func putCall(e *oncrpc.Encoder, xid, program, proc uint32, cred *vfs.Cred) {
	for _, v := range []uint32{0, xid, 0, 2, program, version, proc} {
		e.Uint32(v)
	}
	if cred == nil {
		e.Uint64(0)
	} else {
		groups := cred.Groups[:min(len(cred.Groups), oncrpc.GroupsMax)]
		e.Uint32(oncrpc.AuthSys)
		e.Uint32(uint32(20 + 4*len(groups)))
		for _, v := range []uint32{0, 0, cred.UID, cred.GID, uint32(len(groups))} {
			e.Uint32(v)
		}
		for _, g := range groups {
			e.Uint32(g)
		}
	}
	e.Uint64(0) // verifier
}

// fail ends all calls; the lock is held.
func (c *Client) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	for xid, p := range c.pending {
		delete(c.pending, xid)
		p.end <- c.err
	}
}

// read dispatches replies until the connection ends.
func (c *Client) read() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.nc, 128<<10)
	var rec []byte
	for {
		var err error
		if rec, err = readRecord(r, rec[:0]); err == nil {
			err = c.dispatch(rec)
		}
		if err != nil {
			c.mu.Lock()
			c.fail(fmt.Errorf("nfs connection: %w", err))
			c.mu.Unlock()
			return
		}
	}
}

// readRecord appends the next record to b.
func readRecord(r *bufio.Reader, b []byte) ([]byte, error) {
	for {
		var mark [4]byte
		if _, err := io.ReadFull(r, mark[:]); err != nil {
			return b, err
		}
		m := binary.BigEndian.Uint32(mark[:])
		n := int(m &^ lastFragment)
		if len(b)+n > recordMax {
			return b, ErrReply
		}
		have := len(b)
		if cap(b)-have < n {
			b = append(make([]byte, 0, have+n), b...)
		}
		b = b[:have+n]
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			return b, err
		}
		if m&lastFragment != 0 {
			return b, nil
		}
	}
}

// dispatch hands one reply to the call that waits for it.
func (c *Client) dispatch(rec []byte) error {
	d := oncrpc.NewDecoder(rec)
	xid, kind := d.Uint32(), d.Uint32()
	if !d.OK() || kind != 1 {
		return ErrReply
	}
	c.mu.Lock()
	p := c.pending[xid]
	delete(c.pending, xid)
	c.mu.Unlock()
	if p == nil {
		return fmt.Errorf("reply to unknown call %#x", xid)
	}
	p.end <- finish(p, &d)
	return nil
}

func finish(p *pending, d *oncrpc.Decoder) error {
	if d.Uint32() == 1 { // denied
		why := d.Uint32()
		if why == 1 {
			return &RPCError{Denied: true, Stat: d.Uint32()}
		}
		return &RPCError{Denied: true}
	}
	d.Uint32() // verifier
	d.Opaque(400)
	if st := d.Uint32(); st != 0 {
		return &RPCError{Stat: st}
	}
	if p.results == nil {
		return nil
	}
	err := p.results(d)
	if err == nil && (!d.OK() || len(d.Rest()) > 0) {
		err = ErrReply
	}
	return err
}

// Null calls procedure 0.
func (c *Client) Null(program uint32) error { return c.Do(program, 0, nil, nil, nil) }

// Mount asks for the root handle of an export. Errors of the server are vfs.Errno.
func (c *Client) Mount(path string) (h vfs.Handle, err error) {
	args := func(e *oncrpc.Encoder) { e.String(path) }
	err = c.Do(ProgramMount, 1, &vfs.Cred{}, args, func(d *oncrpc.Decoder) error {
		if err := errnoOf(d.Uint32()); err != nil {
			return err
		}
		h = getHandle(d)
		for range d.Uint32() {
			if d.Uint32(); !d.OK() {
				break
			}
		}
		return nil
	})
	return h, err
}

// Unmount tells the server that path is not used any more.
func (c *Client) Unmount(path string) error {
	return c.Do(ProgramMount, 3, &vfs.Cred{}, func(e *oncrpc.Encoder) { e.String(path) }, nil)
}

// Exports lists what can be mounted.
func (c *Client) Exports() (paths []string, err error) {
	err = c.Do(ProgramMount, 5, nil, nil, func(d *oncrpc.Decoder) error {
		for d.Bool() {
			paths = append(paths, d.String(1024))
			for d.Bool() {
				d.Opaque(255)
			}
		}
		return nil
	})
	return paths, err
}
