// Package tftp is a read-only TFTP server: RFC 1350 with options (2347), block size (2348), transfer size and time-out
// (2349) and window size (7440).
//
// # Concepts
//
// Requests arrive on the socket given to Serve. Each transfer has a goroutine. The protocol lets the server choose a
// port for each transfer (RFC 1350 section 4). Here transfers share a few ports, which the function ListenPacket opens:
// a socket for each would cost more than the rest of the answer to a request, and anybody may send requests. They use
// the ports in turn, so that a late packet of one transfer is not taken for one of the client's next, unless portCount
// requests have come in between.
//
// The function Open decides what a name means. It gets names unchanged, with leading slashes, dots, and whatever else
// firmware sends.
//
// # Firmware
//
//   - UEFI first requests the size, and ends that transfer with an ERROR. This is not logged as a failure.
//   - PXE ROMs use the same port for one transfer after the other, often without ending the last one. A new request
//     from a port therefore ends an older transfer to it, unless it repeats the request before any acknowledgement.
//
// # Limits
//
//   - Clients that Known does not know get an ERROR, and no transfer.
//   - The number of transfers is bounded, in all and for each client address. A further request takes the place of a
//     transfer that no packet of the client has acknowledged: its address may be forged. If there is none, the request
//     is dropped, and the client repeats it.
//   - A forged source address gets a few small packets, since only an OACK or the first window is sent before the first
//     ACK, which must arrive within 10 s.
//   - Few transfers are started at a time, so that a burst of requests leaves the processors to other services. A
//     transfer that another one displaces before costs nothing. One whose file is not open after a moment is not
//     counted any more: Open may wait for what other servers send.
//   - A client may ask for retransmissions after up to 8 s. The option is ignored when it asks for more.
//   - Retransmissions end after a few without progress, and a transfer ends after a time that its size gives.
//   - Block numbers roll over to 0, as all loaders that load more than 65,535 blocks expect.
//   - Only octet mode is served, because no loader uses another one. Write requests are refused.
//
// # Concurrency
//
// A Server may Serve several sockets at the same time, which share the limits. Serve returns when all its transfers
// have ended. The only lock guards the table of transfers, and no function of others is called while it is held.
//
// It must not know what it serves, nor open sockets.
package tftp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/bounds"
)

// File is what a transfer reads. It is closed when the transfer ends.
type File interface {
	io.ReaderAt
	io.Closer
	// Size returns the length, which must not change during the transfer.
	Size() int64
}

// Server answers read requests. Open, Known, ListenPacket and Log must be set. The defaults of the other fields are in
// their comments. The fields must not be changed while Serve runs.
type Server struct {
	// Open returns the file that client requests. fs.ErrNotExist and fs.ErrPermission become errors of the
	// protocol. The text of other errors is logged, and not sent.
	Open func(ctx context.Context, client netip.AddrPort, name string) (File, error)
	// Known reports whether a client may request anything.
	Known func(client netip.AddrPort) bool
	// ListenPacket opens a socket for transfers, on any port of the address in local, which is the address of the
	// socket on which requests arrive. Serve closes it.
	ListenPacket func(local net.Addr) (net.PacketConn, error)
	// MTU returns the size of the largest packet that reaches a client in one piece, because firmware does not
	// reassemble fragments; 0: not known. nil: it is not known of any client.
	MTU func(client netip.Addr) int
	// Log gets an Info line for a transfer that succeeded, and a Warn line for one that failed.
	Log *slog.Logger

	MaxTransfers func() int    // at a time; default 512
	MaxPerClient int           // at a time to one address; default 4
	MaxBlockSize int           // default 1468, which fits an Ethernet frame
	MaxWindow    int           // default 32
	Timeout      time.Duration // before the first retransmission, then doubled; default 1 s
	Retries      int           // retransmissions without progress after which a transfer fails; default 5

	counters counters

	mu        sync.Mutex
	starting  chan struct{} // has an element for each transfer that is being started
	transfers map[netip.AddrPort]*transfer
	perClient bounds.Table[netip.Addr, *transfer]
}

