package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/boot"
	"dim/internal/boot/delivery"
	"dim/internal/bootfiles"
	"dim/internal/cluster"
	"dim/internal/daemon/sockets"
	"dim/internal/dhcp"
	"dim/internal/dns"
	"dim/internal/loadtest"
	"dim/internal/metrics"
	"dim/internal/oncrpc"
	"dim/internal/peer"
	"dim/internal/ra"
	"dim/internal/tftp"
	"dim/internal/zones"
)

// services are the protocols of this server, ready to serve.
type services struct {
	rpc  *oncrpc.Server
	dhcp *dhcp.Server
	tftp *tftp.Server
	ra   *ra.Responder
	dns  *dns.Server
	http *http.Server
	busy *drained // the handler of http

	clients clients
	api     *peer.Server
}

// Bounds of the HTTP service.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 10 * time.Second // nodes send little
	idleTimeout   = 2 * time.Minute
)

func (d *daemon) newServices(me *cluster.Server, l *sockets.Set) *services {
	loaders := delivery.LoadersIn(d.Loaders)
	b := delivery.New(delivery.Options{
		Policy: &boot.Policy{
			Server: d.server, Cluster: d.follow.Cluster, HasLoader: loaders.Has, Closed: func() error {
				return cmp.Or(d.others.disk.Closed(), d.others.members.Drained())
			},
		},
		Payloads: bootfiles.Payloads{
			Builder: d.bootfiles, Roots: d.serving, Started: d.bootStarted, Ready: d.serving.Ready(),
		},
		Progress: d.liveness, Loaders: loaders, Log: d.Log, FromDHCP: me.DHCP,
	})
	answers := &dhcp.Server{
		Answer: answer(b, d.api.Storms), Refused: unanswered(b), Machines: d.clients.unknown,
		Addresses: sockets.Addresses(me),
		Log:       d.Log,
	}
	files := &tftp.Server{
		Open: openTFTP(b, d.api.Storms), Known: d.known, ListenPacket: sockets.OpenTransfers, MTU: d.mtu,
		MaxTransfers: func() int { return minTransfers + d.nodes() }, Log: d.Log,
	}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", metrics.Health(d.follow.Cluster, d.problemSources(me)))
	mux.Handle("/boot/", b.Handler())
	mux.Handle("GET /metrics", metrics.Handler(metrics.Sources{
		Cluster: d.follow.Cluster, RPC: d.roots.rpc, NFS: d.roots.nfs, Classes: &d.roots.classes,
		Flushes: d.set.Flushes, Stages: d.api.Stages, Disks: d.api.Disks,
		DHCP: answers.Stats, TFTP: files.Stats, Lost: l.Lost, Closed: d.closed,
		Pulled: d.content.puller.Counts, Problems: d.problems.Own,
	}))
	mux.Handle("/node/", d.serving.WhenReady(d.push.Handler()))
	busy := &drained{handler: d.clients.http.Handler(withCleanPath(mux))}
	return &services{
		clients: d.clients,
		api:     d.others.server,
		busy:    busy,
		rpc:     d.roots.rpc,
		dhcp:    answers,
		tftp:    files,
		dns:     &dns.Server{Zones: (&zones.Source{Now: d.follow.Now, Log: d.Log}).Zones, Log: d.Log},
		ra:      &ra.Responder{Interfaces: d.bootInterfaces(me), Log: d.Log},
		http: &http.Server{
			Handler: busy, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
			ConnState: d.clients.http.ConnState,
			ErrorLog:  slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug), // errors of clients
		},
	}
}

// serveRoots serves NFS until ctx ends or one of its sockets breaks. The kernel keeps earlier connections waiting.
func (s *services) serveRoots(ctx context.Context, l *sockets.Set) error {
	return s.rpc.Serve(ctx, s.clients.nfs.Listener(sockets.Join(l.NFS)))
}

