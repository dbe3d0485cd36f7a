package dhcpconf

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// iscStart defines the options that ISC dhcpd does not know, or knows as another type. Leases end after a year: dhcpd
// computes wrong times for leases that do not end.
const iscStart = `option dim-arch code 93 = string;
option dim-ipxe code 175 = string;
option dim-config code 209 = string;
option dim-prefix code 210 = string;
option dim-words code 224 = text;
authoritative;
default-lease-time 31536000;
max-lease-time 31536000;`

// iscNames are options as dhcpd calls them.
func iscNames() map[uint8]string {
	return map[uint8]string{
		43: "vendor-encapsulated-options", 60: "vendor-class-identifier", 175: "dim-ipxe", 209: "dim-config",
		210: "dim-prefix",
	}
}

// iscDHCP writes a part of dhcpd.conf. Hosts of a pool are in one group, and dhcpd evaluates the conditions of a group
// only for its hosts.
func iscDHCP(c *config) []byte {
	var t text
	t.printf("# "+header, c.Name)
	t.printf("%s", iscStart)
	if c.Domain != "" {
		t.printf("option domain-name %q;", c.Domain)
	}
	for _, n := range c.networks {
		t.iscSubnet(n)
	}
	for _, p := range c.pools {
		t.iscPool(c, p)
	}
	t.printf("\n# cards from which nodes do not boot")
	for _, n := range c.networks {
		for _, h := range n.hosts {
			if h.pool == nil {
				t.iscHost(&h, "")
			}
		}
	}
	return t.Bytes()
}

func (t *text) iscSubnet(n *network) {
	t.printf("\n# network %s\nsubnet %s netmask %s {", n.Name, n.Subnet.Masked().Addr(),
		net.IP(net.CIDRMask(n.Subnet.Bits(), 32)))
	if n.router.IsValid() {
		t.printf("  option routers %s;", n.router)
	}
	if dns := ipv4(n.DNS); len(dns) > 0 {
		t.printf("  option domain-name-servers %s;", join(dns))
	}
	if n.MTU != 0 {
		t.printf("  option interface-mtu %d;", n.MTU)
	}
	t.printf("}")
}

func (t *text) iscPool(c *config, p *pool) {
	t.printf("\n# %s\ngroup {", p.about)
	word := "if"
	for _, x := range p.classes {
		t.printf("  %s %s { # %s", word, iscTest(&x), x.Name)
		if x.NextServer.IsValid() {
			t.printf("    next-server %s;", x.NextServer)
		}
		if x.BootFile != "" {
			t.printf("    filename %q;", x.BootFile)
		}
		t.iscOptions(x.Options)
		t.printf("  }")
		word = "elsif"
	}
	for _, n := range c.networks {
		for _, h := range n.hosts {
			if h.pool == p {
				t.iscHost(&h, "  ")
			}
		}
	}
	t.printf("}")
}

// iscOptions writes options that are sent whether the client asks for them or not.
func (t *text) iscOptions(options map[uint8][]byte) {
	codes := slices.Sorted(maps.Keys(options))
	for _, code := range codes {
		t.printf("    option %s %s;", iscNames()[code], iscValue(code, options[code]))
	}
	if len(codes) > 0 {
		t.printf("    option dhcp-parameter-request-list = concat(option dhcp-parameter-request-list, %s);",
			hexBytes(codes, ":"))
	}
}

// iscValue returns the value of an option: a text in quotation marks for option 60, bytes for all others.
func iscValue(code uint8, v []byte) string {
	if code == 60 {
		return fmt.Sprintf("%q", v)
	}
	return hexBytes(v, ":")
}

// iscTest returns the condition of a class as an expression of dhcpd.
func iscTest(x *class) string {
	const ipxe = `exists dim-ipxe or substring(option user-class, 0, 4) = "iPXE" or ` +
		`substring(option user-class, 1, 4) = "iPXE"`
	if x.IPXE {
		return ipxe
	}
	var tests []string // the class of iPXE is the first one, so that others need not exclude it
	if x.Vendor != "" {
		tests = append(tests,
			fmt.Sprintf("substring(option vendor-class-identifier, 0, %d) = %q", len(x.Vendor), x.Vendor))
	}
	if x.Silent {
		tests = append(tests, "not exists dim-arch")
		if x.Vendor == "" {
			tests = append(tests, "not exists vendor-class-identifier")
		}
		return strings.Join(tests, " and ")
	}
	var archs []string
	for _, a := range x.Archs {
		archs = append(archs, fmt.Sprintf("substring(option dim-arch, 0, 2) = %02x:%02x", a>>8, a&0xff))
		if said := x.saidByVendor(a); said != "" {
			archs = append(archs, fmt.Sprintf(
				"(not exists dim-arch and substring(option vendor-class-identifier, 0, %d) = %q)", len(said), said))
		}
	}
	return strings.Join(append(tests, "("+strings.Join(archs, " or ")+")"), " and ")
}

func (t *text) iscHost(h *host, indent string) {
	own := ""
	for _, o := range h.settings() {
		if o.text {
			o.value = strconv.Quote(o.value)
		}
		own += fmt.Sprintf(" option %s %s;", o.name, o.value)
	}
	t.printf("%shost %s { hardware ethernet %s; fixed-address %s; option host-name %q;%s }",
		indent, h.name(), h.mac(), h.card.Address, h.node.Name, own)
}
