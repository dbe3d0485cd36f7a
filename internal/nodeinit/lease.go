package nodeinit

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// vendorClass tells the server who asks; it then sends wordsOption.
const vendorClass = "dim-init"

// wordsOption carries the words of the command line for firmware that passes none (a site-specific option, RFC 3942).
const wordsOption = dhcpv4.GenericOptionCode(224)

// Lease is what a DHCP server gave.
type Lease struct {
	Address  netip.Prefix
	Server   netip.Addr
	Router   netip.Addr // zero: none
	DNS      []netip.Addr
	HostName string
	Domain   string
	MTU      int    // 0: not said
	Words    string // of wordsOption
}

var (
	errNoAnswer = errors.New("no DHCP server answers")
	errRefused  = errors.New("the DHCP server takes its offer back")
)

// wire sends and receives IP packets on one card that has no address yet.
type wire interface {
	Send(packet []byte) error
	// Receive returns nil without an error when nothing comes until deadline.
	Receive(deadline time.Time) ([]byte, error)
	Close() error
}

// inquiry is one try to get an address on one card.
type inquiry struct {
	wire    wire
	mac     net.HardwareAddr
	prefer  netip.Addr // whose offer is taken at once; others' only when it makes none
	rand    *rand.Rand
	elapsed time.Duration // since the first try, for the field `secs`
}

// settle is how long an offer of another server waits for one of the server that booted the node.
const settle = time.Second

// ask performs DISCOVER, OFFER, REQUEST and ACK (RFC 2131 section 3.1). Each wait ends after patience.
func (q *inquiry) ask(patience time.Duration) (Lease, error) {
	xid := q.xid()
	offer, err := q.exchange(q.message(xid, dhcpv4.MessageTypeDiscover), patience, func(m *dhcpv4.DHCPv4) (bool, bool) {
		usable := m.MessageType() == dhcpv4.MessageTypeOffer && usableAddress(m)
		return usable, usable && (!q.prefer.IsValid() || serverOf(m) == q.prefer)
	})
	if err != nil {
		return Lease{}, err
	}
	request := q.message(xid, dhcpv4.MessageTypeRequest,
		dhcpv4.OptRequestedIPAddress(offer.YourIPAddr), dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	ack, err := q.exchange(request, patience, func(m *dhcpv4.DHCPv4) (bool, bool) {
		ok := serverOf(m) == serverOf(offer) &&
			(m.MessageType() == dhcpv4.MessageTypeAck && usableAddress(m) || m.MessageType() == dhcpv4.MessageTypeNak)
		return ok, ok
	})
	if err != nil {
		return Lease{}, err
	}
	if ack.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, errRefused
	}
	return leaseOf(ack), nil
}

// exchange sends m and waits for an answer. judge says whether an answer will do, and whether to look no further.
func (q *inquiry) exchange(
	m *dhcpv4.DHCPv4, patience time.Duration, judge func(*dhcpv4.DHCPv4) (usable, best bool),
) (*dhcpv4.DHCPv4, error) {
	if err := q.wire.Send(broadcast(m.ToBytes())); err != nil {
		return nil, err
	}
	var second *dhcpv4.DHCPv4
	deadline := time.Now().Add(patience)
	for {
		packet, err := q.wire.Receive(deadline)
		if err != nil {
			return nil, err
		}
		if packet == nil && second == nil {
			return nil, errNoAnswer
		}
		if packet == nil {
			return second, nil
		}
		answer := q.answer(packet, m.TransactionID)
		if answer == nil {
			continue
		}
		usable, best := judge(answer)
		switch {
		case best:
			return answer, nil
		case usable && second == nil:
			second = answer
			if early := time.Now().Add(settle); early.Before(deadline) {
				deadline = early
			}
		}
	}
}

// answer returns the DHCP reply in a packet, nil if it is something else or meant for another.
func (q *inquiry) answer(packet []byte, xid dhcpv4.TransactionID) *dhcpv4.DHCPv4 {
	payload := udpPayload(packet, clientPort)
	if payload == nil {
		return nil
	}
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != xid || !bytes.Equal(m.ClientHWAddr, q.mac) {
		return nil
	}
	return m
}

// message is made by hand: dhcpv4.New asks the kernel for random bytes, and that waits for minutes on a machine that
// has no source of entropy.
func (q *inquiry) message(xid dhcpv4.TransactionID, kind dhcpv4.MessageType, more ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, TransactionID: xid, ClientHWAddr: q.mac,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		NumSeconds: uint16(min(q.elapsed/time.Second, 0xffff)),
		Options:    make(dhcpv4.Options),
	}
	for _, o := range append(more,
		dhcpv4.OptMessageType(kind),
		dhcpv4.OptClassIdentifier(vendorClass),
		dhcpv4.OptMaxMessageSize(1472),
		dhcpv4.OptParameterRequestList(
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName,
			dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionIPAddressLeaseTime,
			dhcpv4.OptionServerIdentifier, wordsOption),
	) {
		m.UpdateOption(o)
	}
	return m
}

func (q *inquiry) xid() (id dhcpv4.TransactionID) {
	n := q.rand.Uint32()
	return dhcpv4.TransactionID{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// leaseOf reads a reply that is usable. Options that make no sense are left out: a node boots without them.
func leaseOf(m *dhcpv4.DHCPv4) Lease {
	addr, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
	mask := m.SubnetMask()
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		bits, _ = m.YourIPAddr.To4().DefaultMask().Size()
	}
	l := Lease{
		Address:  netip.PrefixFrom(addr, bits),
		Server:   serverOf(m),
		HostName: nameOption(m.HostName()),
		Domain:   nameOption(m.DomainName()),
		Words:    string(m.Options.Get(wordsOption)),
	}
	if r := m.Router(); len(r) > 0 {
		if a, ok := netip.AddrFromSlice(r[0].To4()); ok && l.Address.Contains(a) && a != addr {
			l.Router = a
		}
	}
	for _, d := range m.DNS() {
		if a, ok := netip.AddrFromSlice(d.To4()); ok {
			l.DNS = append(l.DNS, a)
		}
	}
	if b := m.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if n := int(b[0])<<8 | int(b[1]); validMTU(n) {
			l.MTU = n
		}
	}
	return l
}

func usableAddress(m *dhcpv4.DHCPv4) bool {
	a, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	return ok && a.IsGlobalUnicast()
}

func serverOf(m *dhcpv4.DHCPv4) netip.Addr {
	a, _ := netip.AddrFromSlice(m.ServerIdentifier().To4())
	return a
}

// nameOption lets through what can be in a host or domain name; some servers end options with a zero byte.
func nameOption(s string) string {
	for len(s) > 0 && s[len(s)-1] == 0 {
		s = s[:len(s)-1]
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' {
			return ""
		}
	}
	if len(s) > 253 {
		return ""
	}
	return s
}
