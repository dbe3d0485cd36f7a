// Package tftp is a read-only TFTP server: RFC 1350 with options (2347), block size (2348), transfer size and time-out (2349)
// and window size (7440).
//
// # Concepts
//
// Requests arrive on the socket given to Serve. Each transfer has a socket of its own, as the protocol demands, from the
// function ListenPacket, and a goroutine. What a name means is Open's business alone: names are handed to it as they came, with
// leading slashes, dots, whatever firmware sends.
//
// # Firmware
//
// UEFI asks for the size first and breaks that transfer off with an ERROR: that is no failure and is not logged as one. PXE ROMs use the same
// port for one transfer after the other, often without ending the last one: a new request from a port takes the place of an older
// transfer to it, unless it is the same request sent again before anything was acknowledged.
//
// # Limits
//
// Transfers are bounded, in all and per client address; requests beyond that are dropped, and the clients ask again by themselves.
// A forged source address gets a few small packets at most, since nothing but an OACK or the first block is sent before the first ACK.
// Block numbers roll over to 0, which all loaders that load more than 65,535 blocks expect. Only octet mode is served: no loader has a use for
// another one. Write requests are refused.
//
// # Concurrency
//
// A Server may Serve several sockets at once; they share the limits. Serve returns when all its transfers have ended. The only lock guards the
// table of transfers; nothing is called while it is held.
//
// It must not know what it serves, nor open sockets.
package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// File is what a transfer reads. It is closed when the transfer ends.
type File interface {
	io.ReaderAt
	io.Closer
	// Size returns the length, which must not change during the transfer.
	Size() int64
}

// Server answers read requests. Open, ListenPacket and Log must be set; zero values of the rest stand for the defaults. The fields must not
// be changed once Serve runs.
type Server struct {
	// Open returns the file that client asks for. fs.ErrNotExist and fs.ErrPermission become the protocol's errors;
	// the text of others stays in the log.
	Open func(ctx context.Context, client netip.AddrPort, name string) (File, error)
	// ListenPacket makes the socket for one transfer, on any port of the address that local has: the address of the
	// socket on which the request came.
	ListenPacket func(local net.Addr) (net.PacketConn, error)
	// Log gets an Info line for a transfer that ended well, a Warn line for one that did not.
	Log *slog.Logger

	MaxTransfers int           // at once; default 512
	MaxPerClient int           // at once to one address; default 4
	MaxBlockSize int           // default 1468: what fits an Ethernet frame; firmware cannot put fragments together
	MaxWindow    int           // default 32
	Timeout      time.Duration // before the first retransmission, then doubled; default 1 s
	Retries      int           // retransmissions without progress before a client is given up; default 5

	mu        sync.Mutex
	transfers map[netip.AddrPort]*transfer
	perClient map[netip.Addr]int
}

// Serve answers requests on conn until ctx ends, then waits for the transfers it started, which end at once. It does not close
// conn. The error is nil when ctx ended, else what reading from conn came to.
//
// conn should be bound to one address rather than to all: clients insist on answers from the address that they asked.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	l := listener{Server: s, conn: conn}
	defer l.running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	buf := make([]byte, 2048) // RFC 2347: a request has at most 512 bytes
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tftp requests: %w", err)
		}
		if client, ok := addrPort(from); ok {
			l.handle(ctx, client, bytes.Clone(buf[:n]))
		}
	}
}

// listener is one socket being served, and the transfers that came from it.
type listener struct {
	*Server
	conn    net.PacketConn
	running sync.WaitGroup
}

