package loadtest

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/testkit"
)

const description = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="10.77.0.0/16"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <taxonomy><level name="node" from="1" to="2"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
</cluster>`

// A simulated node gets what a real one gets, but for its address. Nobody else gets anything of it.
func TestSimulatedNodesAreAnsweredByDHCPWhileALoadTestLasts(t *testing.T) {
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(description)}))(t)
	policy := &boot.Policy{
		Server: "head", Cluster: func() *cluster.Cluster { return c },
		HasLoader: func(name string) bool { return name == "snponly.efi" }, Closed: func() error { return nil },
	}
	relay := netip.MustParseAddr("127.83.255.254")
	first := net.HardwareAddr{2, 0x53, 1, 2, 0, 0}
	client := func(mac net.HardwareAddr, relay netip.Addr) boot.Client {
		return boot.Client{MAC: mac, Relay: relay, Archs: []uint16{7}, VendorClass: "PXEClient:Arch:00007:UNDI:003016"}
	}
	h := &Host{}
	if _, ok, _ := h.DHCP(policy, client(first, relay)); ok {
		t.Error("it is answered without a load test")
	}
	if h.Admits(netip.MustParseAddrPort("127.83.0.1:1000")) {
		t.Error("its files are served without a load test")
	}
	h.active.Store(&session{dhcp: true, mac: first, Storm: control.Storm{Nodes: 2, As: "n01"}})
	l, ok, err := h.DHCP(policy, client(net.HardwareAddr{2, 0x53, 1, 2, 0, 1}, relay))
	if !ok || err != nil || l.Address != netip.MustParseAddr("198.18.0.1") || l.BootFile != "snponly.efi" ||
		l.HostName != "" || l.Server != netip.MustParseAddr("10.77.0.1") {
		t.Errorf("%+v, %t, %v", l, ok, err)
	}
	for name, c := range map[string]boot.Client{
		"a node that there is not":   client(net.HardwareAddr{2, 0x53, 1, 2, 0, 2}, relay),
		"another load test":          client(net.HardwareAddr{2, 0x53, 1, 3, 0, 1}, relay),
		"a real node":                client(net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 1}, relay),
		"a relay of another machine": client(first, netip.MustParseAddr("10.77.0.9")),
		"no relay":                   client(first, netip.Addr{}),
	} {
		if _, ok, _ := h.DHCP(policy, c); ok {
			t.Errorf("%s is answered", name)
		}
	}
	for client, want := range map[string]bool{
		"127.83.0.1:1000": true, "127.83.0.1:2000": false, "10.77.0.11:1000": false,
	} {
		if got := h.Admits(netip.MustParseAddrPort(client)); got != want {
			t.Errorf("%s gets a loader: %t", client, got)
		}
	}
	h.active.Store(&session{mac: first, Storm: control.Storm{Nodes: 2, As: "n01"}})
	if _, ok, _ := h.DHCP(policy, client(first, relay)); ok {
		t.Error("a server that answers no DHCP answers a simulated node")
	}
	if _, ok, err := func() (boot.Lease, bool, error) {
		h.active.Store(&session{dhcp: true, mac: first, Storm: control.Storm{Nodes: 2, As: "gone"}})
		return h.DHCP(policy, client(first, relay))
	}(); !ok || !errors.Is(err, boot.ErrUnknown) {
		t.Errorf("after the node is removed: %t, %v", ok, err)
	}
}
