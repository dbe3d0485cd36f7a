package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dim/internal/testkit"
)

// veth makes a network namespace with a pair of interfaces for the calling goroutine, which must be locked to its
// thread and must not unlock it. The first interface has the address of the server, the second has none.
func veth() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	a := netlink.NewLinkAttrs()
	a.Name = "srv"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "cli", PeerHardwareAddr: mac}); err != nil {
		return err
	}
	for _, name := range []string{"srv", "cli"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "srv" {
			addr, err := netlink.ParseAddr("10.77.0.1/24")
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, addr); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// frame returns the frame in which a client without an address sends a message.
func frame(t *testing.T, payload []byte) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	udp.SetNetworkLayerForChecksum(ip)
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4},
		ip, udp, gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// ask sends a message until the answer arrives, because an interface that has just come up drops frames.
func ask(t *testing.T, c *packet.Conn, message []byte) (*layers.IPv4, *layers.Ethernet, []byte) {
	t.Helper()
	xid := binary.BigEndian.Uint32(message[4:])
	buf := make([]byte, 2000)
	for range 20 {
		if _, err := c.WriteTo(frame(t, message), &packet.Addr{HardwareAddr: layers.EthernetBroadcast}); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			p := gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default)
			udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if ok && udp.DstPort == 68 && binary.BigEndian.Uint32(udp.Payload[4:]) == xid {
				ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
				return ip, p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), slices.Clone(udp.Payload)
			}
		}
	}
	t.Fatal("no answer arrived")
	return nil, nil, nil
}

func TestAClientWithoutAnAddressIsAnswered(t *testing.T) {
	testkit.NeedRoot(t, "it makes a network namespace")
	ctx, cancel := context.WithCancel(context.Background())
	clientConn := make(chan *packet.Conn, 1)
	links := make(chan Interface, 100)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		done <- func() error {
			defer close(clientConn)
			if err := veth(); err != nil {
				return err
			}
			ifi, err := net.InterfaceByName("cli")
			if err != nil {
				return err
			}
			c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_IP, nil)
			if err != nil {
				return err
			}
			conn, err := net.ListenPacket("udp4", ":67")
			if err != nil {
				return err
			}
			defer conn.Close()
			clientConn <- c
			s := newServer()
			answer := s.Answer
			s.Answer = func(r *Request) (Lease, error) {
				links <- r.Interface
				return answer(r)
			}
			return s.Serve(ctx, conn)
		}()
	}()
	c, ok := <-clientConn
	if !ok {
		t.Fatal(<-done)
	}
	defer c.Close()
	for i, step := range []struct {
		send []byte
		want messageType
	}{
		{message(t, typeDiscover, nil), typeOffer},
		{message(t, typeRequest, nil, option(50, mine.AsSlice()), option(54, server.AsSlice())), typeACK},
		{message(t, typeRequest, nil, option(50, other.AsSlice())), typeNAK},
	} {
		binary.BigEndian.PutUint32(step.send[4:], uint32(i))
		ip, eth, payload := ask(t, c, step.send)
		_, options := decode(t, payload)
		if messageType(options[53][0]) != step.want {
			t.Errorf("type %d, want %d", options[53][0], step.want)
		}
		if !ip.SrcIP.Equal(server.AsSlice()) || !ip.DstIP.Equal(net.IPv4bcast) ||
			eth.DstMAC.String() != layers.EthernetBroadcast.String() {
			t.Errorf("from %v to %v (%v)", ip.SrcIP, ip.DstIP, eth.DstMAC)
		}
		if l := <-links; l.Name != "srv" || len(l.Addresses) != 1 || l.Addresses[0].String() != "10.77.0.1/24" {
			t.Errorf("arrived on %+v", l)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// BenchmarkExchange measures exchanges of four messages over sockets. The clients ask by a relay, 64 at a time.
func BenchmarkExchange(b *testing.B) {
	testkit.NeedRoot(b, "it sends from port 67")
	const clients = 64
	conn := testkit.Value(net.ListenPacket("udp4", "127.0.0.1:0"))(b)
	defer conn.Close()
	r, err := net.ListenPacket("udp4", "127.0.0.9:67")
	if err != nil {
		b.Skip(err) // a DHCP server runs here
	}
	defer r.Close()
	s := newServer()
	s.Answer = func(*Request) (Lease, error) { return lease(), nil }
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	relayed := func(m *layers.DHCPv4) { m.RelayAgentIP = net.IPv4(127, 0, 0, 9).To4() }
	discover := message(b, typeDiscover, relayed)
	request := message(b, typeRequest, relayed, option(50, mine.AsSlice()), option(54, server.AsSlice()))
	send := func(m []byte) {
		_, err := r.WriteTo(m, conn.LocalAddr())
		testkit.Must(b, err)
	}
	buf := make([]byte, 2000)
	for { // what arrives before Serve has set up the socket is dropped
		send(request)
		testkit.Must(b, r.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if _, _, err := r.ReadFrom(buf); err == nil {
			break
		}
	}
	b.ResetTimer()
	started, acknowledged := 0, 0
	for ; started < min(clients, b.N); started++ {
		send(discover)
	}
	for acknowledged < b.N {
		testkit.Must(b, r.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, _, err := r.ReadFrom(buf)
		testkit.Must(b, err)
		if i := bytes.Index(buf[:n], []byte{53, 1, byte(typeOffer)}); i > 0 {
			send(request)
			continue
		}
		if acknowledged++; started < b.N {
			started++
			send(discover)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
	b.StopTimer()
	cancel()
	testkit.Must(b, <-done)
}