// handle starts the transfer that packet asks for, or says why not.
func (l *listener) handle(ctx context.Context, client netip.AddrPort, packet []byte) {
	r, err := parseRequest(packet)
	if err != nil {
		l.Log.Debug("tftp packet ignored", "client", client, "err", err)
		return
	}
	refuse := func(code errorCode, text string) {
		l.Log.Warn("tftp request refused", "client", client, "name", r.name, "err", text)
		l.conn.WriteTo(appendError(nil, code, text), net.UDPAddrFromAddrPort(client))
	}
	if r.op == opWrite {
		refuse(codeAccess, "this server is read-only")
		return
	}
	if r.mode != "octet" {
		refuse(codeIllegal, "only octet mode is served")
		return
	}
	t, ok := l.admit(ctx, client, packet)
	if !ok {
		return
	}
	t.request = l.limit(r)
	l.running.Go(func() {
		defer l.dismiss(t)
		l.transfer(t, l.conn.LocalAddr())
	})
}

// transfer opens and sends the file of t.
func (s *Server) transfer(t *transfer, local net.Addr) {
	log := s.Log.With("client", t.client, "name", t.request.name)
	own, err := s.ListenPacket(local)
	if err != nil {
		log.Warn("tftp transfer not begun", "err", err)
		return
	}
	defer own.Close()
	t.conn = own

	file, err := s.Open(t.ctx, t.client, t.request.name)
	if err != nil {
		log.Warn("tftp request refused", "err", err)
		t.write(openError(err))
		return
	}
	defer file.Close()
	start := time.Now()
	err = t.send(file)
	var gone *clientError
	switch {
	case err == nil:
		log.Info("tftp transfer done", "bytes", file.Size(), "seconds", time.Since(start).Seconds())
	case errors.As(err, &gone):
		log.Debug("tftp transfer ended by the client", "err", err)
	case t.ctx.Err() != nil:
		log.Debug("tftp transfer given up", "err", err)
	default:
		log.Warn("tftp transfer not finished", "err", err)
	}
}

// openError makes the packet that tells a client why it does not get its file.
func openError(err error) []byte {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return appendError(nil, codeNotFound, "no such file")
	case errors.Is(err, fs.ErrPermission):
		return appendError(nil, codeAccess, "not for this client")
	}
	return appendError(nil, codeUndefined, "the server cannot read the file")
}

// admit enters a transfer for the request into the table. It returns false when there is nothing to do: the request is
// one being served already, or there are too many.
func (s *Server) admit(ctx context.Context, client netip.AddrPort, packet []byte) (*transfer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transfers == nil {
		s.transfers = make(map[netip.AddrPort]*transfer)
		s.perClient = make(map[netip.Addr]int)
	}
	if old := s.transfers[client]; old != nil {
		if bytes.Equal(old.packet, packet) && !old.answered.Load() {
			return nil, false
		}
		old.cancel()
		s.remove(old)
	}
	if len(s.transfers) >= or(s.MaxTransfers, 512) || s.perClient[client.Addr()] >= or(s.MaxPerClient, 4) {
		s.Log.Debug("tftp request dropped: too many transfers", "client", client)
		return nil, false
	}
	t := &transfer{client: client, packet: packet, timeout: or(s.Timeout, time.Second), retries: or(s.Retries, 5)}
	t.ctx, t.cancel = context.WithCancel(ctx)
	s.transfers[client] = t
	s.perClient[client.Addr()]++
	return t, true
}

// dismiss takes an ended transfer out of the table.
func (s *Server) dismiss(t *transfer) {
	t.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(t)
}

// remove is called with mu held; t may be gone or replaced already.
func (s *Server) remove(t *transfer) {
	if s.transfers[t.client] != t {
		return
	}
	delete(s.transfers, t.client)
	if a := t.client.Addr(); s.perClient[a] > 1 {
		s.perClient[a]--
	} else {
		delete(s.perClient, a)
	}
}

// limit reduces what a client asks for to what the server grants.
func (s *Server) limit(r request) request {
	r.blockSize = min(r.blockSize, or(s.MaxBlockSize, 1468))
	r.window = min(r.window, or(s.MaxWindow, 32))
	return r
}

// or returns v, or the default when v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}
