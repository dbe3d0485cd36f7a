// Package dns answers questions about names of which its server is the authority (RFC 1034, RFC 1035), over UDP and
// TCP. Questions about other names are refused: it resolves nothing and asks nobody.
//
// # Invariants
//
//   - An answer over UDP has at most 1,232 bytes, and at most 512 for a client without EDNS (RFC 6891). A longer one is
//     cut, and the client asks again over TCP.
//   - Memory is bounded: a question over UDP is answered before the next one is read, and at most 64 connections are
//     open, of which one address has at most 8.
//   - Over UDP an address gets at most 1,000 answers at once, and then 1,000 a second. Further questions are not
//     answered: whoever sends them may have forged the address, so that the answers are an attack on it.
//
// # What it does not do
//
// Zone transfers, updates, DNSSEC.
//
// # What it must not know
//
// What a node is.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"dim/internal/bounds"
)

// Bounds of connections.
const (
	maxConnections = 64
	perAddress     = 8
	idleTimeout    = 10 * time.Second
	maxQuestion    = 4096  // bytes
	maxAnswer      = 65535 // bytes, over TCP
	acceptRetry    = 100 * time.Millisecond
)

// Bounds of answers over UDP to one address.
const (
	answerBurst = 1000
	answerEvery = time.Millisecond
)

// Server answers questions.
type Server struct {
	// Zones returns the names that hold now; nil: not known yet, and questions are not answered.
	Zones func() *Zones
	Log   *slog.Logger
}

// Serve answers questions that come to a UDP socket, until ctx ends or the socket breaks. It closes the socket.
func (s *Server) Serve(ctx context.Context, pc net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { _ = pc.Close() })()
	answers := bounds.Rate[netip.Addr]{Every: answerEvery, Burst: answerBurst}
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			_ = pc.Close()
			return err
		}
		if zones := s.Zones(); zones != nil && answers.Allow(source(from), time.Now()) {
			if out := zones.answer(buf[:n], 0); out != nil {
				if _, err := pc.WriteTo(out, from); err != nil {
					s.Log.Debug("answer not sent", "client", from, "error", err)
				}
			}
		}
	}
}

// ServeTCP answers questions that come over connections, until ctx ends or the listener breaks. It closes the listener
// and the connections.
func (s *Server) ServeTCP(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var held bounds.Table[netip.Addr, net.Conn] // by the address of the client
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // too many files are open, or the client is gone
			s.Log.Debug("connection not accepted", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptRetry):
			}
			continue
		}
		from := addressOf(conn.RemoteAddr())
		if !held.Add(from, conn, bounds.Limit{Each: perAddress, All: maxConnections}) {
			_ = conn.Close()
			continue
		}
		open.Go(func() {
			defer held.Remove(from, conn)
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			defer conn.Close()
			s.serveConn(conn)
		})
	}
}

// addressOf returns an address without its port; the zero address if it is no IP address.
func addressOf(a net.Addr) netip.Addr {
	at, _ := netip.ParseAddrPort(a.String())
	return at.Addr().Unmap().WithZone("")
}

// source returns the address by which answers over UDP are counted: of IPv6 the first of its /64, because a machine can
// have all the others.
func source(a net.Addr) netip.Addr {
	at := addressOf(a)
	if at.Is6() {
		return netip.PrefixFrom(at, 64).Masked().Addr()
	}
	return at
}

// serveConn answers the questions of one connection (RFC 7766).
func (s *Server) serveConn(conn net.Conn) {
	buf := make([]byte, maxQuestion)
	for {
		if conn.SetDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > maxQuestion {
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		zones := s.Zones()
		if zones == nil {
			return
		}
		out := zones.answer(buf[:n], maxAnswer)
		if out == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}
