// Package ra answers IPv6 router solicitations with an advertisement that says: there is no router here, no prefix, and nothing to
// ask DHCPv6 for (RFC 4861 with router lifetime 0, M=0, O=0).
//
// Boot loaders of 2019 and before (iPXE as Debian has it) ask for a router on every card that comes up, and hold the boot up
// for 13 s when nobody answers, also where only IPv4 is used. A true router's advertisement is not weakened by ours: a lifetime of 0 concerns
// the sender alone (RFC 4861 section 4.2).
//
// It must not know what boots, nor open sockets. One Responder may Serve several sockets at once.
package ra

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/ipv6"
)

const (
	typeSolicitation  = 133
	typeAdvertisement = 134
	optionSourceLink  = 1
	// hopLimit is that of every neighbour discovery packet: it shows that no router has passed it on (RFC 4861 section 6.1.1).
	hopLimit = 255
)

// Responder answers solicitations that arrive on certain cards.
type Responder struct {
	// Interfaces are the indexes of the cards on which nodes boot; on others there is silence.
	Interfaces []int
	Log        *slog.Logger
}

// Serve answers what arrives on conn, a raw socket of "ip6:ipv6-icmp", until ctx ends. It does not close conn. The error
// is nil when ctx ended.
func (r *Responder) Serve(ctx context.Context, conn net.PacketConn) error {
	p := ipv6.NewPacketConn(conn)
	if err := r.setUp(p); err != nil {
		return fmt.Errorf("serve router advertisements: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1500)
	for {
		n, cm, from, err := p.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read router solicitations: %w", err)
		}
		src, ok := source(from)
		if !ok || cm == nil || cm.HopLimit != hopLimit || !slices.Contains(r.Interfaces, cm.IfIndex) {
			continue
		}
		to, err := answer(buf[:n], src)
		if err != nil {
			r.Log.Debug("router solicitation ignored", "from", src, "err", err)
			continue
		}
		out := &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: cm.IfIndex}
		if _, err := p.WriteTo(advertisement(), out, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			r.Log.Debug("router advertisement not sent", "to", to, "err", err)
		}
	}
}

// setUp has the kernel deliver solicitations alone, and tell where they arrived.
func (r *Responder) setUp(p *ipv6.PacketConn) error {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	if err := p.SetICMPFilter(&f); err != nil {
		return err
	}
	if err := p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true); err != nil {
		return err
	}
	for _, i := range r.Interfaces {
		// A card that went away, or has IPv6 switched off, must not keep the others, or the server, from working: there the
		// boot takes longer, and no more.
		if err := p.JoinGroup(&net.Interface{Index: i}, &net.IPAddr{IP: net.IPv6linklocalallrouters}); err != nil {
			r.Log.Warn("router solicitations are not heard", "interface", i, "err", err)
		}
	}
	return nil
}

// answer checks a solicitation as RFC 4861 section 6.1.1 demands, and returns where its answer goes.
func answer(b []byte, src netip.Addr) (netip.Addr, error) {
	if len(b) < 8 || b[0] != typeSolicitation || b[1] != 0 {
		return netip.Addr{}, fmt.Errorf("parse solicitation: % x", b[:min(len(b), 8)])
	}
	for o := b[8:]; len(o) > 0; {
		if len(o) < 2 || o[1] == 0 || int(o[1])*8 > len(o) {
			return netip.Addr{}, fmt.Errorf("parse solicitation: option cut off")
		}
		if o[0] == optionSourceLink && src.IsUnspecified() {
			return netip.Addr{}, fmt.Errorf("parse solicitation: link address of nobody")
		}
		o = o[int(o[1])*8:]
	}
	if src.IsLinkLocalUnicast() {
		return src, nil
	}
	return netip.AddrFrom16([16]byte(net.IPv6linklocalallnodes)), nil
}

// advertisement is the only answer there is. The kernel fills in the checksum.
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
