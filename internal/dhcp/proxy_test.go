package dhcp

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

func TestAProxyGivesABootFileAndNoAddress(t *testing.T) {
	at := func(source string) arrival {
		return arrival{from: netip.MustParseAddrPort(source), unicast: true, bootPort: true}
	}
	has := func(m *layers.DHCPv4) { m.ClientIP = mine.AsSlice() }
	item := option(43, []byte{8, 1, 2, 71, 4, 0, 0, 0, 0, 255})
	here := arrival{from: port(68)}
	relayed := func(m *layers.DHCPv4) { m.RelayAgentIP = relay.AsSlice() }
	const snp, node = "snponly.efi", "10.77.0.11:68"
	for _, tt := range []struct {
		name string
		in   []byte
		from arrival
		file string
		want messageType // 0: no answer
		to   string
		item bool // of the boot menu, in the answer
	}{
		{"a discovery", message(t, typeDiscover, nil), here, snp, typeOffer, "255.255.255.255:68", false},
		{"a discovery by a relay", message(t, typeDiscover, relayed), here, snp, typeOffer, "10.77.0.254:67", false},
		{"a discovery of a client that does not boot", message(t, typeDiscover, nil), here, "", 0, "", false},
		{"a request to the other server", message(t, typeRequest, nil, option(50, mine.AsSlice()),
			option(54, other.AsSlice())), here, snp, 0, "", false},
		{"a wrong address", message(t, typeRequest, nil, option(50, other.AsSlice())), here, snp, 0, "", false},
		{"BOOTP", message(t, 0, nil), here, snp, 0, "", false},
		{"port 4011", message(t, typeRequest, has), at(node), snp, typeACK, node, false},
		{"port 4011 with a menu", message(t, typeRequest, has, item), at(node), snp, typeACK, node, true},
		{"port 4011 informing", message(t, typeInform, has), at(node), snp, typeACK, node, false},
		{"port 4011 without boot file", message(t, typeRequest, has), at(node), "", 0, "", false},
		{"port 4011 from another port", message(t, typeRequest, has), at("10.77.0.11:4011"), snp, typeACK,
			"10.77.0.11:4011", false},
	} {
		s := newServer()
		l := lease()
		l.Proxy, l.BootFile = true, tt.file
		l.Options = map[uint8][]byte{60: []byte("PXEClient"), 43: {6, 1, 8, 255}}
		s.Answer = func(*Request) (Lease, error) { return l, nil }
		out, to, ok := s.handle(tt.in, tt.from)
		if ok != (tt.want != 0) {
			t.Errorf("%s: answered: %v", tt.name, ok)
		}
		if !ok {
			continue
		}
		m, options := decode(t, out)
		wantVendor := "\x06\x01\x08\xff"
		if tt.item {
			wantVendor = "\x06\x01\x08\x47\x04\x00\x00\x00\x00\xff"
		}
		if messageType(options[53][0]) != tt.want || to.addr.String() != tt.to || options[43] != wantVendor {
			t.Errorf("%s: type %d to %v, option 43 % x", tt.name, options[53][0], to.addr, options[43])
		}
		if !m.YourClientIP.Equal(net.IPv4zero) || !m.NextServerIP.Equal(server.AsSlice()) ||
			options[54] != string(server.AsSlice()) || options[60] != "PXEClient" || string(m.File[:11]) != snp {
			t.Errorf("%s: %+v % x", tt.name, m, options)
		}
		for _, code := range []uint8{1, 3, 6, 12, 51} {
			if _, given := options[code]; given {
				t.Errorf("%s: the proxy gives option %d", tt.name, code)
			}
		}
	}
}

func TestOtherServersAreListed(t *testing.T) {
	s := newServer()
	s.Addresses = []netip.Addr{server}
	here := arrival{from: port(68), Interface: Interface{Name: "eth0", Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.77.0.1/24"),
	}}}
	ask := func(to netip.Addr, set func(*layers.DHCPv4), options ...layers.DHCPOption) {
		options = append(options, option(50, other.AsSlice()), option(54, to.AsSlice()))
		s.handle(message(t, typeRequest, set, options...), here)
	}
	ask(server, nil)
	ask(relay, func(m *layers.DHCPv4) { m.RelayAgentIP = relay.AsSlice() }, option(82, []byte{11, 4, 10, 77, 0, 254}))
	if list := s.Machines.Servers(); len(list) != 0 {
		t.Errorf("this server and a relay in its place are listed: %+v", list)
	}
	evil, quiet := netip.MustParseAddr("10.77.0.66"), netip.MustParseAddr("10.77.0.67")
	ask(evil, nil)
	ask(evil, func(m *layers.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, 9} })
	answer := func(typ messageType, id netip.Addr, set func(*layers.DHCPv4)) {
		m := message(t, typ, func(m *layers.DHCPv4) { m.Operation = layers.DHCPOpReply; set(m) },
			option(54, id.AsSlice()))
		if x, ok := parseAnswer(append([]byte{0, 67, 0, 68, 0, 0, 0, 0}, m...)); ok {
			s.noteOther(x)
		}
	}
	gives := func(m *layers.DHCPv4) { m.YourClientIP = mine.AsSlice() }
	answer(typeOffer, server, gives)
	answer(typeOffer, relay, func(m *layers.DHCPv4) { gives(m); m.RelayAgentIP = relay.AsSlice() })
	answer(typeOffer, netip.MustParseAddr("10.77.0.68"), func(*layers.DHCPv4) {}) // a proxy
	answer(typeNAK, quiet, func(*layers.DHCPv4) {})
	list := s.Machines.Servers()
	if len(list) != 2 || list[0].Address != evil || list[0].Count != 2 || list[0].MAC[5] != 9 ||
		list[0].Offered != other || list[0].Network != server || list[1].Address != quiet || list[1].Offered.IsValid() {
		t.Errorf("listed: %+v", list)
	}
	for i := range 2 * maxServers {
		answer(typeOffer, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), gives)
	}
	if n := len(s.Machines.Servers()); n != maxServers {
		t.Errorf("%d servers are kept", n)
	}
}

func FuzzParseAnswer(f *testing.F) {
	m := message(f, typeOffer, func(m *layers.DHCPv4) { m.Operation = layers.DHCPOpReply }, option(54, other.AsSlice()))
	f.Add(append([]byte{0, 67, 0, 68, 0, 0, 0, 0}, m...))
	f.Add([]byte{0, 67})
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, ok := parseAnswer(b); ok && (!x.Address.IsValid() || len(x.MAC) != 6) {
			t.Errorf("%+v", x)
		}
	})
}
