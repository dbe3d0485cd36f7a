package migrate

import (
	"testing"
)

func TestXCATTables(t *testing.T) {
	expect(t, imported(t, "xcat", "xcat"), []string{
		`domain="lab.example"`,
		`<network name="mgt" subnet="10.3.0.0/16" subnet6="fd00:3::/64" gateway6="fd00:3::ffff" `,
		`<network name="ipoib" subnet="10.4.0.0/16" mtu="2044" dns="10.3.0.2 10.3.0.3"/>`,
		`<interface network="mgt" address="10.3.0.1"/>`,
		`<image name="rocky9-compute" arch="amd64" master="dir:/install/netboot/rocky9.4/x86_64/compute/rootimg">`,
		`<kernel append="quiet console=tty0 console=ttyS1,115200n8r"/>`,
		`master="dir:/install/netboot/rocky9.4/x86_64/login/rootimg"`,
		`<nodes name="a{rack:02}n{node:02}" each="rack node" image="rocky9-compute" servers="head">`,
		`<interface name="eno1" network="mgt" address="10.3.{rack}.{10+node}"/>`,
		`<interface name="ib0" network="ipoib" address="10.4.{rack}.{10+node}" type="infiniband"/>`,
		`address="10.3.200.1" mac="02:00:00:00:03:01" address6="fd00:3::c8:1"`,
		`<interface name="ib0" network="ipoib" address="10.4.200.1" mac="02:00:00:00:03:02"/>`,
		`<group name="rack1" nodes="a01n[01-03]"/>`,
	}, []string{
		"switch.csv:1: the table is not carried over: ports of switches are not declared",
		"mac.csv:2: the hardware address 02:00:00:00:11:01 of node a01n01 is not carried over: its card has no address",
		`mac.csv:7: the hardware address "zz:1" of node login1 is not carried over: it is not one`,
		"nics.csv:2: the card bmc of node a01n01 is not carried over: power is not managed here",
		"hosts.csv:3: the interface web of node login1 is not carried over: its name is not that of the node",
		"hosts.csv:3: the card bmc of node login1 is not carried over: power is not managed here",
		"networks.csv:2: dynamicrange of mgt is not carried over, nor of others: only declared nodes get addresses",
		"networks.csv:5: the IPv6 subnet fd00:9::/64 is not carried over: no card has an address in it",
		`hosts.csv:3: an address in "10.3.200.1|fd00:3::c8:1|10.3.200.3" of node login1 is not carried over: a card`,
		"nodelist.csv:10: the nodes pdu1,sw1 are not carried over: xCAT boots only what is of type osi, or",
		"linuximage.csv:2: exlist of rocky9-compute is not carried over, nor of others: dim image import xcat",
		`noderes.csv:3: servicenode of rack2 is not carried over, nor of others: write servers="…"`,
		"nodehm.csv:2: mgt of compute is not carried over, nor of others: power is not managed here",
	})
}

func TestXCATStanzas(t *testing.T) {
	expect(t, imported(t, "xcat", "lsdef"), []string{
		`domain="power.example"`, `<network name="mgt" subnet="10.3.0.0/24" gateway="10.3.0.254"/>`,
		`<server name="xm" roles="head image">`,
		`arch="ppc64le" master="dir:/install/netboot/rhels9.2.0/ppc64le/compute/rootimg"`,
		`<interface name="enp1s0" network="mgt" address="10.3.0.{10+node}" mac="02:00:00:00:01:{node:02x}"/>`,
		`<interface name="ib0" network="net2" address="10.4.0.{10+node}" type="infiniband"/>`,
		`<interface name="enp1s0.902" network="net3" address="10.6.0.{10+node}" vlan="902" on="enp1s0"/>`,
		`<group name="compute" nodes="p[1-2]"/>`,
	}, []string{
		"cluster.stanza:24: postscripts of p1 is not carried over, nor of others: put what",
		"cluster.stanza:62: objects of type policy are not carried over",
	})
}

func FuzzXCAT(f *testing.F) {
	fuzz(f, "xcat", seed(f, "lsdef", "cluster.stanza"), seed(f, "xcat", "networks.csv"),
		"#node,groups,provmethod,mac,nicips,ip\n"+
			"a1,g,x,1:2:3:4:5:6!a1|2:2:3:4:5:6!a1-b,\"a!1.2.3.4,b!1.2.3.5\",1.2.3.4\n"+
			"g,,,,,\"|a(\\d)|1.2.3.($1+3)|\"\n")
}
