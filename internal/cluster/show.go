package cluster

import (
	"fmt"
	"net/netip"
	"slices"

	"dim/internal/image"
)

// Summary describes the expanded cluster for people and scripts; its JSON keys are stable.
type Summary struct {
	Name     string           `json:"name"`
	Domain   string           `json:"domain"`
	Networks []networkSummary `json:"networks"`
	Levels   []levelSummary   `json:"taxonomy"`
	Servers  []serverSummary  `json:"servers"`
	Images   []imageSummary   `json:"images"`
	Groups   []groupSummary   `json:"groups"`
	Nodes    []NodeSummary    `json:"nodes"`
}

type networkSummary struct {
	Name    string   `json:"name"`
	Subnet  string   `json:"subnet"`
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dns,omitempty"`
	MTU     int      `json:"mtu,omitempty"`
	Admin   bool     `json:"admin"`
}

type levelSummary struct {
	Name string `json:"name"`
	From int    `json:"from"`
	To   int    `json:"to"`
}

type serverSummary struct {
	Name       string        `json:"name"`
	Roles      []Role        `json:"roles"`
	Interfaces []cardSummary `json:"interfaces"`
	NFS        uint16        `json:"nfs_port"`
	HTTP       uint16        `json:"http_port"`
	TFTP       uint16        `json:"tftp_port"`
	API        uint16        `json:"api_port"`
	DHCP       bool          `json:"dhcp"`
	Nodes      int           `json:"nodes"` // whose first server it is
}

type cardSummary struct {
	Name    string `json:"name,omitempty"`
	Network string `json:"network"`
	Address string `json:"address,omitempty"`
	MAC     string `json:"mac,omitempty"`
}

type imageSummary struct {
	Name     string        `json:"name"`
	Arch     string        `json:"arch"`
	Master   string        `json:"master"`
	Push     bool          `json:"push"`
	Exclude  []string      `json:"exclude"`
	Shared   []string      `json:"shared"`
	Keep     []string      `json:"keep"`
	Durable  Durability    `json:"durability"`
	Files    []fileSummary `json:"files"`
	Builtins []string      `json:"builtins"` // that are on
	Kernel   string        `json:"kernel_version,omitempty"`
	Append   string        `json:"kernel_append,omitempty"`
	Modules  []string      `json:"kernel_modules,omitempty"`
	Nodes    string        `json:"nodes"` // a node set
	Count    int           `json:"count"`
}

type fileSummary struct {
	Path string `json:"path"`
	Mode string `json:"mode"` // octal
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	From string `json:"template"` // where its template stands
}

type groupSummary struct {
	Name  string `json:"name"`
	Nodes string `json:"nodes"` // a node set
	Count int    `json:"count"`
	Image string `json:"image,omitempty"`
}

// NodeSummary describes one node; its JSON keys are stable.
type NodeSummary struct {
	Name       string         `json:"name"`
	Index      int            `json:"index"`
	Position   map[string]int `json:"position,omitempty"`
	Image      string         `json:"image"`
	Servers    []string       `json:"servers"`
	Interfaces []cardSummary  `json:"interfaces"`
	Groups     []string       `json:"groups"`
}

// Summary describes the cluster.
func (c *Cluster) Summary() Summary {
	s := Summary{Name: c.Name, Domain: c.Domain, Networks: []networkSummary{}, Levels: []levelSummary{}, Images: []imageSummary{}, Groups: []groupSummary{}}
	for _, n := range c.Networks {
		s.Networks = append(s.Networks, networkSummary{
			Name: n.Name, Subnet: n.Subnet.String(), Gateway: addressText(n.Gateway), DNS: texts(n.DNS), MTU: n.MTU, Admin: n.Admin,
		})
	}
	for _, l := range c.Levels {
		s.Levels = append(s.Levels, levelSummary(l))
	}
	s.Servers = c.serverSummaries()
	for _, im := range c.Images {
		s.Images = append(s.Images, c.imageSummary(im))
	}
	for _, g := range c.Groups {
		gs := groupSummary{Name: g.Name, Nodes: Fold(g.Nodes), Count: len(g.Nodes)}
		if g.Image != nil {
			gs.Image = string(g.Image.Name)
		}
		s.Groups = append(s.Groups, gs)
	}
	s.Nodes = make([]NodeSummary, len(c.Nodes))
	for i, n := range c.Nodes {
		s.Nodes[i] = n.Summary()
	}
	return s
}

// Summary describes the node.
func (n *Node) Summary() NodeSummary {
	s := NodeSummary{
		Name: string(n.Name), Index: n.Index, Position: n.Position,
		Servers: make([]string, len(n.Servers)), Interfaces: cardSummaries(n.Interfaces), Groups: make([]string, len(n.Groups)),
	}
	if n.Image != nil {
		s.Image = string(n.Image.Name)
	}
	for i, srv := range n.Servers {
		s.Servers[i] = string(srv.Name)
	}
	for i, g := range n.Groups {
		s.Groups[i] = g.Name
	}
	return s
}

func (c *Cluster) serverSummaries() []serverSummary {
	first := map[*Server]int{}
	for _, n := range c.Nodes {
		if len(n.Servers) > 0 {
			first[n.Servers[0]]++
		}
	}
	list := make([]serverSummary, len(c.Servers))
	for i, s := range c.Servers {
		list[i] = serverSummary{
			Name: string(s.Name), Roles: s.Roles, Interfaces: cardSummaries(s.Interfaces), Nodes: first[s],
			NFS: s.Ports.NFS, HTTP: s.Ports.HTTP, TFTP: s.Ports.TFTP, API: s.Ports.API, DHCP: s.DHCP,
		}
	}
	return list
}

func (c *Cluster) imageSummary(im *Image) imageSummary {
	s := imageSummary{
		Name: string(im.Name), Arch: im.Arch, Master: im.Master, Push: im.Push,
		Exclude: rules(im.Exclude), Shared: rules(im.Shared), Keep: rules(im.Keep), Durable: im.Durability,
		Files: []fileSummary{}, Builtins: []string{},
		Kernel: im.Kernel.Version, Append: im.Kernel.Append, Modules: im.Kernel.Modules,
	}
	for _, f := range im.Files {
		s.Files = append(s.Files, fileSummary{Path: "/" + f.Path, Mode: fmt.Sprintf("%04o", f.Mode), UID: f.UID, GID: f.GID, From: f.Where})
	}
	for _, name := range Builtins() {
		if !im.Builtin.Off[name] {
			s.Builtins = append(s.Builtins, name)
		}
	}
	of := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return n.Image != im })
	s.Nodes, s.Count = Fold(of), len(of)
	return s
}

func rules(patterns image.Patterns) []string {
	list := make([]string, len(patterns))
	for i, p := range patterns {
		list[i] = p.String()
	}
	return list
}

func cardSummaries(cards []*Interface) []cardSummary {
	list := make([]cardSummary, len(cards))
	for i, card := range cards {
		list[i] = cardSummary{Name: card.Name, Address: addressText(card.Address), MAC: card.MAC.String()}
		if card.Network != nil {
			list[i].Network = card.Network.Name
		}
	}
	return list
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func texts(addresses []netip.Addr) []string {
	list := make([]string, len(addresses))
	for i, a := range addresses {
		list[i] = a.String()
	}
	return list
}
