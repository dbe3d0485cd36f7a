// Package cluster is the cluster description: one XML file that names networks, servers, nodes, groups and images.
// Parse reads it and reports every problem with its position. Everything else is a pure function of the parsed Cluster.
//
// # Concepts
//
// Parsing has two stages.
//
//  1. The reader checks the document against the vocabulary and makes items: elements with their positions and with
//     well-formed attributes. The vocabulary is one table; the XSD and the reference page (docs/reference/cluster.md)
//     are generated from it, too.
//  2. The builder interprets the items and expands them. Names and addresses are patterns that contain integer
//     expressions; they are evaluated for each node.
//
// A mistake is reported once, with a count, even if it affects many nodes.
//
// # Invariants
//
// Parse returns either a valid Cluster or *Problems. In a valid Cluster:
//
//   - every node has a boot interface with an address and a network, an image, and at least one server with the role
//     "image";
//   - names, addresses and hardware addresses are unique, except that servers may share an address if they share no
//     port;
//   - every template has been executed once.
//
// The same bytes always make the same Cluster.
//
// The size of the result is bounded before the description is expanded: a hostile description costs at most some
// seconds and some hundred megabytes.
//
// # Concurrency
//
// A parsed Cluster never changes. Any number of goroutines may read it.
//
// # What it must not know
//
// How images are stored, served or booted. It does no I/O except through the Source that it is given; Load makes one
// that reads files.
package cluster

import (
	"net"
	"net/netip"
	"text/template"
	"time"

	"dim/internal/cluster/learned"
	"dim/internal/image/pathmatch"
	"dim/internal/recordmerge"
)

// NodeName, ServerName and ImageName are distinct types, so that the compiler finds a name used in the wrong place.
type (
	NodeName   string
	ServerName string
	ImageName  string
)

// Cluster is a whole description, expanded: it lists every single node and server.
type Cluster struct {
	Name     string
	Domain   string
	Networks []*Network
	Levels   []Level
	Servers  []*Server
	Images   []*Image
	Nodes    []*Node // in order of Index
	Groups   []*Group
	Quota    *Quota // of nodes for which there is no other; nil: none

	sources   []SourceFile
	learned   []learned.Fact
	unlearned []string
	warnings  []Problem
	index     *index // nil in a Cluster that was not made by Parse
}

// Network is one <network>.
type Network struct {
	Name     string
	Subnet   netip.Prefix
	Gateway  netip.Addr   // zero: none
	Subnet6  netip.Prefix // zero: none
	Gateway6 netip.Addr   // zero: none
	DNS      []netip.Addr // of both families
	MTU      int          // 0: the default
	Proxy    bool         // another DHCP server gives nodes their addresses; our servers only add what they boot
	Admin    bool         // hosts on it may mount /images/NAME@V read-only
	Insecure bool         // NFS calls from ports of 1024 and above are accepted, too
}

// Level is one <level> of the taxonomy. The outermost level comes first.
type Level struct {
	Name     string
	From, To int
}

// Server is one image server or head.
type Server struct {
	Name       ServerName
	Roles      []Role
	Interfaces []*Interface
	Ports      Ports
	DHCP       bool   // false: dhcp="off"
	DNS        bool   // it answers questions about names of the cluster
	PullRate   uint64 // bytes of versions that it receives in a second, at most; 0: no bound
}

// Role is a task of a server.
type Role string

// The roles.
const (
	RoleHead  Role = "head"
	RoleImage Role = "image"
)

// Ports are the ports on which a server listens. Parse fills in the defaults.
type Ports struct {
	NFS  uint16 // nfs-port, default 2049 (TCP; NFS and MOUNT)
	HTTP uint16 // http-port, default 80 (boot files, /healthz)
	TFTP uint16 // tftp-port, default 69
	API  uint16 // api-port, default 7117 (between machines, mutual TLS)
	Etcd uint16 // etcd-port, default 7118 (between heads, mutual TLS)
}

