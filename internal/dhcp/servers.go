package dhcp

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// OtherServer is another DHCP server whose messages arrive on the networks of this one.
type OtherServer struct {
	Address     netip.Addr // its identifier, by which clients call it
	First, Last time.Time
	Count       int
	MAC         net.HardwareAddr // the client that it answered last
	Offered     netip.Addr       // the address that it gave this client; zero: it refused one
	Network     netip.Addr       // an address on the client's network
}

// maxServers bounds how many other servers are kept.
const maxServers = 64

// noteServer adds another server, or what it did last. It reports whether the server was not known.
func (m *Machines) noteServer(x OtherServer) (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.servers, func(s OtherServer) bool { return s.Address == x.Address })
	if i < 0 {
		x.First, x.Count = x.Last, 1
		m.servers = append(m.servers, x)
		if len(m.servers) > maxServers {
			m.servers = slices.Delete(m.servers, 0, 1)
		}
		return true
	}
	x.First, x.Count = m.servers[i].First, m.servers[i].Count+1
	m.servers = append(slices.Delete(m.servers, i, i+1), x)
	return false
}

// Servers returns the other DHCP servers, the one with the latest message at the end.
func (m *Machines) Servers() []OtherServer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.servers)
}

// noteOther notes what another server did for a client.
func (s *Server) noteOther(x OtherServer) {
	if s.Machines == nil || slices.Contains(s.Addresses, x.Address) {
		return
	}
	x.Last = s.now()
	if s.Machines.noteServer(x) {
		s.Log.Info("another dhcp server answers", "server", x.Address, "mac", x.MAC.String(), "address", x.Offered)
	}
}

// noteTaken notes the other server whose offer the client takes that sent r.
func (s *Server) noteTaken(r *Request) {
	if r.kind != typeRequest || !r.Server.IsValid() || r.Server == r.relay.server {
		return
	}
	network := r.Network
	for _, p := range r.Interface.Addresses {
		if !network.IsValid() && slices.Contains(s.Addresses, p.Addr()) {
			network = p.Addr()
		}
	}
	s.noteOther(OtherServer{Address: r.Server, MAC: r.MAC, Offered: r.requested(), Network: network})
}

// Listen notes the other servers whose answers arrive on conn, until ctx ends: a socket for IP packets of UDP, which
// gets those to the broadcast address. It does not close conn. The error is nil if ctx ended.
func (s *Server) Listen(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, _, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read answers of dhcp servers: %w", err)
		}
		if x, ok := parseAnswer(buf[:n]); ok {
			s.noteOther(x)
		}
	}
}

// parseAnswer decodes a packet of UDP with the answer of a server.
func parseAnswer(b []byte) (x OtherServer, ok bool) {
	const header = 8
	if len(b) < header || binary.BigEndian.Uint16(b) != serverPort {
		return x, false
	}
	p, err := dhcpv4.FromBytes(b[header:])
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || len(p.ClientHWAddr) != 6 {
		return x, false
	}
	x = OtherServer{Address: addr(p.ServerIdentifier()), MAC: p.ClientHWAddr, Offered: addr(p.YourIPAddr)}
	x.Network = x.Offered
	if !x.Network.IsValid() {
		x.Network = x.Address
	}
	switch messageType(p.MessageType()) {
	case typeOffer, typeACK, typeNAK:
		// A relay that answers in its own name (RFC 5107) is no server, nor is a proxy, which gives no address.
		proxy := !x.Offered.IsValid() && messageType(p.MessageType()) != typeNAK
		return x, x.Address.IsValid() && x.Address != addr(p.GatewayIPAddr) && !proxy
	}
	return x, false
}
