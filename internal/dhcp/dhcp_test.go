package dhcp

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	mac    = net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 1}
	server = netip.MustParseAddr("10.77.0.1")
	mine   = netip.MustParseAddr("10.77.0.11")
	other  = netip.MustParseAddr("10.77.0.99")
	relay  = netip.MustParseAddr("10.77.0.254")
)

func lease() Lease {
	return Lease{
		Address: mine, Subnet: netip.MustParsePrefix("10.77.0.0/24"), Server: server,
		Router: server, DNS: []netip.Addr{server, other}, HostName: "n01", Domain: "small.example", MTU: 9000,
		NextServer: server, BootFile: "undionly.kpxe",
		Options: map[uint8][]byte{224: []byte("dim.node=n01")},
	}
}

func newServer() *Server {
	return &Server{
		Answer: func(r *Request) (Lease, error) {
			if r.MAC.String() != mac.String() {
				return Lease{}, errors.New("not in the description")
			}
			return lease(), nil
		},
		Machines: NewMachines(10),
		Log:      slog.New(slog.DiscardHandler),
		Now:      func() time.Time { return time.Unix(1e9, 0) },
	}
}

// message builds a message of a client with gopacket, which also decodes the answers: neither is the code under test.
func message(t testing.TB, typ messageType, set func(*layers.DHCPv4), options ...layers.DHCPOption) []byte {
	t.Helper()
	first := layers.DHCPOption{Type: layers.DHCPOptMessageType, Length: 1, Data: []byte{byte(typ)}}
	m := &layers.DHCPv4{
		Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6,
		Xid: 0x11223344, Secs: 4, ClientHWAddr: mac, Options: append(layers.DHCPOptions{first}, options...),
	}
	if set != nil {
		set(m)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := m.SerializeTo(buf, gopacket.SerializeOptions{FixLengths: true}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// port returns a source of messages of which only the port matters.
func port(n uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, n) }

func option(code uint8, data []byte) layers.DHCPOption {
	return layers.NewDHCPOption(layers.DHCPOpt(code), data)
}

func decode(t testing.TB, b []byte) (*layers.DHCPv4, map[uint8]string) {
	t.Helper()
	var m layers.DHCPv4
	if err := m.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		t.Fatalf("decode answer: %v", err)
	}
	options := make(map[uint8]string)
	for _, o := range m.Options {
		if o.Type != layers.DHCPOptEnd && o.Type != layers.DHCPOptPad {
			options[uint8(o.Type)] += string(o.Data)
		}
	}
	return &m, options
}

func TestTypeAndDestinationOfAnswers(t *testing.T) {
	want := func(a netip.Addr) layers.DHCPOption { return option(50, a.AsSlice()) }
	from := func(a netip.Addr) layers.DHCPOption { return option(54, a.AsSlice()) }
	has := func(a netip.Addr) func(*layers.DHCPv4) {
		return func(m *layers.DHCPv4) { m.ClientIP = a.AsSlice() }
	}
	relayed := func(m *layers.DHCPv4) { m.RelayAgentIP = relay.AsSlice() }
	unknown := func(m *layers.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, 9} }
	reply := func(m *layers.DHCPv4) { m.Operation = layers.DHCPOpReply }
	const everybody, client, byRelay = "255.255.255.255:68", "10.77.0.11:68", "10.77.0.254:67"
	tests := []struct {
		name string
		in   []byte
		want messageType // 0: no answer
		to   string
	}{
		{"a discovery gets an offer", message(t, typeDiscover, nil), typeOffer, everybody},
		{"an offer to a relayed discovery goes to the relay", message(t, typeDiscover, relayed), typeOffer, byRelay},
		{"the ciaddr of a discovery is ignored", message(t, typeDiscover, has(other)), typeOffer, everybody},
		{"selecting this server", message(t, typeRequest, nil, want(mine), from(server)), typeACK, everybody},
		{"selecting another server", message(t, typeRequest, nil, want(other), from(other)), 0, ""},
		{
			"selecting this server with a wrong address",
			message(t, typeRequest, nil, want(other), from(server)), typeNAK, everybody,
		},
		{"rebooting with the right address", message(t, typeRequest, nil, want(mine)), typeACK, everybody},
		{"rebooting with a wrong address", message(t, typeRequest, nil, want(other)), typeNAK, everybody},
		{"rebooting with a wrong address by a relay", message(t, typeRequest, relayed, want(other)), typeNAK, byRelay},
		{"renewing", message(t, typeRequest, has(mine)), typeACK, client},
		{"renewing a wrong address", message(t, typeRequest, has(other)), typeNAK, everybody},
		{"a request without an address", message(t, typeRequest, nil), 0, ""},
		{"informing", message(t, typeInform, has(mine)), typeACK, client},
		{"declining", message(t, typeDecline, nil, want(mine), from(server)), 0, ""},
		{"releasing", message(t, typeRelease, has(mine), from(server)), 0, ""},
		{"an unknown machine", message(t, typeDiscover, unknown), 0, ""},
		{"a server's message", message(t, typeOffer, nil), 0, ""},
		{"a message with the operation of an answer", message(t, typeDiscover, reply), 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, to, ok := newServer().handle(tt.in, arrival{Interface: Interface{Name: "eth0"}})
			if ok != (tt.want != 0) {
				t.Fatalf("answered: %v", ok)
			}
			if !ok {
				return
			}
			m, options := decode(t, out)
			if got := messageType(options[53][0]); got != tt.want {
				t.Errorf("message type %d, want %d", got, tt.want)
			}
			if to.addr.String() != tt.to {
				t.Errorf("destination %s, want %s", to.addr, tt.to)
			}
			if m.Xid != 0x11223344 || m.Operation != layers.DHCPOpReply || m.ClientHWAddr.String() != mac.String() {
				t.Errorf("header: %+v", m)
			}
			if options[54] != string(server.AsSlice()) {
				t.Errorf("server identifier % x", options[54])
			}
			if tt.want == typeNAK && (m.Flags != 0x8000 || options[1] != "" || options[51] != "" ||
				!m.YourClientIP.Equal(net.IPv4zero)) {
				t.Errorf("a NAK with fields of a lease: %+v", m)
			}
		})
	}
}

