package cluster

import (
	"net"
	"net/netip"
)

// index holds the maps behind the look-ups; it is built once, by Parse, and never changes.
type index struct {
	nodes     map[NodeName]*Node
	servers   map[ServerName]*Server
	images    map[ImageName]*Image
	networks  map[string]*Network
	groups    map[string]*Group
	macs      map[string]nodeCard // by the bytes of the MAC
	addresses map[netip.Addr]nodeCard
	positions map[Level][]*Node // by a level with From and To alike: the nodes there
}

// nodeCard is one card of one node.
type nodeCard struct {
	node *Node
	card *Interface
}

// Node returns the node of that name.
func (c *Cluster) Node(name NodeName) (*Node, bool) {
	n, ok := c.lookups().nodes[name]
	return n, ok
}

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

// Network returns the network of that name.
func (c *Cluster) Network(name string) (*Network, bool) {
	n, ok := c.lookups().networks[name]
	return n, ok
}

// Group returns the group of that name.
func (c *Cluster) Group(name string) (*Group, bool) {
	g, ok := c.lookups().groups[name]
	return g, ok
}

// NodeByMAC returns the node that has a card with that hardware address, and the card.
func (c *Cluster) NodeByMAC(mac net.HardwareAddr) (*Node, *Interface, bool) {
	nc, ok := c.lookups().macs[string(mac)]
	return nc.node, nc.card, ok
}

// NodeByAddress returns the node that has a card with that address, and the card. An IPv4 address in IPv6 form counts as itself.
func (c *Cluster) NodeByAddress(a netip.Addr) (*Node, *Interface, bool) {
	nc, ok := c.lookups().addresses[a.Unmap()]
	return nc.node, nc.card, ok
}

// lookups returns the maps. A Cluster that was put together by hand has none: they are made anew for each call, which is right
// but slow, because a Cluster is read by many goroutines and has no lock.
func (c *Cluster) lookups() *index {
	if c.index != nil {
		return c.index
	}
	return newIndex(c)
}

// newIndex builds the maps of c. Where names clash the first one wins.
func newIndex(c *Cluster) *index {
	ix := &index{
		nodes:     make(map[NodeName]*Node, len(c.Nodes)),
		servers:   make(map[ServerName]*Server, len(c.Servers)),
		images:    make(map[ImageName]*Image, len(c.Images)),
		networks:  make(map[string]*Network, len(c.Networks)),
		groups:    make(map[string]*Group, len(c.Groups)),
		macs:      make(map[string]nodeCard, len(c.Nodes)),
		addresses: make(map[netip.Addr]nodeCard, len(c.Nodes)),
		positions: map[Level][]*Node{},
	}
	for _, n := range c.Nodes {
		setFirst(ix.nodes, n.Name, n)
		for level, number := range n.Position {
			at := Level{Name: level, From: number, To: number}
			ix.positions[at] = append(ix.positions[at], n)
		}
		for _, card := range n.Interfaces {
			if card.MAC != nil {
				setFirst(ix.macs, string(card.MAC), nodeCard{n, card})
			}
			if card.Address.IsValid() {
				setFirst(ix.addresses, card.Address, nodeCard{n, card})
			}
		}
	}
	for _, s := range c.Servers {
		setFirst(ix.servers, s.Name, s)
	}
	for _, im := range c.Images {
		setFirst(ix.images, im.Name, im)
	}
	for _, n := range c.Networks {
		setFirst(ix.networks, n.Name, n)
	}
	for _, g := range c.Groups {
		setFirst(ix.groups, g.Name, g)
	}
	return ix
}

func setFirst[K comparable, V any](m map[K]V, k K, v V) {
	if _, taken := m[k]; !taken {
		m[k] = v
	}
}

// Interface returns the card of that name, or nil.
func (n *Node) Interface(name string) *Interface {
	for _, card := range n.Interfaces {
		if card.Name == name {
			return card
		}
	}
	return nil
}

// Has reports whether the server has the role.
func (s *Server) Has(role Role) bool {
	for _, r := range s.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// Address returns the address of the server's first card: the one by which others name it.
func (s *Server) Address() netip.Addr { return s.Interfaces[0].Address }

// On returns the server's address on a network: the one that a node on that network is told to use. A server without a
// card there is reached by its first address, through a router.
func (s *Server) On(n *Network) netip.Addr {
	for _, card := range s.Interfaces {
		if card.Network == n {
			return card.Address
		}
	}
	return s.Address()
}
