// Package delivery serves what package boot decides: DHCP answers, loaders, boot scripts, kernels and initramfs over
// HTTP and TFTP. It takes the stage reports of nodes, and tells Progress how far each boot is.
//
// # Who is served
//
// Over TFTP and HTTP a node is known by its source address, which is fixed by the description, and gets only what is
// its own.
//
// Once the node runs, any of its users has that address, and any machine can send a DHCP request in its name.
// Therefore a request for boot files is taken for a boot only if the node that ran does not run any more, which
// Progress finds out. Reports are taken from the superuser alone.
//
// # Concurrency
//
// A Server may be used by any number of goroutines. DHCP does not block; the others may, for as long as Payloads does.
//
// # What it must not know
//
// How images are stored, how an initramfs is made, nor the formats of DHCP and TFTP packets. It opens no sockets.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"dim/internal/boot"
	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/image"
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

// Payload is what a node boots.
type Payload struct {
	Kernel, Initramfs Asset
	Words             []string // of the kernel command line, which this image needs
}

// Payloads provides what nodes boot. Both methods may take the time to make it. The text of an error is shown on the
// node's console: it should say what a person has to do.
type Payloads interface {
	// Begin is called when the node itself asks what it is to boot: its boot begins. Before it returns, the node's root
	// is pinned to the version that the payload is of, and event, which tells that the node boots, is durable.
	Begin(ctx context.Context, node *cluster.Node, event boot.Event) (Payload, error)
	// Current returns what the node boots as things are now. Nothing begins.
	Current(ctx context.Context, node *cluster.Node) (Payload, error)
}

// Progress keeps how far boots are.
type Progress interface {
	// Report adds a step to a node's boot. An event without a time is of now.
	Report(node cluster.NodeName, event boot.Event)
	// Refused notes what a node asked for and did not get. It reports whether what the node asked for before was
	// something else.
	Refused(node cluster.NodeName, what boot.Refusal) (first bool)
	// Stage returns the stage of a node's last event, "" when there is none.
	Stage(node cluster.NodeName) boot.Stage
	// Boots reports whether a node that asks for boot files boots. It may block for a few seconds when the node ran.
	Boots(ctx context.Context, node *cluster.Node) bool
}

// Options are what a Server needs. All but FromDHCP must be set.
type Options struct {
	Policy   *boot.Policy
	Payloads Payloads
	Progress Progress
	Loaders  Loaders
	Log      *slog.Logger
	// FromDHCP says that every boot begins with a request that this server answers by DHCP. When a node that runs asks
	// for boot files without one, it does not boot: one of its users looks. If another server answers DHCP, each such
	// request may be of a boot.
	FromDHCP bool
}

// Server serves the boots of one server's nodes.
type Server struct{ Options }

// New returns a Server.
func New(o Options) *Server { return &Server{o} }

// requester is a node on whose behalf a request is answered.
type requester struct {
	boot.Target
	observer  bool // it is not the node's boot that asks, but somebody who wants to see what it would get
	superuser bool // the call is one of the superuser of the calling machine
}

// requester returns the node that calls.
func (s *Server) requester(who caller.Caller) (requester, error) {
	if who.Node == nil {
		return requester{}, fmt.Errorf("%s is no node's address: %w", who.Peer.Remote.Addr(), boot.ErrUnknown)
	}
	t, err := s.Policy.Target(who.Node, who.Interface)
	return requester{Target: t, superuser: who.Superuser}, err
}

// findObserver sets observer: it finds out whether it is the node's boot that asks for boot files.
func (s *Server) findObserver(ctx context.Context, r *requester) {
	if r.observer {
		return
	}
	if (!s.FromDHCP || r.Proxied()) && s.Progress.Stage(r.Node.Name) == boot.StageRunning {
		s.Progress.Report(r.Node.Name, boot.Event{Stage: boot.StageDHCP, Detail: "answered by another server"})
	}
	r.observer = !s.Progress.Boots(ctx, r.Node)
}

