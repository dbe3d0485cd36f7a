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

// vendorClass is by what the server knows dim-init, and then sends wordsOption.
const vendorClass = "dim-init"

// wordsOption has the words of the command line, for firmware that passes none (a site-specific option, RFC 3942).
const wordsOption = dhcpv4.GenericOptionCode(224)

// lease is what a DHCP server gave.
type lease struct {
	Address  netip.Prefix
	Server   netip.Addr
	Router   netip.Addr // zero: none
	DNS      []netip.Addr
	HostName string
	Domain   string
	MTU      int    // 0: none
	Words    string // of wordsOption
}

var (
	errNoAnswer = errors.New("no DHCP server answers")
	errRefused  = errors.New("the DHCP server withdraws its offer")
)

// packetConn sends and receives IP packets on a card that has no address yet.
type packetConn interface {
	Send(packet []byte) error
	// Receive returns nil without an error when nothing comes until deadline.
	Receive(deadline time.Time) ([]byte, error)
	Close() error
}

// dhcpClient makes one try to get an address on one card.
type dhcpClient struct {
	conn      packetConn
	mac       net.HardwareAddr
	preferred netip.Addr // the server whose offer is taken at once; zero: any
	rand      *rand.Rand
	elapsed   time.Duration // since the first try, for the field `secs`
}

// preferredWait is how long an offer of another server waits for one of the preferred server.
const preferredWait = time.Second

// request performs DISCOVER, OFFER, REQUEST and ACK (RFC 2131 section 3.1). Each of the two waits ends after timeout.
func (c *dhcpClient) request(timeout time.Duration) (lease, error) {
	xid := c.newXID()
	offer, err := c.exchange(c.message(xid, dhcpv4.MessageTypeDiscover), timeout, func(m *dhcpv4.DHCPv4) (bool, bool) {
		usable := m.MessageType() == dhcpv4.MessageTypeOffer && usableAddress(m)
		return usable, usable && (!c.preferred.IsValid() || serverOf(m) == c.preferred)
	})
	if err != nil {
		return lease{}, err
	}
	request := c.message(xid, dhcpv4.MessageTypeRequest,
		dhcpv4.OptRequestedIPAddress(offer.YourIPAddr), dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	ack, err := c.exchange(request, timeout, func(m *dhcpv4.DHCPv4) (bool, bool) {
		ok := serverOf(m) == serverOf(offer) &&
			(m.MessageType() == dhcpv4.MessageTypeAck && usableAddress(m) || m.MessageType() == dhcpv4.MessageTypeNak)
		return ok, ok
	})
	if err != nil {
		return lease{}, err
	}
	if ack.MessageType() == dhcpv4.MessageTypeNak {
		return lease{}, errRefused
	}
	return leaseOf(ack), nil
}

// exchange sends m and waits for a reply. judge reports whether a reply is usable, and whether it is the best to
// expect; a usable one that is not waits for a better one, but not for long.
func (c *dhcpClient) exchange(
	m *dhcpv4.DHCPv4, timeout time.Duration, judge func(*dhcpv4.DHCPv4) (usable, best bool),
) (*dhcpv4.DHCPv4, error) {
	if err := c.conn.Send(broadcast(m.ToBytes())); err != nil {
		return nil, err
	}
	var fallback *dhcpv4.DHCPv4
	deadline := time.Now().Add(timeout)
	for {
		packet, err := c.conn.Receive(deadline)
		if err != nil {
			return nil, err
		}
		if packet == nil && fallback == nil {
			return nil, errNoAnswer
		}
		if packet == nil {
			return fallback, nil
		}
		reply := c.parseReply(packet, m.TransactionID)
		if reply == nil {
			continue
		}
		usable, best := judge(reply)
		switch {
		case best:
			return reply, nil
		case usable && fallback == nil:
			fallback = reply
			if early := time.Now().Add(preferredWait); early.Before(deadline) {
				deadline = early
			}
		}
	}
}

// parseReply returns the DHCP reply in a packet, or nil if it is something else or for another client.
func (c *dhcpClient) parseReply(packet []byte, xid dhcpv4.TransactionID) *dhcpv4.DHCPv4 {
	payload := udpPayload(packet, clientPort)
	if payload == nil {
		return nil
	}
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != xid {
		return nil
	}
	if !bytes.Equal(m.ClientHWAddr, c.mac) {
		return nil
	}
	return m
}

// message returns a message of the client. It does not use dhcpv4.New, which asks the kernel for random bytes: that
// takes minutes on a machine that has no source of entropy.
func (c *dhcpClient) message(xid dhcpv4.TransactionID, kind dhcpv4.MessageType, more ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, TransactionID: xid, ClientHWAddr: c.mac,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		NumSeconds: uint16(min(c.elapsed/time.Second, 0xffff)),
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

func (c *dhcpClient) newXID() (id dhcpv4.TransactionID) {
	n := c.rand.Uint32()
	return dhcpv4.TransactionID{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// leaseOf returns the lease in a usable reply. Invalid options are ignored: a node boots without them.
func leaseOf(m *dhcpv4.DHCPv4) lease {
	addr, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
	mask := m.SubnetMask()
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		bits, _ = m.YourIPAddr.To4().DefaultMask().Size()
	}
	l := lease{
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

// nameOption returns a host or domain name, or "" if the option is not one. Some servers end options with a zero byte.
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
