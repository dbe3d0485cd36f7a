package daemon

import (
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/packet"

	"dim/internal/control"
	"dim/internal/testkit"
)

// A client on InfiniBand has no hardware address that fits into a message: it sends none, wants answers by broadcast,
// and its identifier ends with the GUID of its port (RFC 4390 section 2.1). No InfiniBand is needed for its messages.
func TestAClientOnInfiniBandBecomesACardOfANode(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.describe(`<node name="fast" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.90" mac="52:54:00:4d:00:90"/>
    <interface name="ib0" network="boot" address="10.77.0.91" type="infiniband"/>
  </node>
`, `dhcp="off" `, "", "127.0.0.0/8", "10.77.0.0/24", `"127.0.0.{`, `"10.77.0.{`)
	s.start()
	m := newMachine(t, "52:54:00:00:00:99") // a gateway between the two
	message := func(guid string, kind dhcpv4.MessageType, options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
		t.Helper()
		out := testkit.Value(dhcpv4.New())(t)
		out.HWType, out.ClientHWAddr = iana.HWTypeInfiniband, nil
		out.SetBroadcast()
		port := testkit.Value(net.ParseMAC(guid))(t)
		id := append([]byte("\xff\x00\x4d\x00\x01"), "\x00\x03\x00\x20"...)    // an IAID, and a DUID of
		id = append(id, "\x80\x00\x02\x08\xfe\x80\x00\x00\x00\x00\x00\x00"...) // the 20 bytes of the address
		options = append(options, dhcpv4.OptMessageType(kind), dhcpv4.OptClientIdentifier(append(id, port...)))
		for _, o := range options {
			out.UpdateOption(o)
		}
		return out
	}
	bind := func(guid string, r control.LearnRequest) {
		t.Helper()
		unknown := m.dhcpFrame(message(guid, dhcpv4.MessageTypeDiscover))
		testkit.Value(m.conn.WriteTo(unknown, &packet.Addr{HardwareAddr: unknown[:6]}))(t)
		r.Machines = []control.Machine{s.unknownMachine(guid)}
		done := testkit.Value(s.client().Learn(t.Context(), r))(t)
		if len(done.Bound) != 1 || done.Bound[0].Node != "fast" || done.Bound[0].Interface != "ib0" {
			t.Errorf("bound: %+v", done)
		}
		offer := m.dhcp(message(guid, dhcpv4.MessageTypeDiscover))
		if offer == nil || offer.YourIPAddr.String() != "10.77.0.91" || !offer.IsBroadcast() ||
			offer.HWType != iana.HWTypeInfiniband || len(offer.ClientHWAddr) != 0 {
			t.Fatalf("the offer is %v", offer)
		}
		ack := m.dhcp(message(guid, dhcpv4.MessageTypeRequest, dhcpv4.OptRequestedIPAddress(offer.YourIPAddr),
			dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
		if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.YourIPAddr.String() != "10.77.0.91" {
			t.Errorf("the acknowledgement is %v", ack)
		}
	}
	bind("00:02:c9:03:00:4d:00:01", control.LearnRequest{Mode: control.LearnFree})
	bind("00:02:c9:03:00:4d:00:02", control.LearnRequest{Mode: control.LearnRebind, Nodes: "fast"})
}
