package nodeinit

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func testMAC() net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 1} }

// fakeServers is a packetConn on which DHCP servers answer. Each answer comes after its delay.
type fakeServers struct {
	answers func(m *dhcpv4.DHCPv4) []delayed
	queue   chan delayed
	sent    []*dhcpv4.DHCPv4
}

type delayed struct {
	packet []byte
	after  time.Duration
}

func (s *fakeServers) Send(packet []byte) error {
	m, err := dhcpv4.FromBytes(udpPayload(packet, serverPort))
	if err != nil {
		return err
	}
	s.sent = append(s.sent, m)
	s.queue = make(chan delayed, 9)
	for _, a := range s.answers(m) {
		s.queue <- a
	}
	return nil
}

func (s *fakeServers) Receive(deadline time.Time) ([]byte, error) {
	select {
	case a := <-s.queue:
		time.Sleep(a.after)
		return a.packet, nil
	default:
		time.Sleep(time.Until(deadline))
		return nil, nil
	}
}

func (s *fakeServers) Close() error { return nil }

// toClient wraps a reply in a packet.
func toClient(m *dhcpv4.DHCPv4) []byte {
	p := broadcast(m.ToBytes())
	binary.BigEndian.PutUint16(p[ipHeader+2:], clientPort)
	return p
}

func reply(t testing.TB, m *dhcpv4.DHCPv4, server string, more ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	t.Helper()
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	r, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 11)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(server))),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(10, 77, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptHostName("n01\x00")),
		dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(9000)}),
		dhcpv4.WithOption(dhcpv4.OptGeneric(wordsOption, []byte("dim.node=n01"))))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range more {
		r.UpdateOption(o)
	}
	return r
}

func newTestClient(conn packetConn) *dhcpClient {
	return &dhcpClient{
		conn: conn, mac: testMAC(), preferred: netip.MustParseAddr("10.77.0.1"),
		rand: rand.New(rand.NewPCG(1, 2)), elapsed: 7 * time.Second,
	}
}

func TestTheOfferOfThePreferredServerIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServers{answers: func(m *dhcpv4.DHCPv4) []delayed {
			other := reply(t, m, "10.77.0.1")
			other.ClientHWAddr = net.HardwareAddr{1, 2, 3, 4, 5, 6}
			return []delayed{
				{packet: []byte("noise")},
				{packet: toClient(other)},
				{packet: toClient(reply(t, m, "10.77.0.9"))},
				{packet: toClient(reply(t, m, "10.77.0.1")), after: 100 * time.Millisecond},
			}
		}}
		got, err := newTestClient(s).request(4 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, lease{
			Address: netip.MustParsePrefix("10.77.0.11/24"), Server: netip.MustParseAddr("10.77.0.1"),
			Router: netip.MustParseAddr("10.77.0.1"), HostName: "n01", MTU: 9000, Words: "dim.node=n01",
		}, got)
		for _, m := range s.sent {
			compare(t, vendorClass, m.ClassIdentifier())
			compare(t, uint16(7), m.NumSeconds)
		}
	})
}

func TestAnotherServersOfferIsTakenWhenThePreferredOneMakesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServers{answers: func(m *dhcpv4.DHCPv4) []delayed {
			return []delayed{{packet: toClient(reply(t, m, "10.77.0.9"))}}
		}}
		began := time.Now()
		got, err := newTestClient(s).request(20 * time.Second)
		if err != nil || got.Server != netip.MustParseAddr("10.77.0.9") {
			t.Fatalf("request = %+v, %v", got, err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("it took %v, want about %v", d, preferredWait)
		}
	})
}

func TestSilenceAndRefusalAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &fakeServers{answers: func(*dhcpv4.DHCPv4) []delayed { return nil }}
		if _, err := newTestClient(silent).request(2 * time.Second); !errors.Is(err, errNoAnswer) {
			t.Errorf("request = %v, want errNoAnswer", err)
		}
		nak := &fakeServers{answers: func(m *dhcpv4.DHCPv4) []delayed {
			if m.MessageType() == dhcpv4.MessageTypeRequest {
				nak := dhcpv4.OptMessageType(dhcpv4.MessageTypeNak)
				return []delayed{{packet: toClient(reply(t, m, "10.77.0.1", nak))}}
			}
			return []delayed{{packet: toClient(reply(t, m, "10.77.0.1"))}}
		}}
		if _, err := newTestClient(nak).request(2 * time.Second); !errors.Is(err, errRefused) {
			t.Errorf("request = %v, want errRefused", err)
		}
	})
}

func TestInvalidOptionsAreIgnored(t *testing.T) {
	c := newTestClient(nil)
	m := reply(t, c.message(c.newXID(), dhcpv4.MessageTypeDiscover), "10.77.0.1",
		dhcpv4.OptSubnetMask(net.IPMask{255, 0, 255, 0}), dhcpv4.OptRouter(net.IPv4(192, 168, 0, 1)),
		dhcpv4.OptHostName("a b"), dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(12)})
	got := leaseOf(m)
	compare(t, netip.MustParsePrefix("10.77.0.11/8"), got.Address)
	if got.Router.IsValid() || got.HostName != "" || got.MTU != 0 {
		t.Errorf("lease %+v", got)
	}
}

func FuzzParseReply(f *testing.F) {
	c := newTestClient(nil)
	xid := c.newXID()
	f.Add(toClient(reply(f, c.message(xid, dhcpv4.MessageTypeDiscover), "10.77.0.1")))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := c.parseReply(packet, xid)
		if m == nil || !usableAddress(m) {
			return
		}
		l := leaseOf(m)
		if !l.Address.IsValid() || l.Address.Bits() == 0 || l.Router.IsValid() && !l.Address.Contains(l.Router) {
			t.Errorf("lease %+v", l)
		}
		parseParams(l.Words)
	})
}

func FuzzUDPPayload(f *testing.F) {
	f.Add(broadcast([]byte("hello")))
	f.Fuzz(func(t *testing.T, p []byte) {
		if got := udpPayload(p, serverPort); len(got) > len(p) {
			t.Error("the payload is larger than the packet")
		}
	})
}
