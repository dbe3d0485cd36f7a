package dhcp

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"
)

func TestEveryMessageThatIsNotAnsweredHasAReason(t *testing.T) {
	here := Interface{Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(server, 24)}}
	relay := func(m *layers.DHCPv4) { m.RelayAgentIP = net.IP{10, 77, 0, 250} }
	stranger := func(m *layers.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, 9} }
	infiniband := func(m *layers.DHCPv4) { m.HardwareType, m.HardwareLen = 32, 0 }
	bootp := message(t, typeDiscover, nil)
	bootp = bootp[:strings.Index(string(bootp), "\x63\x82\x53\x63")] // without its options
	for _, tt := range []struct {
		name     string
		packet   []byte
		card     Interface
		from     uint16
		reason   string // "": Refused is not told
		expected bool
		want     Stats
	}{
		{"answered", message(t, typeDiscover, nil), here, 68, "", false, Stats{}},
		{"a port of any user", message(t, typeDiscover, nil), here, 1024, "port 1024, which any user may use", true,
			Stats{Port: 1}},
		{"a relay with such a port", message(t, typeDiscover, relay), here, 1067, "", false, Stats{}},
		{"BOOTP", bootp, here, 68, "", false, Stats{}},
		{"a type that no client sends", message(t, typeOffer, nil), here, 68, "clients do not send type 2", false,
			Stats{Malformed: 1}},
		{"no Ethernet", message(t, typeDiscover, infiniband), here, 68, "", false, Stats{Malformed: 1}},
		{"another interface", message(t, typeDiscover, nil), Interface{Name: "eth9"}, 68,
			"it arrives on eth9, which has none", false, Stats{Interface: 1}},
		{"an unknown client", message(t, typeDiscover, stranger), here, 68, "not in the description", false,
			Stats{Unknown: 1}},
		{"the offer of another server", message(t, typeRequest, nil, option(54, other.AsSlice())), here, 68,
			"takes the offer of the DHCP server " + other.String(), false, Stats{Other: 1}},
		{"a request for no address", message(t, typeRequest, nil), here, 68, "asks for no address", false,
			Stats{Silent: 1}},
		{"a release", message(t, typeRelease, nil), here, 68, "", false, Stats{Silent: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer()
			s.Addresses = []netip.Addr{server}
			var got []Refusal
			s.Refused = func(r Refusal) bool { got = append(got, r); return false }
			s.handle(tt.packet, arrival{Interface: tt.card, from: port(tt.from)})
			if d := cmp.Diff(tt.want, s.Stats()); d != "" {
				t.Errorf("counters: %s", d)
			}
			switch {
			case tt.reason == "" && len(got) == 0:
			case len(got) != 1 || !strings.Contains(got[0].Reason, tt.reason) || got[0].Expected != tt.expected:
				t.Errorf("told %+v, want %q, expected %v", got, tt.reason, tt.expected)
			}
		})
	}
}

func TestKnownClientsAreNotUnknownMachines(t *testing.T) {
	s := newServer()
	s.Refused = func(r Refusal) bool { return r.MAC[5] == 7 }
	for _, last := range []byte{7, 8} {
		set := func(m *layers.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, last} }
		s.handle(message(t, typeDiscover, set), arrival{})
	}
	if list := s.Machines.List(); len(list) != 1 || list[0].MAC[5] != 8 {
		t.Errorf("listed: %+v", list)
	}
}
