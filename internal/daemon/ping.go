package daemon

import (
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingFor is how long answers are waited for.
const pingFor = time.Second

// ping returns which of the addresses answer an ICMP echo.
func ping[T any](addrs map[netip.Addr]T) (up []netip.Addr, err error) {
	for _, family := range []struct {
		network, listen string
		protocol        int
		request, reply  icmp.Type
		is              func(netip.Addr) bool
	}{
		{"ip4:icmp", "0.0.0.0", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, netip.Addr.Is4},
		{"ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, netip.Addr.Is6},
	} {
		wanted := map[netip.Addr]bool{}
		for a := range addrs {
			if family.is(a) {
				wanted[a] = true
			}
		}
		if len(wanted) == 0 {
			continue
		}
		conn, err := icmp.ListenPacket(family.network, family.listen)
		if err != nil {
			return up, err
		}
		up = append(up, echo(conn, wanted, family.protocol, family.request, family.reply)...)
		conn.Close()
	}
	return up, nil
}

// echo asks all and returns those that answer in time. Who cannot be asked does not answer.
func echo(conn *icmp.PacketConn, wanted map[netip.Addr]bool, protocol int, request, reply icmp.Type) (up []netip.Addr) {
	id := os.Getpid() & 0xffff
	b, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Data: []byte("dim")}}).Marshal(nil)
	if err != nil {
		return nil
	}
	for a := range wanted {
		_, _ = conn.WriteTo(b, &net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()})
	}
	if conn.SetReadDeadline(time.Now().Add(pingFor)) != nil {
		return nil
	}
	for buf := make([]byte, 1500); len(wanted) > 0; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return up
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != reply {
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
