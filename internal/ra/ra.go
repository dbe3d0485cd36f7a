// Package ra answers IPv6 router solicitations with an advertisement of no router, no prefix, and no DHCPv6 server
// (RFC 4861 with router lifetime 0, M=0, O=0).
//
// Boot loaders of 2019 and before, such as the iPXE of Debian, send a solicitation on every interface that comes
// up. They delay the boot by 13 s if there is no answer, also where only IPv4 is used. The advertisement does not
// affect those of routers, because a lifetime of 0 concerns its sender only (RFC 4861 section 4.2).
//
// Interfaces may come and go while a Responder serves. It joins the multicast group of routers on each one as it
// appears.
//
// It must not know what boots, nor open sockets. One Responder may Serve several sockets at the same time.
package ra

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv6"

	"dim/internal/bounds"
	"dim/internal/periodic"
)

const (
	typeSolicitation  = 133
	typeAdvertisement = 134
	optionSourceLink  = 1
	// hopLimit is that of every neighbour discovery packet. It proves that no router has forwarded the packet (RFC 4861
	// section 6.1.1).
	hopLimit = 255
	// interval is how often the list of interfaces is read.
	interval = time.Second
)

// Responder answers solicitations that arrive on certain interfaces.
type Responder struct {
	// Interfaces returns the indexes of the interfaces on which nodes boot now. It is called every second.
	// Solicitations on others are not answered.
	Interfaces func() []int
	Log        *slog.Logger
}

// Advertisements to all machines of an interface: as many at once, and then one in this time. A forged solicitation
// without a source address makes the server send one.
const (
	multicastBurst = 20
	multicastEvery = 50 * time.Millisecond
)

// Serve answers solicitations that arrive on conn, a raw socket of "ip6:ipv6-icmp", until ctx ends. It does not
// close conn. The error is nil if ctx ended.
func (r *Responder) Serve(ctx context.Context, conn net.PacketConn) error {
	p := ipv6.NewPacketConn(conn)
	if err := setUp(p); err != nil {
		return fmt.Errorf("serve router advertisements: %w", err)
	}
	m := membership{conn: p, log: r.Log, joined: make(map[int]bool)}
	m.update(r.Interfaces())
	ctx, cancel := context.WithCancel(ctx)
	var updates sync.WaitGroup
	updates.Go(func() {
		_ = periodic.Run(ctx, interval, func(context.Context) { m.update(r.Interfaces()) })
	})
	defer updates.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1500)
	multicasts := bounds.Rate[int]{Every: multicastEvery, Burst: multicastBurst}
	for {
		n, cm, from, err := p.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read router solicitations: %w", err)
		}
		src, ok := source(from)
		if !ok || cm == nil || cm.HopLimit != hopLimit || !m.has(cm.IfIndex) {
			continue
		}
		to, err := answer(buf[:n], src)
		if err != nil {
			r.Log.Debug("router solicitation ignored", "client", src, "error", err)
			continue
		}
		if to.IsMulticast() && !multicasts.Allow(cm.IfIndex, time.Now()) {
			continue // the machine has received the one before
		}
		out := &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: cm.IfIndex}
		if _, err := p.WriteTo(advertisement(), out, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			r.Log.Debug("router advertisement not sent", "address", to, "error", err)
		}
	}
}

// setUp makes the kernel deliver solicitations only, with the interface on which they arrived.
func setUp(p *ipv6.PacketConn) error {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	if err := p.SetICMPFilter(&f); err != nil {
		return err
	}
	return p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true)
}

// membership is a socket's membership in the group of all routers on the interfaces where nodes boot.
type membership struct {
	conn *ipv6.PacketConn
	log  *slog.Logger

	mu     sync.Mutex
	joined map[int]bool // by the index of each interface where nodes boot; false: the kernel refuses
}

// update joins the group on interfaces that are new, and leaves it on those that are not in the list any more.
func (m *membership) update(indexes []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	group := &net.IPAddr{IP: net.IPv6linklocalallrouters}
	for i := range m.joined {
		if !slices.Contains(indexes, i) {
			// Also when the interface has gone: the socket would keep the memory of its membership.
			_ = m.conn.LeaveGroup(&net.Interface{Index: i}, group)
			delete(m.joined, i)
		}
	}
	for _, i := range indexes {
		joined, known := m.joined[i]
		if joined {
			continue
		}
		// An interface that has IPv6 switched off is no error of the others or the server. Boots on it take longer.
		err := m.conn.JoinGroup(&net.Interface{Index: i}, group)
		if err != nil && !known {
			m.log.Warn("router solicitations are not received", "interface", i, "error", err)
		}
		m.joined[i] = err == nil
	}
}

// has reports whether nodes boot on an interface.
func (m *membership) has(index int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.joined[index]
	return ok
}

// answer checks a solicitation as RFC 4861 section 6.1.1 demands, and returns the destination of its answer.
func answer(b []byte, src netip.Addr) (netip.Addr, error) {
	if len(b) < 8 || b[0] != typeSolicitation || b[1] != 0 {
		return netip.Addr{}, fmt.Errorf("parse solicitation: % x", b[:min(len(b), 8)])
	}
	for o := b[8:]; len(o) > 0; {
		if len(o) < 2 || o[1] == 0 || int(o[1])*8 > len(o) {
			return netip.Addr{}, fmt.Errorf("parse solicitation: option cut off")
		}
		if o[0] == optionSourceLink && src.IsUnspecified() {
			return netip.Addr{}, fmt.Errorf("parse solicitation: link address without a source address")
		}
		o = o[int(o[1])*8:]
	}
	if src.IsLinkLocalUnicast() {
		return src, nil
	}
	return netip.AddrFrom16([16]byte(net.IPv6linklocalallnodes)), nil
}

// advertisement returns the answer, which is the same for all. The kernel fills in the checksum.
func advertisement() []byte {
	var b [16]byte
	b[0] = typeAdvertisement
	return b[:] // hop limit, flags, router lifetime, reachable time, retransmission time: all 0, "unspecified"
}

func source(a net.Addr) (netip.Addr, bool) {
	ip, ok := a.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	src, ok := netip.AddrFromSlice(ip.IP)
	return src, ok && src.Is6()
}