func TestMessagesAreAnsweredOnInterfacesWithTheServersAddress(t *testing.T) {
	relayed := func(m *layers.DHCPv4) { m.RelayAgentIP = relay.AsSlice() }
	card := func(addrs ...string) Interface {
		i := Interface{Name: "eth0"}
		for _, a := range addrs {
			i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
		}
		return i
	}
	tests := []struct {
		name string
		in   []byte
		card Interface
		want bool
	}{
		{"one that has it", message(t, typeDiscover, nil), card("10.99.0.1/24", "10.77.0.1/24"), true},
		{"one that has another", message(t, typeDiscover, nil), card("10.77.0.2/24"), false},
		{"one without an address", message(t, typeDiscover, nil), card(), false},
		{"a relayed message on one that has another", message(t, typeDiscover, relayed), card("10.99.0.1/24"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer()
			s.Addresses = []netip.Addr{server}
			if _, _, ok := s.handle(tt.in, arrival{Interface: tt.card}); ok != tt.want {
				t.Errorf("answered: %v", ok)
			}
		})
	}
}

func TestAnswerReceivesADecline(t *testing.T) {
	for typ, want := range map[messageType]bool{typeDecline: true, typeDiscover: false, typeRelease: false} {
		s := newServer()
		s.Answer = func(r *Request) (Lease, error) {
			if r.Declined != want {
				t.Errorf("type %d: declined %v", typ, r.Declined)
			}
			return lease(), nil
		}
		s.handle(message(t, typ, nil, option(50, mine.AsSlice()), option(54, server.AsSlice())), arrival{})
	}
}

