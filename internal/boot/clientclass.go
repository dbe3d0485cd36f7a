package boot

import (
	"net/netip"
	"reflect"
	"slices"

	"dim/internal/cluster"
)

// ClientClass is a class of clients that any DHCP server can recognize, and what its members boot. No client is in two
// classes of one node. The condition is what all fields from IPXE to Silent say together.
type ClientClass struct {
	Name string // for people; no two classes of a node have the same one

	IPXE   bool     // it is iPXE, by option 175 or the user class; members of all other classes are not
	Vendor string   // how option 60 begins; "": it does not matter
	Archs  []uint16 // the first value of option 93; empty: the client does not send the option, or it does not matter
	Silent bool     // the client does not send option 93, and option 60 only if Vendor says so

	NextServer netip.Addr
	BootFile   string
	Options    map[uint8][]byte
}

// ClientClasses returns the classes of clients that can boot a node by its boot card, with what Policy.DHCP gives them
// when another server does not answer, the node's server is not drained, and the first loader of each line of the table
// is installed. Nodes of one processor, one server and one network have the same classes.
func ClientClasses(n *cluster.Node) []ClientClass {
	p := Policy{
		HasLoader: func(string) bool { return true },
		Closed:    func() error { return nil },
	}
	s := n.Server()
	t := Target{Node: n, card: n.Boot(), self: s, addr: s.On(n.Boot().Network)}
	if t.card.Network.Proxy {
		card, network := *t.card, *t.card.Network
		network.Proxy, card.Network = false, &network
		t.card = &card
	}
	var list classList
	add := func(c Client, x ClientClass) { list.add(&p, &t, c, x) }
	add(Client{IPXE: true}, ClientClass{Name: DetailIPXE, IPXE: true})
	for _, x := range classes() {
		archs := []uint16{x.arch}
		switch x.way {
		case pxe, httpBoot:
			for _, vendor := range []string{"PXEClient", "HTTPClient"} {
				c := Client{VendorClass: vendor, Archs: archs}
				add(c, ClientClass{Name: wayOf(&c).String() + ", " + x.family(), Vendor: vendor, Archs: archs})
			}
		case pxelinux:
			add(Client{Archs: archs}, ClientClass{Name: pxelinux.String(), Archs: archs})
		}
	}
	add(Client{VendorClass: "U-Boot"}, ClientClass{Name: "U-Boot without architecture", Vendor: "U-Boot", Silent: true})
	add(Client{}, ClientClass{Name: "firmware that says nothing of itself", Silent: true})
	return list
}

// classList is a list of classes, of which no two differ in their architectures alone.
type classList []ClientClass

// add adds the class of clients like c, with what they get. It adds nothing if they cannot boot the node.
func (l *classList) add(p *Policy, t *Target, c Client, x ClientClass) {
	c.MAC = t.card.MAC
	var lease Lease
	p.addBoot(&lease, c, t)
	if lease.BootFile == "" && lease.Options[optConfigFile] == nil {
		return
	}
	x.NextServer, x.BootFile, x.Options = lease.NextServer, lease.BootFile, lease.Options
	i := slices.IndexFunc(*l, func(y ClientClass) bool {
		return len(x.Archs) > 0 && len(y.Archs) > 0 && x.Vendor == y.Vendor && x.NextServer == y.NextServer &&
			x.BootFile == y.BootFile && reflect.DeepEqual(x.Options, y.Options)
	})
	if i < 0 {
		*l = append(*l, x)
		return
	}
	(*l)[i].Archs = append((*l)[i].Archs, x.Archs...)
}
