// Package dhcpconf writes the configurations of other DHCP servers: Kea, ISC dhcpd and dnsmasq. With them a node gets
// the address and the boot file that DIM's own DHCP would give it.
//
// # Concepts
//
// A host is a card of a node whose hardware address is known. A pool is the nodes that boot alike: those of one
// server, one network and one processor. The classes of a pool are those of boot.ClientClasses, so that both kinds of
// servers decide by one table.
//
// # What differs from our own answers
//
//   - Option 224, the words for dim-init, is sent to every client that requests it. Ours sends it to dim-init.
//   - Of several values of option 93 the first one counts, and its bytes are not exchanged.
//   - Firmware that cannot boot a node gets no boot file, as from ours, but nobody says why.
//
// # What it must not know
//
// How images are stored, and which loaders are installed.
package dhcpconf

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/cluster/export"
)

// Formats returns the formats, by name.
func Formats() []export.Format {
	return []export.Format{
		format("dnsmasq", "DHCP by dnsmasq, to include in dnsmasq.conf", "dim.conf", dnsmasq),
		format("isc-dhcp", "DHCP by ISC dhcpd, to include in dhcpd.conf", "dim.conf", iscDHCP),
		format("kea", "DHCP by Kea, as kea-dhcp4.conf", "kea-dhcp4.conf", kea),
	}
}

func format(name, about, file string, write func(*config) []byte) export.Format {
	return export.Format{Name: name, About: about, Files: func(c *cluster.Cluster, _ uint32) ([]export.File, error) {
		return []export.File{{Name: file, Data: write(newConfig(c))}}, nil
	}}
}

// config is what another DHCP server has to know.
type config struct {
	*cluster.Cluster
	networks []*network
	pools    []*pool
}

// network is a network of the description with IPv4 addresses, and the cards on it.
type network struct {
	*cluster.Network
	id     int        // from 1
	router netip.Addr // of all hosts; zero: hosts have their own, or none
	hosts  []host
	pools  []*pool // of its hosts
}

// host is a card of a node.
type host struct {
	node *cluster.Node
	card *cluster.Interface
	on   *network
	pool *pool // nil: the node does not boot from this card

	words string // for dim-init
}

// name is unique among all hosts.
func (h *host) name() string {
	if h.pool != nil {
		return string(h.node.Name)
	}
	return string(h.node.Name) + "-" + h.card.Name
}

// setting is an option of a host: by number, and by name as Kea and dhcpd have it.
type setting struct {
	code        uint8
	name, value string
	text        bool // it is a text, and only sent if the client requests it
}

// The option with the words for dim-init. A kernel that SLOF loads gets no command line, so that it has them from here.
const (
	wordsCode = 224
	wordsName = "dim-words"
)

// settings returns the options of a host that differ from those of its network, and its words.
func (h *host) settings() (list []setting) {
	n := h.card.Network
	if h.card.Gateway.IsValid() && h.card.Gateway != h.on.router {
		list = append(list, setting{code: 3, name: "routers", value: h.card.Gateway.String()})
	}
	if own := ipv4(h.node.DNS); h.pool != nil && len(own) > 0 && !slices.Equal(own, ipv4(n.DNS)) {
		list = append(list, setting{code: 6, name: "domain-name-servers", value: join(own)})
	}
	if h.card.MTU != n.MTU && h.card.MTU != 0 {
		list = append(list, setting{code: 26, name: "interface-mtu", value: fmt.Sprint(h.card.MTU)})
	}
	if h.words != "" {
		list = append(list, setting{wordsCode, wordsName, h.words, true})
	}
	return list
}

// mac returns the hardware address.
func (h *host) mac() net.HardwareAddr { return h.card.MAC }

// pool is nodes that boot alike.
type pool struct {
	name    string // unique: "dim-1"
	about   string
	classes []class
}

// class is a class of clients in a pool.
type class struct {
	boot.ClientClass
	name string // unique: "dim-1-ipxe"
}

// poolKey is what the classes of a node depend on.
type poolKey struct {
	server  cluster.ServerName
	network string
	arch    string
}

func newConfig(c *cluster.Cluster) *config {
	conf := &config{Cluster: c}
	at := map[string]*network{}
	for _, n := range c.Networks {
		if n.Subnet.Addr().Is4() {
			at[n.Name] = &network{Network: n, id: len(conf.networks) + 1, router: n.Gateway}
			conf.networks = append(conf.networks, at[n.Name])
		}
	}
	pools := map[poolKey]*pool{}
	for _, n := range c.Nodes {
		for i, card := range n.Interfaces {
			if len(card.MAC) != 6 || !card.Address.Is4() {
				continue
			}
			network := at[card.Network.Name]
			h := host{node: n, card: card, on: network}
			if i == 0 {
				h.pool, h.words = conf.poolOf(n, pools), wordsOf(c, n)
				if !slices.Contains(network.pools, h.pool) {
					network.pools = append(network.pools, h.pool)
				}
			}
			if network.hosts = append(network.hosts, h); card.Gateway != network.Gateway {
				network.router = netip.Addr{}
			}
		}
	}
	return conf
}

// wordsOf returns the words that dim-init gets from our own DHCP, "" if it gets none.
func wordsOf(c *cluster.Cluster, n *cluster.Node) string {
	p := boot.Policy{
		Server: n.Server().Name, Cluster: func() *cluster.Cluster { return c },
		HasLoader: func(string) bool { return true }, Closed: func() error { return nil },
	}
	a, err := p.DHCP(boot.Client{MAC: n.Boot().MAC, VendorClass: "dim-init"})
	if err != nil {
		return ""
	}
	return string(a.Lease.Options[wordsCode])
}

// poolOf returns the pool of a node. It makes the pool if the node is the first one in it.
func (c *config) poolOf(n *cluster.Node, pools map[poolKey]*pool) *pool {
	key := poolKey{n.Server().Name, n.Boot().Network.Name, n.Image.Arch}
	if p := pools[key]; p != nil {
		return p
	}
	p := &pool{
		name:  fmt.Sprintf("dim-%d", len(c.pools)+1),
		about: fmt.Sprintf("nodes of server %s on network %s, %s", key.server, key.network, key.arch),
	}
	for _, x := range boot.ClientClasses(n) {
		p.classes = append(p.classes, class{x, p.name + "-" + label(x.Name)})
	}
	pools[key], c.pools = p, append(c.pools, p)
	return p
}

// label makes a name for programs out of one for people.
func label(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "-")
}

// header says where a file comes from.
const header = "Nodes of cluster %s, written by dim cluster export."

// text is a configuration in lines.
type text struct{ bytes.Buffer }

func (t *text) printf(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// hexBytes writes bytes in hexadecimal with a separator.
func hexBytes(b []byte, separator string) string {
	words := make([]string, len(b))
	for i, x := range b {
		words[i] = fmt.Sprintf("%02x", x)
	}
	return strings.Join(words, separator)
}

// ipv4 returns the IPv4 addresses of a list: DHCP has no others.
func ipv4(addrs []netip.Addr) (own []netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			own = append(own, a)
		}
	}
	return own
}

// join joins addresses with commas.
func join(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// saidByVendor returns how option 60 begins if a ROM that sends no option 93 names an architecture in it, "" if the
// class is none of such ROMs.
func (x *class) saidByVendor(arch uint16) string {
	if x.Vendor == "" {
		return ""
	}
	return fmt.Sprintf("%s:Arch:%05d", x.Vendor, arch)
}