// DHCP returns what a client is given, as boot.Policy decides, and reports the step of the node's boot.
func (s *Server) DHCP(c boot.Client) (boot.Lease, error) {
	a, err := s.Policy.DHCP(c)
	if err != nil || a.Event.Stage == "" {
		return a.Lease, err
	}
	if c.Declined && s.Progress.Stage(a.Node) == boot.StageRunning {
		return a.Lease, nil // a program of the node that runs has declined it, for another card or by mistake: no boot
	}
	s.Progress.Report(a.Node, printable(a.Event))
	return a.Lease, nil
}

// Unanswered notes that a DHCP message of a client is not answered. It reports whether the client is a declared node.
// other is the DHCP server whose offer the client took, if that is the reason.
func (s *Server) Unanswered(client net.HardwareAddr, what boot.Refusal, other netip.Addr) (declared bool) {
	n, card, ok := s.Policy.Cluster().NodeByMAC(client)
	if !ok {
		return false
	}
	if other.IsValid() && s.Policy.Cluster().HasServerAt(other) {
		what.Expected = true
	}
	_, err := s.Policy.Target(n, card)
	what.NotMine = err != nil && !other.IsValid()
	what.Text = printableText("DHCP by " + card.Name + ": " + what.Text)
	s.refused(n.Name, what)
	return true
}

// noteRefusal notes a request for a boot file that is refused. Firmware asks for some names in vain before it asks for
// the right one.
func (s *Server) noteRefusal(r *requester, protocol string, err error) {
	if r.Node != nil && !r.observer {
		text := printableText(protocol + ": " + err.Error())
		s.refused(r.Node.Name, boot.Refusal{Text: text, Expected: true, NotMine: errors.Is(err, boot.ErrNotMine)})
	}
}

// refused notes a refusal. That another server serves the node is logged once, however often the node asks here.
func (s *Server) refused(node cluster.NodeName, what boot.Refusal) {
	if first := s.Progress.Refused(node, what); first && what.NotMine {
		s.Log.Info("node not answered", "node", node, "reason", what.Text)
	}
}

// errEnded is why a node is not told what to boot if its request ends first.
var errEnded = errors.New("its request ended before the answer was ready: the node did not wait for it, or this " +
	"server was stopped")

// begin returns the kernel command line and the payload of a node that asks what to boot; detail says in which form.
func (s *Server) begin(ctx context.Context, r *requester, detail string) (line string, p Payload, err error) {
	if _, err = r.CommandLine(); err == nil { // else nothing begins
		p, err = s.payload(ctx, r, boot.Event{Stage: boot.StageScript, Detail: detail})
	}
	if err == nil {
		line, err = r.CommandLine(p.Words...)
	}
	if err != nil && ctx.Err() != nil {
		err = errEnded
	}
	if err != nil {
		s.Log.Warn("node cannot boot", "node", r.Node.Name, "error", err)
		s.report(r, boot.Event{Stage: boot.StageScript, Error: err.Error()})
	}
	return line, p, err
}

func (s *Server) payload(ctx context.Context, r *requester, event boot.Event) (Payload, error) {
	if r.observer {
		return s.Payloads.Current(ctx, r.Node)
	}
	return s.Payloads.Begin(ctx, r.Node, event)
}

// report reports a step of a node's boot, unless it is somebody else who asks.
func (s *Server) report(r *requester, e boot.Event) {
	if !r.observer {
		s.Progress.Report(r.Node.Name, printable(e))
	}
}

// maxText bounds the words of a node that are kept.
const maxText = 200

// printable makes one bounded line of printable text of each text of an event: it will be shown on terminals.
func printable(e boot.Event) boot.Event {
	e.Detail, e.Error = printableText(e.Detail), printableText(e.Error)
	return e
}

func printableText(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s))
}
