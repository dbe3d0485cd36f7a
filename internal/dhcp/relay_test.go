package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// relayCase is a message by a relay, and its answer.
type relayCase struct {
	name    string
	in      []byte
	from    arrival
	network netip.Addr  // of the client
	want    messageType // 0: no answer
	to      string
	id      netip.Addr // the server identifier in the answer
}

func relays(t *testing.T) []relayCase {
	elsewhere, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.77.0.0")
	by := func(a netip.Addr) func(*layers.DHCPv4) {
		return func(m *layers.DHCPv4) { m.RelayAgentIP = a.AsSlice() }
	}
	suboption := func(code byte, value ...byte) layers.DHCPOption {
		return option(82, append([]byte{1, 2, 'p', '7', code, byte(len(value))}, value...))
	}
	want, from := option(50, mine.AsSlice()), func(a netip.Addr) layers.DHCPOption { return option(54, a.AsSlice()) }
	return []relayCase{
		{"on the client's network", message(t, typeDiscover, by(relay)), arrival{from: port(67)}, relay,
			typeOffer, "10.77.0.254:67", server},
		{"from port 68", message(t, typeDiscover, by(relay)), arrival{from: port(68)}, relay,
			typeOffer, "10.77.0.254:67", server},
		{"from a port of any user", message(t, typeDiscover, by(relay)), arrival{from: port(40000)}, relay,
			typeOffer, "10.77.0.254:67", server},
		{"RFC 8357: on its own port", message(t, typeDiscover, by(relay), suboption(19)),
			arrival{from: port(1067)}, relay, typeOffer, "10.77.0.254:1067", server},
		{"RFC 8357: a suboption with a value", message(t, typeDiscover, by(relay), suboption(19, 4, 0x2b)),
			arrival{from: port(1067)}, relay, typeOffer, "10.77.0.254:1067", server},
		{"RFC 3527: elsewhere, naming the link", message(t, typeDiscover, by(elsewhere),
			suboption(5, 10, 77, 0, 0)), arrival{from: port(67)}, own, typeOffer, "192.0.2.1:67", server},
		{"RFC 3011: elsewhere, the client naming its subnet", message(t, typeDiscover, by(elsewhere),
			option(118, own.AsSlice())), arrival{from: port(67)}, own, typeOffer, "192.0.2.1:67", server},
		{"RFC 3527: the link comes before the subnet of the client", message(t, typeDiscover, by(elsewhere),
			option(118, []byte{10, 99, 0, 0}), suboption(5, 10, 77, 0, 0)), arrival{from: port(67)}, own,
			typeOffer, "192.0.2.1:67", server},
		{"RFC 5107: an offer in its name", message(t, typeDiscover, by(relay), suboption(11, 10, 77, 0, 254)),
			arrival{from: port(67)}, relay, typeOffer, "10.77.0.254:67", relay},
		{"RFC 5107: its offer is taken", message(t, typeRequest, by(relay), want, from(relay),
			suboption(11, 10, 77, 0, 254)), arrival{from: port(67)}, relay, typeACK, "10.77.0.254:67", relay},
		{"RFC 5107: another offer is taken", message(t, typeRequest, by(relay), want, from(other),
			suboption(11, 10, 77, 0, 254)), arrival{from: port(67)}, relay, 0, "", server},
		{"a suboption that is cut off", message(t, typeDiscover, by(relay), option(82, []byte{1, 9, 'x'})),
			arrival{from: port(67)}, relay, typeOffer, "10.77.0.254:67", server},
		{"a client that names a link itself", message(t, typeDiscover, nil, suboption(5, 10, 77, 0, 0)),
			arrival{from: port(68)}, netip.Addr{}, typeOffer, "255.255.255.255:68", server},
		{"renewing past the relay", message(t, typeRequest, func(m *layers.DHCPv4) { m.ClientIP = mine.AsSlice() }),
			arrival{from: port(68), unicast: true}, mine, typeACK, "10.77.0.11:68", server},
	}
}

func TestRelaysOfEveryKindAreAnswered(t *testing.T) {
	for _, tt := range relays(t) {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer()
			answer := s.Answer
			s.Answer = func(r *Request) (Lease, error) {
				if r.Network != tt.network {
					t.Errorf("the client's network is that of %v, want %v", r.Network, tt.network)
				}
				return answer(r)
			}
			out, to, ok := s.handle(tt.in, tt.from)
			if ok != (tt.want != 0) {
				t.Fatalf("answered: %v", ok)
			}
			if !ok {
				return
			}
			m, options := decode(t, out)
			_, asked := decode(t, tt.in)
			if got := messageType(options[53][0]); got != tt.want || to.addr.String() != tt.to {
				t.Errorf("type %d to %s, want %d to %s", got, to.addr, tt.want, tt.to)
			}
			if options[54] != string(tt.id.AsSlice()) || options[82] != asked[82] || options[118] != asked[118] {
				t.Errorf("options of the answer: % x", options)
			}
			last := slices.DeleteFunc(m.Options, func(o layers.DHCPOption) bool {
				return o.Type == layers.DHCPOptEnd || o.Type == layers.DHCPOptPad
			})
			if last := last[len(last)-1].Type; asked[82] != "" && last != 82 {
				t.Errorf("option 82 is not the last one, but %d: RFC 3046 section 2.1", last)
			}
		})
	}
}

