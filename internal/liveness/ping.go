package liveness

import (
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingTimeout is how long ping waits for answers.
const pingTimeout = time.Second

// protocol is ICMP over one family of addresses.
type protocol struct {
	network, listen string
	number          int // IANA "Protocol Numbers"
	request, reply  icmp.Type
	has             func(netip.Addr) bool // whether an address is of the family
}

// ping sends an ICMP echo request to each address and returns those that answer.
func ping(addrs []netip.Addr) (up []netip.Addr, err error) {
	for _, p := range []protocol{
		{"ip4:icmp", "0.0.0.0", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, netip.Addr.Is4},
		{"ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, netip.Addr.Is6},
	} {
		wanted := map[netip.Addr]bool{}
		for _, a := range addrs {
			if p.has(a) {
				wanted[a] = true
			}
		}
		if len(wanted) == 0 {
			continue
		}
		conn, err := icmp.ListenPacket(p.network, p.listen)
		if err != nil {
			return up, err
		}
		up = append(up, p.echo(conn, wanted)...)
		conn.Close()
	}
	return up, nil
}

// echo returns which of the wanted addresses answer in time. One to which no request can be sent does not answer.
func (p *protocol) echo(conn *icmp.PacketConn, wanted map[netip.Addr]bool) (up []netip.Addr) {
	id := os.Getpid() & 0xffff
	b, err := (&icmp.Message{Type: p.request, Body: &icmp.Echo{ID: id, Data: []byte("dim")}}).Marshal(nil)
	if err != nil {
		return nil
	}
	for a := range wanted {
		_, _ = conn.WriteTo(b, &net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()})
	}
	if conn.SetReadDeadline(time.Now().Add(pingTimeout)) != nil {
		return nil
	}
	for buf := make([]byte, 1500); len(wanted) > 0; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return up
		}
		m, err := icmp.ParseMessage(p.number, buf[:n])
		if err != nil || m.Type != p.reply {
			continue
		}
		at, isIP := from.(*net.IPAddr)
		body, isEcho := m.Body.(*icmp.Echo)
		if !isIP || !isEcho || body.ID != id {
			continue
		}
		a, _ := netip.AddrFromSlice(at.IP)
		if a = a.Unmap(); wanted[a] {
			delete(wanted, a)
			up = append(up, a)
		}
	}
	return up
}
