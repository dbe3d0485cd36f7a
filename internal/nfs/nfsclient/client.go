// Package nfsclient is a small NFS version 3 client for tests, checks and benchmarks. It connects to one port over TCP,
// keeps any number of calls in flight, caches nothing and retries nothing.
//
// A Client is a connection. A Tree is one mounted export as a vfs.FS, so that every test of a vfs.FS can test the
// server. It must not be used to keep data, because there is no recovery.
//
// Replies are decoded on the goroutine that reads the connection, in the receive buffer. All methods may be called from
// any number of goroutines.
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

// RPCError is the outcome of a call that RPC refused, before it reached the program.
type RPCError struct {
	Denied bool   // the credential was refused: Stat is an auth_stat, else an accept_stat
	Stat   uint32 // RFC 5531 section 9
}

// Error has the kind of the outcome and its number.
func (e *RPCError) Error() string {
	if e.Denied {
		return fmt.Sprintf("rpc: denied, auth_stat %d", e.Stat)
	}
	return fmt.Sprintf("rpc: refused, accept_stat %d", e.Stat)
}

// ErrReply is the error for a reply that does not decode.
var ErrReply = errors.New("nfs reply: malformed")

// Client is one connection.
type Client struct {
	nc   net.Conn
	xid  atomic.Uint32
	done chan struct{} // closed when the reading goroutine has ended

	mu      sync.Mutex
	pending map[uint32]*pending // by xid
	out     []byte              // calls that are not written yet
	spare   []byte              // the memory of the previous out
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
	c.xid.Store(rand.Uint32()) // the server takes equal calls with equal xids for repeated ones
	go c.read()
	return c
}

// Close closes the connection. Calls in flight fail.
func (c *Client) Close() error {
	err := c.nc.Close()
	<-c.done
	return err
}

// LocalAddr returns our end of the connection.
func (c *Client) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// Call is one call of a procedure.
type Call struct {
	Program, Proc uint32
	Cred          *vfs.Cred                   // sent as AUTH_SYS; nil: AUTH_NONE
	Args          func(*oncrpc.Encoder)       // appends the arguments; nil: there are none
	Results       func(*oncrpc.Decoder) error // decodes what follows the header of a successful reply; nil: nothing
}

// Do makes a call and waits for its reply.
func (c *Client) Do(call Call) error {
	p := &pending{results: call.Results, end: make(chan error, 1)}
	xid := c.xid.Add(1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.pending[xid] = p
	e := oncrpc.NewEncoder(c.out)
	start := e.Len()
	putHeader(&e, xid, &call)
	if call.Args != nil {
		call.Args(&e)
	}
	e.PutUint32(start, uint32(e.Len()-start-4)|lastFragment)
	c.out = e.Bytes()
	c.flush()
	c.mu.Unlock()
	return <-p.end
}

// flush writes the calls in out, unless another goroutine is writing. The caller holds the lock, which flush
// releases while it writes.
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

// putHeader appends room for the record mark, and the header of a call.
func putHeader(e *oncrpc.Encoder, xid uint32, call *Call) {
	for _, v := range []uint32{0, xid, 0, 2, call.Program, version, call.Proc} {
		e.Uint32(v)
	}
	if cred := call.Cred; cred == nil {
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

// fail ends all calls with an error. The caller holds the lock.
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

// dispatch passes a reply to the call that waits for it.
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
func (c *Client) Null(program uint32) error { return c.Do(Call{Program: program}) }

// Mount returns the root handle of an export. Errors of the server are vfs.Errno.
func (c *Client) Mount(path string) (h vfs.Handle, err error) {
	call := Call{Program: ProgramMount, Proc: 1, Cred: &vfs.Cred{}, Args: func(e *oncrpc.Encoder) { e.String(path) }}
	call.Results = func(d *oncrpc.Decoder) error {
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
	}
	err = c.Do(call)
	return h, err
}

// Unmount tells the server that the client no longer uses path.
func (c *Client) Unmount(path string) error {
	args := func(e *oncrpc.Encoder) { e.String(path) }
	return c.Do(Call{Program: ProgramMount, Proc: 3, Cred: &vfs.Cred{}, Args: args})
}

// Exports lists what can be mounted.
func (c *Client) Exports() (paths []string, err error) {
	results := func(d *oncrpc.Decoder) error {
		for d.Bool() {
			paths = append(paths, d.String(1024))
			for d.Bool() {
				d.Opaque(255)
			}
		}
		return nil
	}
	err = c.Do(Call{Program: ProgramMount, Proc: 5, Results: results})
	return paths, err
}
