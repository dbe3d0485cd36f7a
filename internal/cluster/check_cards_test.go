package cluster

import (
	"strings"
	"testing"
)

// The network cards of a node beside eth0.
const (
	eth1 = `<interface name="eth1" mac="52:54:00:4d:01:01"/>`
	eth2 = `<interface name="eth2" mac="52:54:00:4d:02:01"/>`
	bond = `<interface name="bond0" bond="active-backup" on="eth1 eth2" network="ib" address="10.78.0.11"/>`
	vlan = `<interface name="stor" vlan="902" on="eth0" network="ib" address="10.78.0.11"/>`
	guid = "00:02:c9:03:00:4d:00:01"
	ib0  = `<interface name="ib0" network="ib" address="10.78.0.11" mac="` + guid + `"/>`
)

// changed replaces texts in interfaces.
func changed(interfaces string, oldnew ...string) string {
	return strings.NewReplacer(oldnew...).Replace(interfaces)
}

// withIPv6 are the changes that give the boot network and the node addresses of IPv6.
func withIPv6() []string {
	return []string{`name="boot" subnet="10.77.0.0/24"`,
		`name="boot" subnet="10.77.0.0/24" subnet6="2001:db8:77::/64" gateway6="2001:db8:77::fe"`,
		`address="10.77.0.11"`, `address="10.77.0.11" address6="2001:db8:77::11"`}
}

func TestCardsOfRealNodes(t *testing.T) {
	c, err := parseCards(good+eth1+eth2+changed(bond, "/>", ` mtu="9000" gateway="10.78.0.254"/>`)+
		changed(vlan, "10.78.0.11", "10.79.0.11", `"ib"`, `"stor"`), append(withIPv6(),
		`<server `, `<network name="stor" subnet="10.79.0.0/24" mtu="1500"/><server `,
		`image="compute" servers`, `image="compute" dns="10.77.0.5 2001:db8::53" servers`)...)
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes[0]
	boot, bonded, tagged := n.Interface("eth0"), n.Interface("bond0"), n.Interface("stor")
	if boot.Gateway.String() != "10.77.0.254" || boot.Gateway6.String() != "2001:db8:77::fe" ||
		boot.Address6.String() != "2001:db8:77::11" {
		t.Errorf("eth0 is %+v", boot)
	}
	if bonded.MTU != 9000 || bonded.Gateway.String() != "10.78.0.254" || bonded.Bond != "active-backup" ||
		len(bonded.On) != 2 || bonded.On[1] != n.Interface("eth2") || n.Interface("eth1").Network != nil {
		t.Errorf("bond0 is %+v", bonded)
	}
	if tagged.VLAN != 902 || len(tagged.On) != 1 || tagged.On[0] != boot || tagged.MTU != 1500 ||
		tagged.Gateway.IsValid() {
		t.Errorf("stor is %+v", tagged)
	}
	if len(n.DNS) != 2 || n.DNS[0].String() != "10.77.0.5" {
		t.Errorf("name servers: %v", n.DNS)
	}
	if len(c.Warnings()) != 0 {
		t.Errorf("warnings: %v", c.Warnings())
	}
}

// The name of a card is the node's name and the card's, which another machine may have.
func TestACardWithTheNameOfAMachineIsWarnedOf(t *testing.T) {
	for server, want := range map[string]int{"n01-eth1": 1, "N01-ETH1": 1, "head2": 0} {
		card := changed(vlan, "stor", "eth1", ` vlan="902" on="eth0"`, "")
		c, err := parseCards(good+card, `name="head"`, `name="`+server+`"`, `servers="head"`, `servers="`+server+`"`)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Warnings()); n != want {
			t.Errorf("%s: warnings: %v", server, c.Warnings())
		}
	}
}

// The subnet manager may give a port another queue pair number and another prefix. Its GUID stays.
func TestAnInfiniBandCardIsKnownByItsGUID(t *testing.T) {
	long := "80:00:02:08:fe:80:00:00:00:00:00:00:" + guid
	for _, mac := range []string{guid, long} {
		c, err := parseCards(good + changed(ib0, guid, mac))
		if err != nil {
			t.Fatal(err)
		}
		card := c.Nodes[0].Interface("ib0")
		n, found, ok := c.NodeByMAC([]byte{0, 2, 0xc9, 3, 0, 0x4d, 0, 1})
		if !ok || n != c.Nodes[0] || found != card || !card.InfiniBand {
			t.Errorf("%s: the GUID is %v of %v", mac, found, n)
		}
	}
	again := changed(ib0, "ib0", "ib1", `"ib"`, `"boot"`, "10.78.0.11", "10.77.0.12", guid, long)
	_, err := parseCards(good + ib0 + again)
	if err == nil || !strings.Contains(err.Error(), "is already used by node n01") {
		t.Errorf("two cards with one GUID: %v", err)
	}
}

type refusal struct{ name, cards, want string }

