package oncrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errDeadline is the error of a read that a deadline ended.
var errDeadline = os.ErrDeadlineExceeded

// Options bound a Server. A field that is zero has the default in its comment.
type Options struct {
	Log      *slog.Logger  // default: no log
	Conns    int           // connections at a time; 10,000
	InFlight int           // slow calls of one connection at a time; 32
	Running  int           // slow calls in all that run at a time, while others wait; 1,024
	Queue    int           // memory of unsent replies for one client, in bytes; 2 MiB
	Memory   int64         // bytes of large buffers in all; 512 MiB
	Replies  int64         // bytes of replies that are kept for repeated calls, of all clients; 64 MiB
	Stall    time.Duration // time without progress in an unfinished record or an unsent reply; 60 s
	Idle     time.Duration // time without a call after which a connection is closed; 15 min
	Grace    time.Duration // time for clients to receive their replies at shutdown; 5 s
	Slow     time.Duration // Call.Slow is called after calls that take longer; 1 s
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Conns, 10000)
	def(&o.InFlight, 32)
	def(&o.Running, 1024)
	def(&o.Queue, 2<<20)
	if o.Memory == 0 {
		o.Memory = 512 << 20
	}
	if o.Replies == 0 {
		o.Replies = 64 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for v, d := range map[*time.Duration]time.Duration{
		&o.Stall: time.Minute, &o.Idle: 15 * time.Minute, &o.Grace: 5 * time.Second, &o.Slow: time.Second,
	} {
		if *v == 0 {
			*v = d
		}
	}
	return o
}

// Server serves programs on the connections of one listener.
type Server struct {
	opt      Options
	programs []program
	rejects  slot
	classes  [math.MaxUint8 + 1]atomic.Pointer[classCounters] // by meter.Class
	count    serverCounters
	pool     *pool
	pipes    pipes
	replies  *replies
	calls    sync.Pool
	workers  workers
	slots    chan struct{} // holds a token for each slow call that runs, because each may block a thread
	epoch    time.Time

	uncounted atomic.Bool // set by benchmarks: calls are not counted

	ctx      context.Context // of Serve, for Call.Context
	running  sync.WaitGroup
	closing  atomic.Bool
	ticks    atomic.Int64 // seconds since the start, plus one
	watching atomic.Bool
	wake     chan struct{} // holds at most one token

	mu    sync.Mutex
	conns []*conn
}

// NewServer returns a Server of the programs.
func NewServer(opt Options, programs ...Program) *Server {
	opt = opt.withDefaults()
	s := &Server{
		opt:     opt,
		pool:    newPool(opt.Memory),
		replies: newReplies(opt.Replies),
		workers: workers{next: make(chan work)},
		slots:   make(chan struct{}, opt.Running),
		epoch:   time.Now(),
		ctx:     context.Background(),
		wake:    make(chan struct{}, 1),
	}
	s.ticks.Store(1)
	n := 0
	for _, p := range programs {
		q := program{Program: p}
		for _, proc := range p.Procs {
			q.slots = append(q.slots, slot{Proc: proc, index: n})
			n++
		}
		s.programs = append(s.programs, q)
	}
	s.rejects.index = n
	return s
}

// Serve serves the connections that ln accepts, until ctx ends or ln fails. It returns when running calls have ended,
// their replies are sent, and no goroutine is left. The error is nil if ctx ended. Serve may be called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.ctx = ctx
	s.watching.Store(true)
	// Both go on until all connections have ended, which they help to.
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	s.running.Add(2)
	go s.watch(background)
	go s.sweep(background)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	err := s.accept(ln)
	stop()
	ln.Close()
	s.shutdown(end)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("accept %s: %w", ln.Addr(), err)
}

func (s *Server) accept(ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if err == nil {
			s.add(nc)
			continue
		}
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) &&
			!errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ENOMEM) {
			return err
		}
		s.opt.Log.Warn("connection refused", "error", err)
		s.closeIdlest()
		time.Sleep(10 * time.Millisecond)
	}
}