// Interface is one network card of a node or server, or of a node a VLAN or a bond. A server's has only Name, Network,
// Address and MAC.
type Interface struct {
	Name     string   // "eth0"; may be empty for servers
	Network  *Network // nil: it has no address, but others may be on it
	Address  netip.Addr
	Address6 netip.Addr       // in addition; zero: none
	MAC      net.HardwareAddr // six bytes, of InfiniBand 20 or the port's GUID of eight; nil: not known
	MTU      int              // its own or its network's; 0: the default
	Gateway  netip.Addr       // its own, or of a boot card its network's; zero: none
	Gateway6 netip.Addr       // the same for IPv6

	InfiniBand bool
	VLAN       int          // 0: it is none
	Bond       string       // the mode; "": it is none
	On         []*Interface // of a VLAN the interface that carries it, of a bond its cards
}

// Image is one <image>.
type Image struct {
	Name    ImageName
	Arch    string // "amd64", "arm64", "ppc64le"
	Master  string // "dir:/srv/…", "ssh://root@…"
	Push    bool   // the server notifies nodes of a switch; they do not poll
	Exclude pathmatch.List
	Shared  pathmatch.List
	Keep    pathmatch.List
	Mounts  []string // mount points on the nodes, without the leading slash
	Files   []*File
	Kernel  Kernel

	// Merge has the files whose records are merged when both a node and the master have changed them, by path without
	// the leading slash: those that are merged without a rule, and those of <merge>.
	Merge map[string]recordmerge.Format

	DisabledBuiltins map[string]bool // by the names of package builtin

	SavedFor   time.Duration // how long set-aside copies are kept; 0: the default
	Durability Durability    // default DurabilitySync
	Quota      *Quota        // nil: none
	Snapshots  *Snapshots    // nil: none are taken

	defaultQuota *Quota // the cluster's; nil: none
}

// Durability is what a server guarantees about a change when it replies to the node.
type Durability string

// The durabilities. NFS demands the first one.
const (
	// DurabilitySync: every change survives a power cut of the server once the reply is sent.
	DurabilitySync Durability = "sync"
	// DurabilityAsyncMetadata: committed content survives a power cut; recent names and attributes may be lost.
	DurabilityAsyncMetadata Durability = "async-metadata"
	// DurabilityAsync: all changes of the last seconds may be lost.
	DurabilityAsync Durability = "async"
)

// File is one <file>: a template that is rendered for each node.
type File struct {
	Path     string // from the root, without the leading slash
	Mode     uint32 // default 0644
	UID, GID uint32
	Template string // text of the template
	Where    string // "cluster.xml:12:5" or the name of the template's file, for error messages

	parsed *template.Template // nil in a File that was not made by Parse
	at     location           // of the template's first byte
}

// Kernel is <kernel version="…" append="…" modules="…"/>.
type Kernel struct {
	Version string   // "": the newest in the image
	Append  string   // added to the kernel command line
	Modules []string // loaded by the initramfs in addition to those that the network cards need
}

// Node is one node.
type Node struct {
	Name       NodeName
	Index      int            // among all nodes, from 0
	Position   map[string]int // number in the taxonomy, by the name of the level
	Image      *Image
	Servers    []*Server // the first serves the node, see Server
	Interfaces []*Interface
	Groups     []*Group
	DNS        []netip.Addr // its own name servers, or those of its boot network

	quota *Quota // of the node's own element; nil: none
}

// Group is one <group>: a named set of nodes, which may set the image of its members.
type Group struct {
	Name  string
	Nodes []*Node
	Image *Image // nil: the members keep their own
	Quota *Quota // nil: none
}

// Server returns the server that answers the node's NFS, DHCP and boot: the first of its servers. No other one does.
func (n *Node) Server() *Server { return n.Servers[0] }

// Boot returns the interface from which the node boots: its first one.
func (n *Node) Boot() *Interface { return n.Interfaces[0] }

// Address returns the address of the boot interface. Templates use it as {{.Address}}.
func (n *Node) Address() netip.Addr { return n.Boot().Address }