func TestAnAnswerHasTheLease(t *testing.T) {
	relayed := func(m *layers.DHCPv4) { m.RelayAgentIP, m.Flags = relay.AsSlice(), 0x8000 }
	ask := message(t, typeRequest, relayed, option(50, mine.AsSlice()),
		option(61, []byte{1, 2, 3}), option(82, []byte{1, 2, 'a', 'b'}), option(97, []byte("\x00uuid")))
	out, _, ok := newServer().handle(ask, arrival{})
	if !ok {
		t.Fatal("no answer")
	}
	m, got := decode(t, out)
	want := map[uint8]string{
		1: "\xff\xff\xff\x00", 3: "\x0a\x4d\x00\x01", 6: "\x0a\x4d\x00\x01\x0a\x4d\x00\x63",
		12: "n01", 15: "small.example", 26: "\x23\x28", 51: "\xff\xff\xff\xff", 53: "\x05", 54: "\x0a\x4d\x00\x01",
		61: "\x01\x02\x03", 82: "\x01\x02ab", 97: "\x00uuid", 224: "dim.node=n01",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	file := string(m.File[:len("undionly.kpxe")+1])
	if !m.YourClientIP.Equal(mine.AsSlice()) || !m.NextServerIP.Equal(server.AsSlice()) ||
		file != "undionly.kpxe\x00" || !m.RelayAgentIP.Equal(relay.AsSlice()) || m.Flags != 0x8000 {
		t.Errorf("header: %+v", m)
	}
}

func TestTheAnswerToInformHasNoAddressAndNoLeaseTime(t *testing.T) {
	inform := message(t, typeInform, func(m *layers.DHCPv4) { m.ClientIP = mine.AsSlice() })
	out, _, _ := newServer().handle(inform, arrival{})
	m, options := decode(t, out)
	if !m.YourClientIP.Equal(net.IPv4zero) || options[51] != "" || options[12] != "n01" {
		t.Errorf("%+v", m)
	}
}

func TestTheBootFileIsAnOptionIfItIsLongOrAskedFor(t *testing.T) {
	s := newServer()
	long := "http://10.77.0.1/" + string(make([]byte, 0, 200))
	for len(long) < 200 {
		long += "x"
	}
	l := lease()
	s.Answer = func(*Request) (Lease, error) { return l, nil }
	l.BootFile = long
	out, _, _ := s.handle(message(t, typeDiscover, nil), arrival{})
	if m, options := decode(t, out); options[67] != long || m.File[0] != 0 {
		t.Errorf("option 67 %q, file %q", options[67], m.File)
	}
	l.BootFile = "ipxe.efi"
	out, _, _ = s.handle(message(t, typeDiscover, nil, option(55, []byte{1, 66, 67})), arrival{})
	m, options := decode(t, out)
	if options[67] != "ipxe.efi" || options[66] != "10.77.0.1" || string(m.File[:8]) != "ipxe.efi" {
		t.Errorf("options 66 %q, 67 %q, file %q", options[66], options[67], m.File)
	}
}

func TestParse(t *testing.T) {
	b := message(t, typeDiscover, nil,
		option(93, []byte{0, 7}), option(60, []byte("PXEClient:Arch:00007:UNDI:003016")),
		option(77, []byte("\x04iPXE")),
		option(12, []byte("a\x1b[2Jb")), option(50, []byte{1, 2, 3}))
	r, err := parse(b, arrival{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Arch{7}, r.Archs); d != "" {
		t.Error(d)
	}
	if r.VendorClass != "PXEClient:Arch:00007:UNDI:003016" || r.UserClass != "iPXE" || !r.IPXE ||
		r.HostName != "a.[2Jb" || r.Wanted.IsValid() {
		t.Errorf("%+v", r)
	}
}

func TestTheListOfUnknownMachinesIsBounded(t *testing.T) {
	s := newServer()
	for i := range 30 {
		unknown := func(m *layers.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, byte(i)} }
		for range 2 {
			m := message(t, typeDiscover, unknown, option(60, []byte("PXEClient")),
				option(97, []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")),
				option(82, []byte("\x01\x05ge-01\x02\x02\x00\x1f")))
			s.handle(m, arrival{Interface: Interface{Name: "eth1"}})
		}
	}
	list := s.Machines.List()
	if len(list) != 10 {
		t.Fatalf("%d machines, want 10", len(list))
	}
	now := time.Unix(1e9, 0)
	want := Machine{
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 29}, First: now, Last: now, Count: 2, Reason: "not in the description",
		VendorClass: "PXEClient", Interface: Interface{Name: "eth1"},
		UUID: "01020304-0506-0708-090a-0b0c0d0e0f10", Port: "ge-01 of 001f",
	}
	if d := cmp.Diff(want, list[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	s.Answer = func(*Request) (Lease, error) { return lease(), nil }
	s.handle(message(t, typeDiscover, func(m *layers.DHCPv4) { m.ClientHWAddr = list[0].MAC }), arrival{})
	if n := len(s.Machines.List()); n != 9 {
		t.Errorf("a machine that is known now is still listed: %d", n)
	}
}

func TestClientsOfAnotherServerAreNeitherAnsweredNorListed(t *testing.T) {
	s := newServer()
	s.Answer = func(*Request) (Lease, error) { return Lease{}, &NotMineError{"is1 serves it"} }
	if _, _, ok := s.handle(message(t, typeDiscover, nil), arrival{}); ok || len(s.Machines.List()) != 0 {
		t.Errorf("answered: %v, listed: %v", ok, s.Machines.List())
	}
}

func FuzzHandle(f *testing.F) {
	f.Add(message(f, typeDiscover, nil,
		option(93, []byte{0, 0}), option(55, []byte{1, 3, 66, 67}), option(97, make([]byte, 17))))
	f.Add(message(f, typeRequest, nil,
		option(50, mine.AsSlice()), option(54, server.AsSlice()), option(82, make([]byte, 255))))
	f.Add(message(f, typeInform, func(m *layers.DHCPv4) { m.ClientIP = mine.AsSlice() },
		option(77, []byte("\x04iPXE")), option(93, []byte{0})))
	f.Add(message(f, typeDiscover, func(m *layers.DHCPv4) { m.RelayAgentIP = relay.AsSlice() },
		option(82, []byte{5, 4, 10, 77, 0, 0, 11, 4, 10, 77, 0, 254, 19, 0}), option(118, []byte{10, 77, 0, 0})))
	f.Add(make([]byte, 236))
	f.Add(make([]byte, 240))
	f.Add([]byte{1, 1, 6})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newServer()
		s.Answer = func(*Request) (Lease, error) { return lease(), nil }
		out, to, ok := s.handle(b, arrival{})
		if !ok {
			return
		}
		if len(out) < 300 || !to.addr.IsValid() {
			t.Errorf("answer of %d bytes to %v", len(out), to.addr)
		}
	})
}
