package ra

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dim/internal/testkit"
)

var (
	linkLocal = netip.MustParseAddr("fe80::5054:ff:fe4d:1")
	allNodes  = netip.MustParseAddr("ff02::1")
)

func TestWhichSolicitationsAreAnswered(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		src  netip.Addr
		to   netip.Addr // zero: no answer
	}{
		{"from an address", []byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0x4d, 0, 1}, linkLocal, linkLocal},
		{"from no address", []byte{133, 0, 0, 0, 0, 0, 0, 0}, netip.IPv6Unspecified(), allNodes},
		{"from no address but with a link address", []byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1},
			netip.IPv6Unspecified(), netip.Addr{}},
		{"from a global address", []byte{133, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8::1"), allNodes},
		{"with an option of length 0", []byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 0}, linkLocal, netip.Addr{}},
		{"with an option cut off", []byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0}, linkLocal, netip.Addr{}},
		{"with another code", []byte{133, 1, 0, 0, 0, 0, 0, 0}, linkLocal, netip.Addr{}},
		{"too short", []byte{133, 0, 0}, linkLocal, netip.Addr{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if to, err := answer(tt.in, tt.src); to != tt.to || (err == nil) != tt.to.IsValid() {
				t.Errorf("to %v (%v), want %v", to, err, tt.to)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0x4d, 0, 1}, false)
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, nobody bool) {
		src := linkLocal
		if nobody {
			src = netip.IPv6Unspecified()
		}
		if to, err := answer(b, src); err == nil && to != linkLocal && to != allNodes {
			t.Errorf("answer to %v", to)
		}
	})
}

// namespace makes a network namespace with a pair of interfaces for the calling goroutine, which must be locked to its
// thread, and returns the interfaces.
func namespace() (router, client *net.Interface, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, nil, err
	}
	a := netlink.NewLinkAttrs()
	a.Name = "srv"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "cli"}); err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"srv", "cli"} {

		l, err := netlink.LinkByName(name)
		if err != nil {
			return nil, nil, err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return nil, nil, err
		}
	}
	if router, err = net.InterfaceByName("srv"); err != nil {
		return nil, nil, err
	}
	client, err = net.InterfaceByName("cli")
	return router, client, err
}

// solicitation returns a frame as iPXE sends it.
func solicitation(t *testing.T, mac net.HardwareAddr) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: linkLocal.AsSlice(), DstIP: net.IPv6linklocalallrouters}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(133, 0)}
	icmp.SetNetworkLayerForChecksum(ip)
	allRouters := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}
	eth := &layers.Ethernet{SrcMAC: mac, DstMAC: allRouters, EthernetType: layers.EthernetTypeIPv6}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		eth, ip, icmp, gopacket.Payload(append([]byte{0, 0, 0, 0, 1, 1}, mac...)))
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestASolicitationIsAnswered(t *testing.T) {
	testkit.NeedRoot(t, "it makes a network namespace")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type pair struct {
		conn *packet.Conn
		mac  net.HardwareAddr
	}
	ready := make(chan pair, 1)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		done <- func() error {
			defer close(ready)
			router, client, err := namespace()
			if err != nil {
				return err
			}
			c, err := packet.Listen(client, packet.Raw, unix.ETH_P_IPV6, nil)
			if err != nil {
				return err
			}
			conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
			if err != nil {
				return err
			}
			defer conn.Close()
			ready <- pair{c, client.HardwareAddr}
			r := &Responder{Interfaces: func() []int { return []int{router.Index} }, Log: slog.New(slog.DiscardHandler)}
			return r.Serve(ctx, conn)
		}()
	}()
	p, ok := <-ready
	if !ok {
		t.Skipf("no network namespace with IPv6: %v", <-done)
	}
	defer p.conn.Close()
	checkAdvertisement(t, p.conn, solicitation(t, p.mac))
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// checkAdvertisement sends ask until the answer arrives, because the link-local address of the router may not be ready.
func checkAdvertisement(t *testing.T, c *packet.Conn, ask []byte) {
	t.Helper()
	buf := make([]byte, 2000)
	for range 50 {
		if _, err := c.WriteTo(ask, &packet.Addr{HardwareAddr: ask[:6]}); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			p := gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default)
			if ns, ok := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation); ok {
				answerNeighbour(t, c, p, ns)
				continue
			}
			ra, ok := p.Layer(layers.LayerTypeICMPv6RouterAdvertisement).(*layers.ICMPv6RouterAdvertisement)
			if !ok {
				continue
			}
			ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
			if ra.RouterLifetime != 0 || ra.Flags != 0 || len(ra.Options) != 0 ||
				ip.HopLimit != 255 || !ip.SrcIP.IsLinkLocalUnicast() {
				t.Errorf("advertisement %+v of %+v", ra, ip)
			}
			return
		}
	}
	t.Error("no advertisement arrived")
}

// answerNeighbour answers a neighbour solicitation of the server's kernel with the hardware address of the client.
func answerNeighbour(t *testing.T, c *packet.Conn, p gopacket.Packet, ns *layers.ICMPv6NeighborSolicitation) {
	t.Helper()
	if !ns.TargetAddress.Equal(linkLocal.AsSlice()) {
		return
	}
	asks := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	sender := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	ip := &layers.IPv6{
		Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: linkLocal.AsSlice(), DstIP: sender.SrcIP,
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(136, 0)}
	icmp.SetNetworkLayerForChecksum(ip)
	body := binary.BigEndian.AppendUint32(nil, 0x60000000)
	body = append(append(body, linkLocal.AsSlice()...), 2, 1)
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac, DstMAC: asks.SrcMAC, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp, gopacket.Payload(append(body, mac...)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(buf.Bytes(), &packet.Addr{HardwareAddr: asks.SrcMAC}); err != nil {
		t.Fatal(err)
	}
}