func TestBOOTPIsAnswered(t *testing.T) {
	s := newServer()
	l := lease()
	l.Options = map[uint8][]byte{209: []byte("pxelinux.cfg/default"), 224: make([]byte, 100)}
	s.Answer = func(r *Request) (Lease, error) {
		if !r.BOOTP {
			t.Error("it is taken for DHCP")
		}
		return l, nil
	}
	whole := message(t, 0, nil)
	fixed := whole[:strings.Index(string(whole), cookie)]
	bare := append(append(append([]byte{}, fixed...), cookie...), make([]byte, 60)...) // without an end
	relayed := append([]byte{}, fixed...)
	copy(relayed[24:], relay.AsSlice())
	for name, tt := range map[string]struct {
		in []byte
		to string
	}{
		"without options":             {fixed, "255.255.255.255:68"},
		"with 64 bytes of zero":       {append(append([]byte{}, fixed...), make([]byte, 64)...), "255.255.255.255:68"},
		"with options without an end": {bare, "255.255.255.255:68"},
		"by a relay":                  {relayed, "10.77.0.254:67"},
	} {
		out, to, ok := s.handle(tt.in, arrival{from: port(clientPort)})
		if !ok || to.addr.String() != tt.to {
			t.Errorf("%s: answered %v, to %v", name, ok, to.addr)
			continue
		}
		var m layers.DHCPv4
		if err := m.DecodeFromBytes(out, gopacket.NilDecodeFeedback); err != nil || len(out) != 300 {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
		_, options := decode(t, out)
		if !m.YourClientIP.Equal(net.IP(mine.AsSlice())) || !m.NextServerIP.Equal(net.IP(server.AsSlice())) ||
			options[1] != "\xff\xff\xff\x00" || options[3] == "" || options[209] != "pxelinux.cfg/default" {
			t.Errorf("%s: %+v % x", name, m, options)
		}
		for _, code := range []uint8{51, 53, 54, 224} {
			if _, ok := options[code]; ok {
				t.Errorf("%s: option %d is in an answer of BOOTP", name, code)
			}
		}
	}
	if n := s.Stats(); n.Malformed != 0 {
		t.Errorf("counters: %+v", n)
	}
}

func TestOption93IsReadAsFirmwareSendsIt(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []byte
		want []Arch
	}{
		"one value":       {[]byte{0, 7}, []Arch{7}},
		"two values":      {[]byte{0, 16, 0, 7}, []Arch{16, 7}},
		"one byte":        {[]byte{7}, []Arch{7}},
		"three bytes":     {[]byte{0, 7, 0}, []Arch{7}},
		"no byte":         {nil, nil},
		"bytes exchanged": {[]byte{7, 0}, []Arch{0x700}}, // only the table tells that
	} {
		r, err := parse(message(t, typeDiscover, nil, option(93, tt.in)), arrival{})
		if err != nil || len(r.Archs) != len(tt.want) || len(tt.want) > 0 && r.Archs[0] != tt.want[0] {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestAClientOnInfiniBandIsKnownByTheGUIDOfItsPort(t *testing.T) {
	over := func(m *layers.DHCPv4) { m.HardwareType, m.HardwareLen, m.Flags, m.ClientHWAddr = 32, 0, 0x8000, nil }
	guid := "\x00\x02\xc9\x03\x00\x4d\x00\x01"
	// The identifiers are that of Mellanox's firmware, and RFC 4361's with a DUID of the 20 bytes of the address.
	for _, id := range []string{
		"\xff\x00\x00\x00\x00\x00\x02\x00\x00\x02\xc9\x00" + guid,
		"\xff\x4d\x00\x01\x00\x00\x03\x00\x20\x80\x00\x02\x08\xfe\x80\x00\x00\x00\x00\x00\x00" + guid,
	} {
		s := newServer()
		m := message(t, typeDiscover, over, option(61, []byte(id)))
		if _, _, ok := s.handle(m, arrival{}); ok || len(s.Machines.List()) != 1 ||
			string(s.Machines.List()[0].MAC) != guid {
			t.Errorf("answered: %v, listed: %+v", ok, s.Machines.List())
		}
		s.Answer = func(r *Request) (Lease, error) { return lease(), nil }
		out, to, ok := s.handle(m, arrival{})
		if !ok || to.addr.String() != "255.255.255.255:68" {
			t.Fatalf("answered: %v, to %v", ok, to.addr)
		}
		answer, options := decode(t, out)
		if answer.HardwareType != 32 || answer.HardwareLen != 0 || answer.Flags != 0x8000 || options[61] != id ||
			!answer.YourClientIP.Equal(mine.AsSlice()) {
			t.Errorf("%+v % x", answer, options)
		}
	}
}
