// Package boot decides everything about booting a node: what its DHCP questions are answered, which loader its firmware
// gets, the loader's script, the kernel command line, the kernel and the initramfs; and it follows how far each boot is.
//
// # The way of a boot
//
//	firmware   DHCP         the node's address; a loader that suits the firmware
//	           TFTP, HTTP   the loader: iPXE, from the distribution's package
//	loader     DHCP         the same address; the URL of the boot script
//	           HTTP         the script, made for this node now; kernel; initramfs
//	dim-init   DHCP         the same address, and the words of the command line once more
//	           HTTP         reports of its stages
//
// Firmware that loads a kernel by itself (SLOF, petitboot, U-Boot) gets a pxelinux configuration in place of loader and script.
//
// # Who is answered
//
// Nodes of the description alone, on the network where their card belongs. The first of a node's servers answers at once; the others stand in:
// the one at place k answers only a client that has been trying for k times StandIn, or that has turned to it already.
// Over TFTP and HTTP a node is known by its source address, which is fixed by the description, and gets only what is its own. When it runs, any of
// its users has that address: then nothing follows from what is asked, and reports are taken from the superuser alone.
//
// # Concurrency
//
// A Boot and a Tracker may be used by any number of goroutines. Nothing is kept from one call to the next but what is in the Tracker, so a new
// description holds from the next packet on. DHCP never blocks; the others may, for as long as Assets does.
//
// What dim-init reads from the command line and reports is the contract of docs/reference/kernel-parameters.md.
//
// It must not know how images are stored, how an initramfs is made, nor the formats of DHCP and TFTP packets, and opens no sockets.
package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/image"
)

// Errors to branch on.
var (
	// ErrNotMine: the client is known, and another server is to answer it.
	ErrNotMine = errors.New("another server answers this node")
	// ErrUnknown: the client is no node of the description.
	ErrUnknown = errors.New("not in the cluster description")
)

// File is an open file of a boot.
type File interface {
	io.ReadSeeker
	io.ReaderAt
	io.Closer
}

// Asset is a kernel or an initramfs.
type Asset struct {
	Digest image.Digest // of its bytes; it is in the URL, so what has been cached is right for ever
	Size   int64
	Open   func() (File, error)
}

// Assets knows what nodes boot.
type Assets interface {
	// Assets returns the kernel and the initramfs that node is to boot now. It may take the time to make them. The error's
	// text is shown on the node's console: it should say what a person has to do.
	Assets(ctx context.Context, node *cluster.Node) (kernel, initramfs Asset, err error)
}

// Options are what a Boot needs. Server, Cluster, Assets, Tracker and Log must be set.
type Options struct {
	Server  cluster.ServerName      // this server
	Cluster func() *cluster.Cluster // the description that holds now
	Assets  Assets
	Tracker *Tracker
	// Begin, if not nil, is called when a node itself asks for what it is to boot, before Assets is asked.
	Begin func(node *cluster.Node)
	// Keep, if not nil, is called before a node hears what it boots: a server that is restarted then must know that it boots.
	Keep    func()
	Log     *slog.Logger
	Loaders string // directory of the iPXE package; default /usr/lib/ipxe
	// FromDHCP tells that every boot begins with a question that this server answers by DHCP. A node that runs and asks for boot files without one
	// does not boot: it is one of its users who looks.
	FromDHCP bool
	// StandIn is described in the package comment; the default of 3 s is met by the second question of PXE ROMs (at 4 s)
	// and the third one of iPXE.
	StandIn time.Duration
}

// Boot decides.
type Boot struct {
	Options
}

// New returns a Boot.
func New(o Options) *Boot {
	if o.Loaders == "" {
		o.Loaders = "/usr/lib/ipxe"
	}
	if o.StandIn == 0 {
		o.StandIn = 3 * time.Second
	}
	return &Boot{o}
}

// place is a node as this server sees it.
type place struct {
	node *cluster.Node
	card *cluster.Interface
	self *cluster.Server
	addr netip.Addr // this server's address for that card
	rank int        // this server's place among the node's servers; 0: first
	// onlooker: it is not the node's boot that asks, but somebody who wants to see what it would get.
	onlooker bool
	// superuser: the call is one of the superuser of the calling machine.
	superuser bool
}

// at completes a place; it returns ErrNotMine when the node is none of this server's.
func (b *Boot) at(n *cluster.Node, card *cluster.Interface) (place, error) {
	p := place{node: n, card: card}
	for i, s := range n.Servers {
		if s.Name == b.Server {
			p.self, p.rank = s, i
			p.addr = s.On(card.Network)
			return p, nil
		}
	}
	return p, fmt.Errorf("%s: %w", n.Name, ErrNotMine)
}

// nodeOf returns the node that calls.
func (b *Boot) nodeOf(who caller.Caller) (place, error) {
	if who.Node == nil {
		return place{}, fmt.Errorf("%s is no node's address: %w", who.Peer.Remote.Addr(), ErrUnknown)
	}
	p, err := b.at(who.Node, who.Interface)
	p.onlooker = b.runs(who.Node.Name)
	return p, err
}

// runs reports whether it is sure that a node does not boot.
func (b *Boot) runs(n cluster.NodeName) bool {
	e, ok := b.Tracker.Last(n)
	return ok && b.FromDHCP && e.Stage == StageRunning
}

// url returns the URL of a path on this server.
func (p *place) url(path string) string {
	return "http://" + p.http() + path
}

// http returns host and port of this server's HTTP service, without the port if it is the usual one.
func (p *place) http() string {
	if p.self.Ports.HTTP == 80 {
		return p.addr.String()
	}
	return netip.AddrPortFrom(p.addr, p.self.Ports.HTTP).String()
}

// assets returns what the node boots; when it is the node that asks, its boot begins.
func (b *Boot) assets(ctx context.Context, p place) (kernel, initramfs Asset, err error) {
	if b.Begin != nil && !p.onlooker {
		b.Begin(p.node)
	}
	return b.Assets.Assets(ctx, p.node)
}

// reached notes that a node reached a stage.
func (b *Boot) reached(p place, stage Stage, detail string) {
	b.note(p, Event{Stage: stage, Detail: detail})
}

// told notes that a node is about to hear what it boots.
func (b *Boot) told(p place, detail string) {
	b.reached(p, StageScript, detail)
	if b.Keep != nil && !p.onlooker {
		b.Keep()
	}
}

// stuck notes that a node cannot get through a stage.
func (b *Boot) stuck(p place, stage Stage, why string) {
	b.note(p, Event{Stage: stage, Error: why})
}

func (b *Boot) note(p place, e Event) {
	if !p.onlooker {
		b.Tracker.add(p.node.Name, e)
	}
}
