package cluster

import (
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// index holds the maps behind the look-ups. The builder makes it; a parsed Cluster never changes it.
type index struct {
	nodes      map[NodeName]*Node
	servers    map[ServerName]*Server
	images     map[ImageName]*Image
	groups     map[string]*Group
	macs       map[string]nodeInterface // by the bytes of the MAC
	addresses  map[netip.Addr]nodeInterface
	byPosition map[position][]*Node
	served     map[ServerName][]*Node // by the first of their servers
}

// nodeInterface is one interface of one node.
type nodeInterface struct {
	node *Node
	card *Interface
}

// position is a place in the taxonomy: "rack2" is {"rack", 2}.
type position struct {
	level  string
	number int
}

// Node returns the node of that name.
func (c *Cluster) Node(name NodeName) (*Node, bool) {
	n, ok := c.lookups().nodes[name]
	return n, ok
}

// NodesOf returns the nodes whose first server a server is, in order of Index. The caller must not change them.
func (c *Cluster) NodesOf(server ServerName) []*Node { return c.lookups().served[server] }

// Server returns the server of that name.
func (c *Cluster) Server(name ServerName) (*Server, bool) {
	s, ok := c.lookups().servers[name]
	return s, ok
}

// Image returns the image of that name.
func (c *Cluster) Image(name ImageName) (*Image, bool) {
	im, ok := c.lookups().images[name]
	return im, ok
}

// HostNames yields the cards of a machine that have a name on the network, and these names, without the cluster's
// domain. The first card has the machine's name, others MACHINE-CARD, and those without a name of their own, as servers
// have, MACHINE-NETWORK. Dots and underscores become hyphens, because host names have neither.
func HostNames(machine string, cards []*Interface) iter.Seq2[string, *Interface] {
	return func(yield func(string, *Interface) bool) {
		plain := strings.NewReplacer(".", "-", "_", "-")
		for i, card := range cards {
			name := machine
			switch {
			case i == 0:
			case card.Name != "":
				name += "-" + plain.Replace(card.Name)
			case card.Network != nil:
				name += "-" + plain.Replace(card.Network.Name)
			default:
				continue
			}
			if !yield(name, card) {
				return
			}
		}
	}
}

// NodeByMAC returns the node that has an interface with that hardware address, and the interface. Of an InfiniBand
// address only the GUID of the port counts.
func (c *Cluster) NodeByMAC(mac net.HardwareAddr) (*Node, *Interface, bool) {
	ni, ok := c.lookups().macs[hardwareKey(mac)]
	return ni.node, ni.card, ok
}

// NodeByAddress returns the node that has an interface with that address, and the interface. An IPv4-mapped IPv6
// address is looked up as the IPv4 address.
func (c *Cluster) NodeByAddress(a netip.Addr) (*Node, *Interface, bool) {
	ni, ok := c.lookups().addresses[a.Unmap()]
	return ni.node, ni.card, ok
}

// lookups returns the maps. A Cluster that was not made by Parse has none: they are built for each call, which is slow.
// They cannot be kept, because many goroutines read a Cluster and it has no lock.
func (c *Cluster) lookups() *index {
	if c.index != nil {
		return c.index
	}
	return newIndex(c)
}

// newIndex builds the maps of c. If several values have the same key, the first one is kept.
func newIndex(c *Cluster) *index {
	cards := 0
	for _, n := range c.Nodes {
		cards += len(n.Interfaces)
	}
	ix := &index{
		nodes:      make(map[NodeName]*Node, len(c.Nodes)),
		servers:    make(map[ServerName]*Server, len(c.Servers)),
		images:     make(map[ImageName]*Image, len(c.Images)),
		groups:     make(map[string]*Group, len(c.Groups)),
		macs:       make(map[string]nodeInterface, cards),
		addresses:  make(map[netip.Addr]nodeInterface, cards),
		byPosition: map[position][]*Node{},
		served:     map[ServerName][]*Node{},
	}
	for _, n := range c.Nodes {
		setFirst(ix.nodes, n.Name, n)
		if len(n.Servers) > 0 {
			first := n.Server().Name
			ix.served[first] = append(ix.served[first], n)
		}
		for level, number := range n.Position {
			at := position{level, number}
			ix.byPosition[at] = append(ix.byPosition[at], n)
		}
		for _, card := range n.Interfaces {
			if card.MAC != nil {
				setFirst(ix.macs, hardwareKey(card.MAC), nodeInterface{n, card})
			}
			if card.Address.IsValid() {
				setFirst(ix.addresses, card.Address, nodeInterface{n, card})
			}
		}
	}
	for _, s := range c.Servers {
		setFirst(ix.servers, s.Name, s)
	}
	for _, im := range c.Images {
		setFirst(ix.images, im.Name, im)
	}
	for _, g := range c.Groups {
		setFirst(ix.groups, g.Name, g)
	}
	return ix
}

// setFirst sets m[k] unless it is set already.
func setFirst[K comparable, V any](m map[K]V, k K, v V) {
	if _, ok := m[k]; !ok {
		m[k] = v
	}
}

// Interface returns the interface of that name, or nil.
func (n *Node) Interface(name string) *Interface {
	for _, card := range n.Interfaces {
		if card.Name == name {
			return card
		}
	}
	return nil
}

// HasServerAt reports whether a server of the cluster has that address.
func (c *Cluster) HasServerAt(a netip.Addr) bool {
	return slices.ContainsFunc(c.Servers, func(s *Server) bool {
		return slices.ContainsFunc(s.Interfaces, func(card *Interface) bool { return card.Address == a })
	})
}

// Has reports whether the server has the role.
func (s *Server) Has(role Role) bool { return slices.Contains(s.Roles, role) }

// Address returns the address of the server's first interface, by which other machines reach it.
func (s *Server) Address() netip.Addr { return s.Interfaces[0].Address }

// On returns the address that hosts on a network use for the server: that of its interface on the network, or else its
// first address, which they reach through a router.
func (s *Server) On(n *Network) netip.Addr {
	for _, card := range s.Interfaces {
		if card.Network == n {
			return card.Address
		}
	}
	return s.Address()
}
