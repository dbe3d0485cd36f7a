// Package boot decides what a node boots: the answer to its DHCP requests, the loader for its firmware, the loader's
// script or configuration, and the kernel command line. It decides only: it keeps nothing, reads no files and answers
// nobody. Package delivery serves what is decided here.
//
// # Steps of a boot
//
//	firmware   DHCP         the node's address, and a loader for the firmware
//	           TFTP, HTTP   the loader: iPXE, from the distribution's package
//	loader     DHCP         the same address, and the URL of the boot script
//	           HTTP         the script, made for this node; the kernel; the initramfs
//	dim-init   DHCP         the same address, and the words of the command line once more
//	           HTTP         reports of its stages
//
// Firmware that loads a kernel by itself (SLOF, petitboot, U-Boot) gets a pxelinux configuration in place of loader and
// script.
//
// # Who is answered
//
// Only nodes of the description are answered, on the network where their card belongs, and only by the first of their
// servers. Another one would serve a layer of its own: the node would find a root without what it wrote.
//
// What dim-init reads from the command line and reports is the contract of docs/reference/kernel-parameters.md.
//
// # What it must not know
//
// How images are stored, how an initramfs is made, and the layout of DHCP and TFTP packets. It knows DHCP options and
// their values.
package boot

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"dim/internal/cluster"
)

// Errors to branch on.
var (
	// ErrNotMine: the client is known, and another server serves it.
	ErrNotMine = errors.New("this server does not, because it does not have the node's layer")
	// ErrUnknown: the client is no node of the description.
	ErrUnknown = errors.New("not in the cluster description")
)

// Stage is a step that a boot has reached; docs/reference/kernel-parameters.md tells when each begins.
type Stage string

// The stages, in the order in which a boot passes them.
const (
	StageDHCP      Stage = "dhcp"
	StageLoader    Stage = "loader"
	StageScript    Stage = "script"
	StageKernel    Stage = "kernel"
	StageInitramfs Stage = "initramfs"
	StageLink      Stage = "link"
	StageAddress   Stage = "address"
	StageMount     Stage = "mount"
	StageHandover  Stage = "handover"
	StageRunning   Stage = "running"
)

// Details of events that tell who takes the step.
const (
	DetailIPXE    = "iPXE"                  // of StageDHCP: the loader asks, not the firmware
	DetailFetched = "fetched by the loader" // of StageKernel and StageInitramfs; dim-init reports the latter, too
)

// Event is one step of one node's boot. Tries that fail in the same way are one event.
type Event struct {
	Stage  Stage     `json:"stage"`
	Time   time.Time `json:"time"`
	Detail string    `json:"detail,omitempty"` // more about it
	Error  string    `json:"error,omitempty"`  // why the stage does not succeed; it is being tried again
	Count  int       `json:"count"`            // times it was reported in a row
	Last   time.Time `json:"last"`             // when it was reported last
}

// Refusal is a message of a node that was not answered, or a request that was refused. The zero Refusal is none.
type Refusal struct {
	Text     string // what was asked, and why it was not answered
	Expected bool   // it is no sign of a fault: firmware asks for files of several names, or another server answers
	NotMine  bool   // another server serves the node, see ErrNotMine; the node has taken no offer of it yet
}

// Policy decides on behalf of one server. It may be used by any number of goroutines, and never blocks. A new
// description holds from the next call on.
type Policy struct {
	Server    cluster.ServerName      // this server
	Cluster   func() *cluster.Cluster // the description that holds now
	HasLoader func(name string) bool  // whether a loader of the table is installed
	Closed    func() error            // why no node may begin to boot now; nil: they may
}

// Target is a node as this server boots it.
type Target struct {
	Node *cluster.Node
	card *cluster.Interface
	self *cluster.Server
	addr netip.Addr // this server's address on the card's network
}

// Target returns a node as this server boots it by a card; the error is ErrNotMine when it does not.
func (p *Policy) Target(n *cluster.Node, card *cluster.Interface) (Target, error) {
	s := n.Server()
	t := Target{Node: n, card: card, self: s, addr: s.On(card.Network)}
	if s.Name != p.Server {
		return t, fmt.Errorf("%s serves %s: %w", s.Name, n.Name, ErrNotMine)
	}
	return t, nil
}

// url returns the URL of a path on this server.
func (t *Target) url(path string) string { return "http://" + t.http() + path }

// Proxied reports whether another DHCP server gives the node its address.
func (t *Target) Proxied() bool { return t.card.Network.Proxy }

// http returns host and port of this server's HTTP service, without the port if it is the usual one.
func (t *Target) http() string {
	if t.self.Ports.HTTP == 80 {
		return t.addr.String()
	}
	return netip.AddrPortFrom(t.addr, t.self.Ports.HTTP).String()
}