func refusals() []refusal {
	bonded := good + eth1 + eth2 + bond
	return []refusal{
		{"a VLAN to boot from", vlan + good, "the first interface is a VLAN"},
		{"a bond to boot from", bond + eth1 + eth2 + good, "the first interface is a bond"},
		{"InfiniBand to boot from", ib0 + good, "node n01 boots from ib0, which is InfiniBand"},
		{"InfiniBand to boot from, by its type", changed(good, "mac=", `type="infiniband" mac=`),
			"the first interface is InfiniBand: nodes boot from Ethernet"},
		{"a bond of the boot card", changed(bonded, "eth1 eth2", "eth0 eth1"),
			"the node boots from eth0, which cannot be in a bond"},
		{"a bond without cards", changed(bonded, ` on="eth1 eth2"`, ""), "bond bond0 has no cards"},
		{"a bond of what is not there", changed(bonded, "eth1 eth2", "eth1 eth7"),
			`on: interface "eth7" is not declared here`},
		{"a bond of itself", changed(bonded, "eth1 eth2", "eth1 bond0"), "or on itself"},
		{"a bond with a wrong mode", changed(bonded, "active-backup", "lacp"),
			`bond="lacp": must be one of active-backup, 802.3ad`},
		{"a member with an address", good + bond + changed(ib0, "ib0", "eth1") + eth2,
			"interface eth1 is in bond bond0: network and addresses are of the bond"},
		{"a VLAN on a member", bonded + changed(vlan, "eth0", "eth1", "0.11", "0.12"),
			"interface eth1 is in a bond, and something else is on it"},
		{"a bond and a VLAN at once", changed(bonded, "bond=", `vlan="3" bond=`), "bond0 is both a VLAN and a bond"},
		{"a VLAN on nothing", good + changed(vlan, ` on="eth0"`, ""), "VLAN stor must be on one interface"},
		{"a VLAN on two", good + eth1 + changed(vlan, "eth0", "eth0 eth1"), "VLAN stor must be on one interface"},
		{"a VLAN number", good + changed(vlan, "902", "4095"), `vlan="4095": must be 1 to 4094`},
		{"a VLAN on a VLAN", good + vlan + changed(vlan, "stor", "x", "eth0", "stor", "0.11", "0.12"),
			"VLAN x is on the VLAN stor"},
		{"a VLAN twice", good + vlan + changed(vlan, "stor", "x", "0.11", "0.12"), "VLAN 902 is on eth0 twice"},
		{"a VLAN on InfiniBand", good + ib0 + changed(vlan, "eth0", "ib0", "0.11", "0.12"),
			"VLAN stor is on InfiniBand, which has partitions instead"},
		{"a VLAN larger than its card",
			changed(good, "mac=", `mtu="1500" mac=`) + changed(vlan, "vlan=", `mtu="9000" vlan=`),
			"VLAN stor has the MTU 9000, and eth0 below has 1500"},
		{"a VLAN with a hardware address", good + changed(vlan, "vlan=", `mac="52:54:00:4d:01:09" vlan=`),
			"mac is of that card"},
		{"neither a VLAN nor a bond", good + changed(vlan, `vlan="902"`, ""), "neither a VLAN nor a bond"},
		{"no network", good + eth1, "<interface> has no attribute network"},
		{"an address without a network", good + changed(vlan, `network="ib"`, ""),
			"<interface> has no attribute network"},
		{"an InfiniBand bond by LACP", changed(bonded, "active-backup", "802.3ad", "52:54:00:4d:01:01", guid),
			"its mode can only be active-backup"},
		{"Ethernet's address on InfiniBand",
			good + changed(ib0, guid, "52:54:00:4d:07:01", "mac=", `type="infiniband" mac=`),
			"52:54:00:4d:07:01 is an address of Ethernet"},
		{"IPv6 only", changed(good, "10.77.0.11", "2001:db8::1"), "nodes boot by IPv4; an IPv6 address is in addition"},
		{"no IPv4 to boot", changed(good, "address=", "address6="), "the first interface has no address"},
		{"IPv6 without a subnet", changed(good, "mac=", `address6="2001:db8::1" mac=`),
			`network "boot" has no IPv6 addresses`},
		{"a gateway elsewhere", changed(good, "mac=", `gateway="10.9.9.9" mac=`),
			"node n01: gateway: address 10.9.9.9 is outside"},
		{"the loopback's name", changed(good, "eth0", "lo"), "no interface can be called lo"},
		{"a name of the kernel", good + changed(vlan, "stor", "all"), "no interface can be called all"},
		{"an alias", changed(good, "eth0", "eth0:1"), `name="eth0:1": must be the name of a network card`},
	}
}

func TestCardsThatCannotBeAreRefused(t *testing.T) {
	for _, tt := range refusals() {
		if _, err := parseCards(tt.cards); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := parseCards(good, `"10.78.0.0/24"`, `"2001:db8::/64"`); err == nil ||
		!strings.Contains(err.Error(), "nodes boot by IPv4") {
		t.Errorf("an IPv6 subnet: %v", err)
	}
}

func TestIPv6AddressesAreChecked(t *testing.T) {
	if _, err := parseCards(good, withIPv6()...); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"2001:db8:78::11": `outside network "boot" (2001:db8:77::/64)`, "2001:db8:77::": "that of all routers",
		"10.77.0.12": "is not an IPv6 address", "2001:db8:77::fe": "is the gateway", "x": "is not an IPv6 address",
	} {
		edit := withIPv6()
		edit[3] = strings.Replace(edit[3], "2001:db8:77::11", in, 1)
		if _, err := parseCards(good, edit...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}