// serve serves all but the roots until ctx ends or a socket breaks.
func (s *services) serve(ctx context.Context, l *sockets.Set) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, ln := range l.HTTP {
		g.Go(func() error { return s.serveHTTP(ln) })
	}
	g.Go(func() error {
		<-ctx.Done()
		err := s.http.Close() // a kernel that is half fetched is fetched again
		s.busy.drain()
		return err
	})
	g.Go(func() error { return s.api.Serve(ctx, sockets.Join(l.API)) })
	for _, pc := range l.TFTP {
		g.Go(func() error { return s.tftp.Serve(ctx, pc) })
	}
	for _, pc := range l.DNS {
		g.Go(func() error { return s.dns.Serve(ctx, pc) })
	}
	for _, ln := range l.DNSTCP {
		g.Go(func() error { return s.dns.ServeTCP(ctx, ln) })
	}
	if l.DHCP != nil {
		g.Go(func() error { return s.dhcp.Serve(ctx, l.DHCP) })
		g.Go(func() error { return s.dhcp.ServeBoot(ctx, l.Boot) })
		g.Go(func() error { return s.dhcp.Listen(ctx, l.Answers) })
	}
	if l.RA != nil {
		g.Go(func() error { return s.ra.Serve(ctx, l.RA) })
	}
	return g.Wait()
}

// bootInterfaces returns a function that returns the indexes of the interfaces on which the server has an address now.
// When they cannot be read it returns what it returned last.
func (d *daemon) bootInterfaces(me *cluster.Server) func() []int {
	var last []int
	return func() []int {
		list, err := sockets.InterfacesWith(sockets.Addresses(me))
		if err != nil {
			d.Log.Debug("interfaces not read", "error", err)
			return last
		}
		last = list
		return list
	}
}

// withCleanPath removes double slashes and dots from the paths of requests. ServeMux would redirect such a request, and
// firmware does not follow.
func withCleanPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if clean := path.Clean(r.URL.Path); clean != r.URL.Path && strings.HasPrefix(clean, "/boot/") {
			r.URL.Path, r.URL.RawPath = clean, ""
		}
		next.ServeHTTP(w, r)
	})
}

// drained is a handler that can be waited for; http.Server.Close does not. It waits for the bodies of requests, wanted
// or not, but not for long.
type drained struct {
	handler http.Handler
	running sync.RWMutex
}

// ServeHTTP implements http.Handler.
func (h *drained) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.running.TryRLock() {
		http.Error(w, "the server ends", http.StatusServiceUnavailable)
		return
	}
	defer h.running.RUnlock()
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	h.handler.ServeHTTP(w, r)
}

// drain returns when nothing is handled any more, nor will be.
func (h *drained) drain() { h.running.Lock() }

func (s *services) serveHTTP(ln net.Listener) error {
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answer lets package delivery answer what package dhcp asks; neither knows the other.
func answer(b *delivery.Server, storms *loadtest.Host) func(*dhcp.Request) (dhcp.Lease, error) {
	return func(r *dhcp.Request) (dhcp.Lease, error) {
		archs := make([]uint16, len(r.Archs))
		for i, a := range r.Archs {
			archs[i] = uint16(a)
		}
		c := boot.Client{
			MAC: r.MAC, Relay: r.Relay, Network: r.Network, Link: r.Interface.Name,
			Local: r.Interface.Addresses,
			Archs: archs, VendorClass: r.VendorClass, IPXE: r.IPXE, WantsConfig: r.WantsConfig, BOOTP: r.BOOTP,
			Declined: r.Declined, Taken: r.Taken(), Unprivileged: r.Unprivileged,
		}
		lease, simulated, err := storms.DHCP(b.Policy, c)
		if !simulated {
			lease, err = b.DHCP(c)
		}
		if errors.Is(err, boot.ErrNotMine) {
			err = &dhcp.NotMineError{Reason: err.Error()}
		}
		return dhcp.Lease(lease), err
	}
}

// unanswered lets package delivery note what package dhcp does not answer.
func unanswered(b *delivery.Server) func(dhcp.Refusal) (known bool) {
	return func(r dhcp.Refusal) bool {
		return b.Unanswered(r.MAC, boot.Refusal{Text: r.Reason, Expected: r.Expected}, r.Server)
	}
}

func openTFTP(
	b *delivery.Server, storms *loadtest.Host,
) func(context.Context, netip.AddrPort, string) (tftp.File, error) {
	return func(ctx context.Context, client netip.AddrPort, name string) (tftp.File, error) {
		open := func() (*delivery.Loaded, error) { return b.OpenTFTP(ctx, client, name) }
		if storms.Admits(client) {
			open = func() (*delivery.Loaded, error) { return b.OpenLoader(name) }
		}
		f, err := open()
		if err != nil {
			return nil, err // not f: a nil *delivery.Loaded is not a nil tftp.File
		}
		return f, nil
	}
}