// Serve answers requests on conn until ctx ends or a read fails. It returns when its transfers have ended, which
// ctx ends too. It does not close conn. The error is nil if ctx ended.
//
// conn should be bound to one address rather than to all, because clients accept answers only from the address that
// they asked.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	l := listener{Server: s, conn: conn}
	defer l.close()
	for range portCount {
		port, err := s.ListenPacket(conn.LocalAddr())
		if err != nil {
			return fmt.Errorf("open a port for tftp transfers: %w", err)
		}
		l.ports = append(l.ports, port)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, port := range l.ports {
		g.Go(func() error { return read(ctx, port, l.answered(port)) })
	}
	g.Go(func() error {
		return read(ctx, conn, func(client netip.AddrPort, packet []byte) { l.handle(ctx, client, packet) })
	})
	return g.Wait()
}

// portCount is the number of ports that the transfers share.
const portCount = 16

// read calls f for each packet, until ctx ends or a read fails. The error is nil if ctx ended.
func read(ctx context.Context, conn net.PacketConn, f func(from netip.AddrPort, packet []byte)) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 2048) // RFC 2347: a request has at most 512 bytes
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tftp packets: %w", err)
		}
		if client, ok := addrPort(from); ok {
			f(client, buf[:n])
		}
	}
}

// listener is one socket that is being served, and the transfers that were requested on it.
type listener struct {
	*Server
	conn    net.PacketConn
	ports   []net.PacketConn // of the transfers
	next    int              // the port of the next transfer; only handle uses it
	running sync.WaitGroup
}

// close waits for the transfers, whose context has ended, and closes their ports.
func (l *listener) close() {
	l.running.Wait()
	for _, port := range l.ports {
		port.Close()
	}
}

// answered returns a function that gives a packet, which has arrived on a port, to its transfer.
func (l *listener) answered(port net.PacketConn) func(client netip.AddrPort, packet []byte) {
	return func(client netip.AddrPort, packet []byte) {
		l.mu.Lock()
		t := l.transfers[client]
		l.mu.Unlock()
		if t == nil || t.conn != port {
			return // RFC 1350 section 4 wants an ERROR, which would go to a forged address
		}
		a, err := parseAnswer(packet)
		if err != nil {
			return
		}
		select {
		case t.answers <- a:
		default: // as if the network had lost it
		}
	}
}

// handle starts the transfer that packet requests, or sends an ERROR.
func (l *listener) handle(ctx context.Context, client netip.AddrPort, packet []byte) {
	r, err := parseRequest(packet)
	if err != nil {
		l.counters.malformed.Add(1)
		l.Log.Debug("tftp packet ignored", "client", client, "error", err)
		return
	}
	refuse := func(code errorCode, text string) {
		l.counters.refused.Add(1)
		l.Log.Warn("tftp request refused", "client", client, "file", r.name, "reason", text)
		l.conn.WriteTo(appendError(nil, code, text), net.UDPAddrFromAddrPort(client))
	}
	if !l.Known(client) {
		refuse(codeAccess, "not for this client")
		return
	}
	if r.op == opWrite {
		refuse(codeAccess, "this server is read-only")
		return
	}
	if r.mode != "octet" {
		refuse(codeIllegal, "only octet mode is served")
		return
	}
	l.next = (l.next + 1) % len(l.ports)
	t, ok := l.admit(ctx, client, packet, l.ports[l.next])
	if !ok {
		return
	}
	t.request = r
	l.running.Go(func() {
		defer l.finish(t)
		if started, ok := l.begin(t.ctx); ok {
			defer started()
			t.started = started
			l.transfer(t)
		}
	})
}

// maxStart is how long others wait until a transfer is started. At worst, if all files are waited for, 200 transfers a
// second are started.
const maxStart = 10 * time.Millisecond

// begin waits until few other transfers are being started. It returns false if ctx ends before. started must be called
// when the transfer waits for its client. It may be called several times, and is called after maxStart in any case.
func (s *Server) begin(ctx context.Context) (started func(), ok bool) {
	s.mu.Lock()
	if s.starting == nil {
		s.starting = make(chan struct{}, max(2, runtime.GOMAXPROCS(0)/2))
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, false
	case s.starting <- struct{}{}:
	}
	if ctx.Err() != nil { // both were possible
		<-s.starting
		return nil, false
	}
	leave := sync.OnceFunc(func() { <-s.starting })
	late := time.AfterFunc(maxStart, leave)
	return func() {
		late.Stop()
		leave()
	}, true
}

