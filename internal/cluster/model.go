// Package cluster is the cluster description: one XML file that names networks, servers, nodes, groups and images.
// Parse reads it, reporting every problem with its place; everything else is a pure function of the parsed Cluster.
//
// # Concepts
//
// Parsing has two stages. The first checks the document against the vocabulary, one table from which the XSD and the
// reference page (docs/reference/cluster.md) come too, and makes items: elements whose attributes have the right form and a place. The
// second, the builder, gives the items their meaning and expands them: names and addresses are patterns with integer
// expressions in them, evaluated for each node. A problem at one place is one problem, however many nodes it spoils.
//
// # Invariants
//
// Parse returns either a Cluster with nothing wrong in it or *Problems. In such a Cluster every node has a boot card with an address and a
// network, an image and at least one server with the role "image"; names, addresses and hardware addresses are unique, but that servers may
// share an address when they share no port; every template has been executed once. The same bytes always make the same Cluster.
//
// What a description can amount to is bounded before it is expanded, so a hostile one costs seconds and some hundred megabytes at most.
//
// # Concurrency
//
// A parsed Cluster never changes and may be read by any number of goroutines.
//
// The package must not do I/O beyond the Source it is given (Load makes one of files), and must not know how images
// are stored, served or booted.
package cluster

import (
	"net"
	"net/netip"
	"text/template"
	"time"

	"dim/internal/image"
)

// NodeName, ServerName and ImageName keep names of different things apart.
type (
	NodeName   string
	ServerName string
	ImageName  string
)

// Cluster is a whole description, expanded: every node and server is there by itself.
type Cluster struct {
	Name     string
	Domain   string
	Networks []*Network
	Levels   []Level
	Servers  []*Server
	Images   []*Image
	Nodes    []*Node // in order of index
	Groups   []*Group

	sources []SourceFile
	index   *index // nil in a Cluster that was not parsed
}

// Network is one <network>.
type Network struct {
	Name     string
	Subnet   netip.Prefix
	Gateway  netip.Addr // zero: none
	DNS      []netip.Addr
	MTU      int  // 0: the default
	Admin    bool // hosts on it may mount /images/NAME@V read-only
	Insecure bool // NFS calls from ports of 1024 and above are taken, too
}

// Level is one <level> of the taxonomy, outermost first.
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
	DHCP       bool // false: dhcp="off"
}

// Role is what a server does: "head" or "image".
type Role string

// The roles.
const (
	RoleHead  Role = "head"
	RoleImage Role = "image"
)

// Ports are the ports a server listens on; Parse fills in the defaults.
type Ports struct {
	NFS  uint16 // nfs-port, default 2049 (TCP; NFS and MOUNT)
	HTTP uint16 // http-port, default 80 (boot files, /healthz)
	TFTP uint16 // tftp-port, default 69
	API  uint16 // api-port, default 7117 (between machines, mutual TLS)
}

// Interface is one network card of a node or server.
type Interface struct {
	Name    string // "eth0"; may be empty for servers
	Network *Network
	Address netip.Addr
	MAC     net.HardwareAddr // nil: not known
}

// Image is one <image>.
type Image struct {
	Name    ImageName
	Arch    string // "amd64", "arm64", "ppc64le"
	Master  string // "dir:/srv/…", "ssh://root@…"
	Push    bool   // nodes are told of a switch, and do not poll
	Exclude image.Patterns
	Shared  image.Patterns
	Keep    image.Patterns
	Mounts  []string // paths without a leading slash on which nodes mount something
	Files   []*File
	Builtin Builtin
	Kernel  Kernel

	SavedFor   time.Duration // how long set-aside copies are kept; 0: the default
	Durability Durability    // default DurabilitySync
	Quota      *Quota        // nil: none
	Snapshots  *Snapshots    // nil: none are taken
}

// Durability is what the replies to nodes that change something promise.
type Durability string

// The durabilities, of which the first is what NFS demands.
const (
	DurabilitySync          Durability = "sync"           // what was answered survives a power cut of the server
	DurabilityAsyncMetadata Durability = "async-metadata" // committed content does; names and attributes may be lost
	DurabilityAsync         Durability = "async"          // the last seconds of everything may be lost
)

// File is one <file>: a template rendered for each node.
type File struct {
	Path     string // from the root, without a leading slash
	Mode     uint32 // default 0644
	UID, GID uint32
	Template string // text of the template
	Where    string // "cluster.xml:12:5" or the template file's name, for error messages

	parsed *template.Template // nil in a File that was not parsed
	at     place              // of the template's first byte
}

// Builtin tells which built-in node files are switched off for an image (<builtin name="fstab" enabled="no"/>).
type Builtin struct{ Off map[string]bool }

// Kernel is <kernel version="…" append="…" modules="…"/>.
type Kernel struct {
	Version string   // "": the newest in the image
	Append  string   // added to the kernel command line
	Modules []string // loaded by the initramfs in addition to what the cards need
}

// Node is one node.
type Node struct {
	Name       NodeName
	Index      int            // over all nodes, from 0
	Position   map[string]int // by level name: the node's place in the taxonomy
	Image      *Image
	Servers    []*Server // in order of preference
	Interfaces []*Interface
	Groups     []*Group

	own *Quota // of the node itself; nil: none
}

// Group is one <group>: a named set of nodes, with an image of its own or none.
type Group struct {
	Name  string
	Nodes []*Node
	Image *Image
	Quota *Quota // nil: none
}

// Boot returns the card the node boots from: its first interface.
func (n *Node) Boot() *Interface { return n.Interfaces[0] }

// Address returns the address of the boot interface. Templates use it as {{.Address}}.
func (n *Node) Address() netip.Addr { return n.Boot().Address }