// add serves nc if the limit on connections allows it.
func (s *Server) add(nc net.Conn) {
	s.count.accepted.Add(1)
	sc, ok := nc.(syscall.Conn)
	if !ok {
		s.opt.Log.Error("connection refused", "error", fmt.Sprintf("%T is no socket", nc))
		nc.Close()
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		nc.Close()
		return
	}
	c := &conn{srv: s, nc: nc, raw: raw}
	c.peer.Remote, c.peer.Local = addrPort(nc.RemoteAddr()), addrPort(nc.LocalAddr())
	c.shard = int(s.count.accepted.Load()) % shards
	c.onRead = c.readable
	c.ended.L = &c.mu
	c.out.init(nc, raw, &s.ticks)
	c.parked.Store(s.ticks.Load() << 1)
	s.mu.Lock()
	full := len(s.conns) >= s.opt.Conns
	if !full {
		c.index = len(s.conns)
		s.conns = append(s.conns, c)
		s.running.Add(1)
	}
	s.mu.Unlock()
	if full {
		s.count.refused.Add(1)
		s.closeIdlest()
		nc.Close()
		return
	}
	go c.read()
}

// addrPort returns the address of one end of a TCP connection, with an IPv4 address in its short form.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
}

// closeIdlest closes the connection that has been idle longest. Its client reconnects when it needs to.
func (s *Server) closeIdlest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *conn
	var since int64
	for _, c := range s.conns {
		if p := c.parked.Load(); p != 0 && !c.killed.Load() && (oldest == nil || p < since) {
			oldest, since = c, p
		}
	}
	if oldest != nil && since>>1 < s.ticks.Load()-1 {
		oldest.kill()
	}
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	last := s.conns[len(s.conns)-1]
	s.conns[c.index], last.index = last, c.index
	s.conns[len(s.conns)-1] = nil
	s.conns = s.conns[:len(s.conns)-1]
	s.mu.Unlock()
	switch {
	case slices.ContainsFunc([]error{errRecord, errMessage, errMemory, errRefused}, func(err error) bool {
		return errors.Is(c.err, err)
	}):
		s.count.broken.Add(1)
		s.opt.Log.Debug("connection broken", "client", c.peer.Remote, "error", c.err)
	case !errors.Is(c.err, io.EOF):
		s.opt.Log.Debug("connection closed", "client", c.peer.Remote, "error", c.err)
	}
	s.running.Done()
}

// kill ends the waits of all goroutines of c. It does not block.
func (c *conn) kill() {
	c.killed.Store(true)
	c.nc.SetDeadline(time.Unix(1, 0))
	c.srv.pool.wakeAll()
}

// shutdown ends all connections, and waits for all goroutines.
func (s *Server) shutdown(endBackground func()) {
	s.closing.Store(true)
	s.pool.wakeAll()
	s.each(func(c *conn) { c.nc.SetReadDeadline(time.Unix(1, 0)) })
	force := time.AfterFunc(s.opt.Grace, func() { s.each((*conn).kill) })
	defer force.Stop()
	endBackground()
	s.running.Wait()
	s.workers.end()
	s.pipes.close()
}

func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		f(c)
	}
}

// now returns the time since the server was made. It costs less than time.Now.
func (s *Server) now() time.Duration { return time.Since(s.epoch) }

func (s *Server) getCall(from *Peer) *Call {
	c, _ := s.calls.Get().(*Call)
	if c == nil {
		c = &Call{srv: s}
	}
	c.Peer = from
	return c
}

func (s *Server) putCall(c *Call) {
	if own := c.Reply.own; own != nil {
		own.release()
	}
	if c.tail != nil {
		c.tail.release()
	}
	c.Reply, c.tail = Encoder{}, nil
	c.Args, c.Peer = Decoder{}, nil
	s.calls.Put(c)
}

// ensure gives the reply a buffer.
func (c *Call) ensure(p *pool) {
	if c.Reply.own == nil {
		c.Reply.own = p.get(smallBuffer)
		c.Reply.b = c.Reply.own.mem[:0]
	}
}

// take returns the replies in c, which has no buffer afterwards.
func (c *Call) take() packet {
	p := packet{b: c.Reply.b, own: c.Reply.own, tail: c.tail}
	c.Reply, c.tail = Encoder{}, nil
	return p
}
