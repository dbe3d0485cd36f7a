package dhcpconf

import (
	"fmt"
	"maps"
	"net"
	"slices"
)

// dnsmasqStart is what holds for all networks: no DNS, and clients are known by their hardware address alone.
const dnsmasqStart = `port=0
dhcp-authoritative
dhcp-ignore-clid
no-ping
dhcp-match=set:dim-ipxe,175
dhcp-userclass=set:dim-ipxe,iPXE
dhcp-match=set:dim-arch,93
dhcp-match=set:dim-vendor,60`

// dnsmasq writes a part of dnsmasq.conf. Pools, classes and networks are tags.
func dnsmasq(c *config) []byte {
	var t text
	t.printf("# "+header, c.Name)
	t.printf("%s", dnsmasqStart)
	if c.Domain != "" {
		t.printf("domain=%s", c.Domain)
	}
	for _, n := range c.networks {
		t.dnsmasqNetwork(n)
	}
	for _, p := range c.pools {
		t.printf("\n# %s", p.about)
		for _, x := range p.classes {
			t.dnsmasqClass(p, &x)
		}
	}
	t.printf("\n# cards of nodes")
	for _, n := range c.networks {
		for _, h := range n.hosts {
			tag := ""
			if h.pool != nil {
				tag = ",set:" + h.pool.name
			}
			own := h.settings()
			if len(own) > 0 {
				tag += ",set:dim-host-" + h.name()
			}
			for _, o := range own {
				t.printf("dhcp-option=tag:dim-host-%s,%d,%s", h.name(), o.code, o.value)
			}
			t.printf("dhcp-host=%s%s,%s,%s,infinite", h.mac(), tag, h.card.Address, h.node.Name)
		}
	}
	return t.Bytes()
}

// dnsmasqNetwork writes a network. An option without a value is not sent: dnsmasq would send its own address.
func (t *text) dnsmasqNetwork(n *network) {
	tag := fmt.Sprintf("dim-net-%d", n.id)
	t.printf("\n# network %s", n.Name)
	t.printf("dhcp-range=set:%s,%s,static,%s,infinite", tag, n.Subnet.Masked().Addr(),
		net.IP(net.CIDRMask(n.Subnet.Bits(), 32)))
	option := func(name, value string) {
		if value != "" {
			value = "," + value
		}
		t.printf("dhcp-option=tag:%s,option:%s%s", tag, name, value)
	}
	gateway := ""
	if n.router.IsValid() {
		gateway = n.router.String()
	}
	option("router", gateway)
	option("dns-server", join(ipv4(n.DNS)))
	if n.MTU != 0 {
		option("mtu", fmt.Sprint(n.MTU))
	}
}

// dnsmasqClass writes what recognizes a class, and what its clients get.
func (t *text) dnsmasqClass(p *pool, x *class) {
	t.printf("# %s", x.Name)
	tags := "tag:" + p.name
	switch {
	case x.IPXE:
		tags += ",tag:dim-ipxe"
	case x.Silent && x.Vendor == "":
		tags += ",tag:!dim-ipxe,tag:!dim-arch,tag:!dim-vendor"
	case x.Silent:
		t.printf("dhcp-vendorclass=set:%s,%s", x.name, x.Vendor)
		tags += ",tag:!dim-ipxe,tag:!dim-arch,tag:" + x.name
	default:
		tags += ",tag:!dim-ipxe,tag:" + x.name
		for _, a := range x.Archs {
			t.printf("dhcp-match=set:%s,option:client-arch,%d", x.name, a)
			if said := x.saidByVendor(a); said != "" {
				t.printf("dhcp-vendorclass=set:%s,%s", x.name, said)
			}
		}
		if x.Vendor != "" {
			t.printf("dhcp-vendorclass=set:%s-vendor,%s", x.name, x.Vendor)
			tags += ",tag:" + x.name + "-vendor"
		}
	}
	t.dnsmasqBoot(tags, x)
}

// dnsmasqBoot writes what clients with these tags get.
func (t *text) dnsmasqBoot(tags string, x *class) {
	if x.NextServer.IsValid() {
		t.printf("dhcp-boot=%s,%s,,%s", tags, x.BootFile, x.NextServer)
	} else {
		t.printf("dhcp-boot=%s,%s", tags, x.BootFile)
	}
	for _, code := range slices.Sorted(maps.Keys(x.Options)) {
		value := hexBytes(x.Options[code], ":")
		if slices.Contains([]uint8{60, 209, 210}, code) { // texts
			value = string(x.Options[code])
		}
		t.printf("dhcp-option-force=%s,%d,%s", tags, code, value)
	}
}