// transfer opens and sends the file of t.
func (s *Server) transfer(t *transfer) {
	t.request = s.limit(t.request, t.client.Addr())
	log := s.Log.With("client", t.client, "file", t.request.name)
	file, err := s.Open(t.ctx, t.client, t.request.name)
	if err != nil {
		s.counters.refused.Add(1)
		log.Warn("tftp request refused", "error", err)
		t.write(openError(err))
		return
	}
	defer file.Close()
	start := time.Now()
	err = t.send(file)
	var ended *clientError
	switch {
	case err == nil:
		s.counters.done.Add(1)
		log.Info("tftp transfer done", "bytes", file.Size(), "took", time.Since(start))
	case errors.As(err, &ended):
		log.Debug("tftp transfer ended by the client", "error", err)
	case t.ctx.Err() != nil:
		log.Debug("tftp transfer cancelled", "error", err)
	default:
		s.counters.failed.Add(1)
		log.Warn("tftp transfer failed", "error", err)
	}
}

// openError returns the ERROR packet for an error of Open.
func openError(err error) []byte {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return appendError(nil, codeNotFound, "no such file")
	case errors.Is(err, fs.ErrPermission):
		return appendError(nil, codeAccess, "not for this client")
	}
	return appendError(nil, codeUndefined, "the server cannot read the file")
}

// admit adds a transfer for the request to the table, on a port. It returns false if the request repeats one that is
// being served, or a limit is reached.
func (s *Server) admit(
	ctx context.Context, client netip.AddrPort, packet []byte, port net.PacketConn,
) (*transfer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transfers == nil {
		s.transfers = make(map[netip.AddrPort]*transfer)
	}
	if old := s.transfers[client]; old != nil {
		if bytes.Equal(old.packet, packet) && !old.acknowledged.Load() {
			return nil, false
		}
		s.displace(old)
	}
	t := &transfer{
		client: client, packet: bytes.Clone(packet), conn: port, answers: make(chan answer, maxAnswers),
		timeout: cmp.Or(s.Timeout, time.Second), retries: cmp.Or(s.Retries, 5),
	}
	if !s.add(t) {
		s.counters.dropped.Add(1)
		s.Log.Warn("tftp request dropped: too many transfers", "client", client)
		return nil, false
	}
	t.ctx, t.cancel = context.WithCancel(ctx)
	s.transfers[client] = t
	return t, true
}

// add counts a transfer. If there is no place, it takes that of one that was never acknowledged. The caller holds mu.
func (s *Server) add(t *transfer) bool {
	limit := bounds.Limit{Each: cmp.Or(s.MaxPerClient, 4), All: 512}
	if s.MaxTransfers != nil {
		limit.All = s.MaxTransfers()
	}
	a := t.client.Addr()
	if s.perClient.Add(a, t, limit) {
		return true
	}
	for _, old := range s.perClient.Of(a) {
		if !old.acknowledged.Load() {
			s.displace(old)
			return s.perClient.Add(a, t, limit)
		}
	}
	looks := 0
	for _, old := range s.transfers { // begins anywhere
		if looks++; looks > maxLooks || len(s.transfers) < limit.All {
			break
		}
		if !old.acknowledged.Load() {
			s.displace(old)
			return s.perClient.Add(a, t, limit)
		}
	}
	return false
}

// maxLooks bounds the search for a transfer that can be displaced.
const maxLooks = 16

// displace ends a transfer in favour of another one. The caller holds mu.
func (s *Server) displace(t *transfer) {
	t.cancel()
	s.remove(t)
}

// finish removes a transfer that has ended from the table.
func (s *Server) finish(t *transfer) {
	t.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(t)
}

// remove removes t, unless another transfer has replaced it. The caller holds mu.
func (s *Server) remove(t *transfer) {
	if s.transfers[t.client] == t {
		delete(s.transfers, t.client)
		s.perClient.Remove(t.client.Addr(), t)
	}
}

// headers is the size of what a block has before it in its packet: the headers of IPv4, UDP and TFTP.
const headers = 20 + 8 + 4

// limit reduces the options of a request to the limits of the server, and of the way to the client.
func (s *Server) limit(r request, client netip.Addr) request {
	r.blockSize = min(r.blockSize, cmp.Or(s.MaxBlockSize, 1468))
	if s.MTU != nil {
		if n := s.MTU(client); n > headers {
			r.blockSize = min(r.blockSize, max(n-headers, minBlockSize))
		}
	}
	r.window = min(r.window, cmp.Or(s.MaxWindow, 32))
	return r
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}
