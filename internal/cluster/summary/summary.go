// Package summary describes an expanded cluster for people and scripts: it is the output of `dim cluster show -o json`.
// Its JSON keys are stable.
package summary

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
	"dim/internal/image/pathmatch"
	"dim/internal/recordmerge"
)

// Cluster describes a cluster.
type Cluster struct {
	Name     string    `json:"name"`
	Domain   string    `json:"domain"`
	Networks []network `json:"networks"`
	Levels   []level   `json:"taxonomy"`
	Servers  []server  `json:"server_list"`
	Images   []img     `json:"images"`
	Groups   []group   `json:"group_list"`
	Nodes    []node    `json:"node_list"`
	// Revision is that of the applied description, set by the caller; 0: the description was read from a file.
	Revision int64 `json:"description_revision,omitempty"`
}

type network struct {
	Name     string   `json:"name"`
	Subnet   string   `json:"subnet"`
	Gateway  string   `json:"gateway,omitempty"`
	Subnet6  string   `json:"subnet6,omitempty"`
	Gateway6 string   `json:"gateway6,omitempty"`
	DNS      []string `json:"dns,omitempty"`
	MTU      int      `json:"mtu,omitempty"`
	Admin    bool     `json:"admin"`
}

type level struct {
	Name string `json:"name"`
	From int    `json:"low"`
	To   int    `json:"high"`
}

type server struct {
	Name       string         `json:"name"`
	Roles      []cluster.Role `json:"roles"`
	Interfaces []card         `json:"interfaces"`
	NFS        uint16         `json:"nfs_port"`
	HTTP       uint16         `json:"http_port"`
	TFTP       uint16         `json:"tftp_port"`
	API        uint16         `json:"api_port"`
	DHCP       bool           `json:"dhcp"`
	Nodes      int            `json:"node_count"` // those whose first server it is
}

type card struct {
	Name     string   `json:"name,omitempty"`
	Network  string   `json:"network"` // "": none, others are on it
	Address  string   `json:"address,omitempty"`
	Address6 string   `json:"address6,omitempty"`
	Gateway  string   `json:"gateway,omitempty"`
	Gateway6 string   `json:"gateway6,omitempty"`
	MAC      string   `json:"mac,omitempty"`
	MTU      int      `json:"mtu,omitempty"`
	VLAN     int      `json:"vlan,omitempty"`
	Bond     string   `json:"bond,omitempty"`  // its mode
	Below    []string `json:"below,omitempty"` // the interfaces that a VLAN or a bond is on
}

type merge struct {
	Path string             `json:"path"`
	By   recordmerge.Format `json:"by"`
}

type img struct {
	Name     string             `json:"name"`
	Arch     string             `json:"arch"`
	Master   string             `json:"master"`
	Push     bool               `json:"push_enabled"`
	Exclude  []string           `json:"exclude"`
	Shared   []string           `json:"shared"`
	Keep     []string           `json:"keep"`
	Merge    []merge            `json:"merge"` // those without a rule too
	Durable  cluster.Durability `json:"durability"`
	Files    []file             `json:"node_files"`
	Builtins []string           `json:"builtins"` // those that are on
	Kernel   string             `json:"kernel_version,omitempty"`
	Append   string             `json:"kernel_append,omitempty"`
	Modules  []string           `json:"kernel_modules,omitempty"`
	Nodes    string             `json:"nodes"` // a node set
	Count    int                `json:"count"`
}

type file struct {
	Path string `json:"path"`
	Mode string `json:"mode"` // octal
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	From string `json:"template"` // position of its template
}

type group struct {
	Name  string `json:"name"`
	Nodes string `json:"nodes"` // a node set
	Count int    `json:"count"`
	Image string `json:"image,omitempty"`
}

type node struct {
	Name       string         `json:"name"`
	Index      int            `json:"index"`
	Position   map[string]int `json:"position,omitempty"`
	Image      string         `json:"image"`
	Servers    []string       `json:"servers"`
	Interfaces []card         `json:"interfaces"`
	DNS        []string       `json:"dns,omitempty"`
	Groups     []string       `json:"groups"`
}

