// Package describe writes a description of a cluster whose machines are known one by one. Names and addresses that
// follow a rule become expressions over the numbers in the names; everything else is listed node by node.
//
// # Concepts
//
// A Site is what another program knows of a cluster. Describe removes from it what a description cannot express,
// adds what a description must have, and writes it. A Note names each thing that was removed or added.
//
// A family is the nodes whose names differ only in their numbers. A box is a part of a family in which every name and
// every address is an affine function of the coordinates of the node. A box becomes one <nodes> element.
//
// # Invariants
//
// The result passes the check of package cluster, and has exactly the names, addresses and hardware addresses of the
// nodes of the Site that no Note names. Describe verifies both before it returns.
//
// The time is proportional to the number of nodes, apart from sorting.
//
// It must not know which program the Site comes from.
package describe

import (
	"fmt"
	"net"
	"net/netip"
)

// Site is a cluster as another program knows it. Fields that are not known are zero.
type Site struct {
	Name     string
	Domain   string
	Networks []Network
	Subnets6 []Subnet6 // of IPv6; those of the networks follow from the addresses of cards
	Server   Server    // the head, which also serves the nodes
	Images   []Image
	Nodes    []Node // at most 100,000
	Arch     string // of the images; "": amd64
	Notes    []Note // what the reader of the Site could not carry over
}

// Network is a network of the cluster.
type Network struct {
	Name    string
	Subnet  netip.Prefix
	Gateway netip.Addr
	DNS     []netip.Addr
	MTU     int // in bytes; 0: not known
	Place   Place

	v6 Subnet6 // zero: none
}

// Subnet6 is an IPv6 subnet. Other programs do not always say which network has it.
type Subnet6 struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
	Place   Place
}

// Server is the machine that serves the nodes.
type Server struct {
	Name    string
	Address netip.Addr
	Place   Place
}

// Image is a root that nodes boot.
type Image struct {
	Name   string
	Master string // "dir:/PATH"; "": not known
	Arch   string // "": that of the site
}

// Node is one node.
type Node struct {
	Name   string
	Image  string // "": the default image
	Append string // kernel arguments
	Groups []string
	Cards  []Card // the first one with an address boots
	Place  Place
}

// Card is a network card of a node.
type Card struct {
	Name    string     // "": eth0, eth1, …
	Address netip.Addr // of either family; zero: none
	MAC     net.HardwareAddr
	Place   Place

	Address6   netip.Addr // beside an IPv4 address; zero: none
	InfiniBand bool
	VLAN       int    // 0: it is none
	On         string // of a VLAN the card that carries it
}

// Place is where something stands in the input.
type Place struct {
	File string // "": nowhere
	Line int    // from 1
}

// Note is something that was not carried over as it is, and why.
type Note struct {
	File    string `json:"file"` // "": it is not about a place in the input
	Line    int    `json:"line"` // from 1
	Message string `json:"message"`
}

// String returns "file:line: message".
func (n Note) String() string {
	if n.File == "" {
		return n.Message
	}
	return fmt.Sprintf("%s:%d: %s", n.File, n.Line, n.Message)
}

// Note adds a note about a place.
func (s *Site) Note(at Place, format string, args ...any) {
	s.Notes = append(s.Notes, Note{at.File, at.Line, fmt.Sprintf(format, args...)})
}