// Of describes a cluster. It lists only the given nodes, but counts all of them.
func Of(c *cluster.Cluster, nodes []*cluster.Node) Cluster {
	s := Cluster{
		Name: c.Name, Domain: c.Domain,
		Networks: []network{}, Levels: []level{}, Servers: servers(c), Images: []img{}, Groups: []group{},
		Nodes: make([]node, len(nodes)),
	}
	for _, n := range c.Networks {
		s.Networks = append(s.Networks, network{
			Name: n.Name, Subnet: n.Subnet.String(), Gateway: addressText(n.Gateway), DNS: texts(n.DNS), MTU: n.MTU,
			Admin: n.Admin, Gateway6: addressText(n.Gateway6),
		})
		if n.Subnet6.IsValid() {
			s.Networks[len(s.Networks)-1].Subnet6 = n.Subnet6.String()
		}
	}
	for _, l := range c.Levels {
		s.Levels = append(s.Levels, level(l))
	}
	for _, im := range c.Images {
		s.Images = append(s.Images, imageOf(c, im))
	}
	for _, g := range c.Groups {
		gs := group{Name: g.Name, Nodes: cluster.Fold(g.Nodes), Count: len(g.Nodes)}
		if g.Image != nil {
			gs.Image = string(g.Image.Name)
		}
		s.Groups = append(s.Groups, gs)
	}
	for i, n := range nodes {
		s.Nodes[i] = nodeOf(n)
	}
	return s
}

func nodeOf(n *cluster.Node) node {
	s := node{
		Name: string(n.Name), Index: n.Index, Position: n.Position,
		DNS:     texts(n.DNS),
		Servers: make([]string, len(n.Servers)), Interfaces: cards(n.Interfaces), Groups: make([]string, len(n.Groups)),
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

func servers(c *cluster.Cluster) []server {
	first := map[*cluster.Server]int{}
	for _, n := range c.Nodes {
		if len(n.Servers) > 0 {
			first[n.Servers[0]]++
		}
	}
	list := make([]server, len(c.Servers))
	for i, s := range c.Servers {
		list[i] = server{
			Name: string(s.Name), Roles: s.Roles, Interfaces: cards(s.Interfaces), Nodes: first[s],
			NFS: s.Ports.NFS, HTTP: s.Ports.HTTP, TFTP: s.Ports.TFTP, API: s.Ports.API, DHCP: s.DHCP,
		}
	}
	return list
}

func imageOf(c *cluster.Cluster, im *cluster.Image) img {
	s := img{
		Name: string(im.Name), Arch: im.Arch, Master: im.Master, Push: im.Push,
		Exclude: rules(im.Exclude), Shared: rules(im.Shared), Keep: rules(im.Keep), Durable: im.Durability,
		Merge: []merge{}, Files: []file{}, Builtins: []string{},
		Kernel: im.Kernel.Version, Append: im.Kernel.Append, Modules: im.Kernel.Modules,
	}
	for _, path := range slices.Sorted(maps.Keys(im.Merge)) {
		s.Merge = append(s.Merge, merge{"/" + path, im.Merge[path]})
	}
	for _, f := range im.Files {
		s.Files = append(s.Files, file{
			Path: "/" + f.Path, Mode: fmt.Sprintf("%04o", f.Mode), UID: f.UID, GID: f.GID, From: f.Where,
		})
	}
	for _, name := range builtin.Names() {
		if !im.DisabledBuiltins[name] {
			s.Builtins = append(s.Builtins, name)
		}
	}
	of := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *cluster.Node) bool { return n.Image != im })
	s.Nodes, s.Count = cluster.Fold(of), len(of)
	return s
}

func rules(patterns pathmatch.List) []string {
	list := make([]string, len(patterns))
	for i, p := range patterns {
		list[i] = p.String()
	}
	return list
}

func cards(interfaces []*cluster.Interface) []card {
	list := make([]card, len(interfaces))
	for i, c := range interfaces {
		list[i] = card{
			Name: c.Name, Address: addressText(c.Address), Address6: addressText(c.Address6), MAC: c.MAC.String(),
			Gateway: addressText(c.Gateway), Gateway6: addressText(c.Gateway6), MTU: c.MTU, VLAN: c.VLAN, Bond: c.Bond,
		}
		for _, below := range c.On {
			list[i].Below = append(list[i].Below, below.Name)
		}
		if c.Network != nil {
			list[i].Network = c.Network.Name
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
