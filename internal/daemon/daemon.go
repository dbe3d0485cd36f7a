// Package daemon assembles the program: it opens what a server needs, wires deeds to protocols and the control API to both, and
// is the only place that opens listening sockets. Everything it knows it was told by Config and by the packages it wires; nobody
// but cmd may import it.
//
// # Start
//
// The order is what makes a server that restarts with nothing but its own disk serve its nodes: the kept copy of the declared state
// is read, the store and the replicas are opened, the sockets listen, the replicas are attached, and only then does the
// daemon look for the shared state, for as long as it takes.
//
// # Declared state
//
// One goroutine (follow) takes states from coord, in order, and adopts each: keeps it on disk, parses the description if
// that changed, moves replicas. What holds now is one pointer, replaced whole; readers take no lock.
//
// # Without the shared state
//
// Nodes are served what was declared last; what would change something is refused with a reason. A state that is found empty was
// lost: description, versions, tags and desired versions are put back from what was kept. An embedded etcd that ended can only be started by a new
// process, so Run returns ErrRestart as soon as that has a chance (there is room on the disk again), unless the directory was replaced, which is opened here.
//
// What could not be done for a replica (reconcile) is tried again every few seconds (mend).
//
// # Lock order
//
// watched.capturing, telling, adopting, exports.changing, then mu. A node's call takes none of them, but the first one by a handle of before the last start that is
// of no replica its node has now.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"dim/internal/cluster"
	"dim/internal/compare"
	"dim/internal/control"
	"dim/internal/control/server"
	"dim/internal/coord"
	"dim/internal/dhcp"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/pki"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/versionfs"
)

// Config tells Run what to be.
type Config struct {
	Data        string   // data directory, made by `dim init`
	ClusterFile string   // description to apply at the start; "": the one applied before
	As          string   // name of this server in the description
	Endpoints   []string // of an existing etcd; nil: the embedded one
	Loaders     string   // directory of the iPXE programs; "": /usr/lib/ipxe
	InitDir     string   // directory of the dim-init programs; "": that of this program
	Program     string   // this program's version, for `dim status`
	Log         *slog.Logger
}

// Bounds of the HTTP service. Nodes fetch a few files each; what a stranger opens must leave room for NFS, and for other machines.
const (
	httpConns     = 8192
	httpConnsEach = 64 // from one address
	headerTimeout = 10 * time.Second
	bodyTimeout   = 10 * time.Second // nodes say little
	idleTimeout   = 2 * time.Minute
	stuckTimeout  = time.Minute // for a client that takes nothing of what is sent
)

// machinesKept is how many unknown machines are remembered.
const machinesKept = 1000

// daemon is one running server.
type daemon struct {
	config  Config
	layout  layout
	server  cluster.ServerName
	started time.Time
	log     *slog.Logger

	listening *cluster.Server // as it was when the sockets were opened

	lock     *os.File
	store    *store.Store
	set      *replica.Set
	assets   *assets
	exports  *exports
	nfs      *nfs.Server
	rpc      *oncrpc.Server
	classes  *classes
	liveness *liveness.Tracker
	push     *push.Hub
	machines *dhcp.Machines

	compare *compare.Comparer
	wrong   problems.List // what is wrong now, for `dim status`

	watches watches

	current  atomic.Pointer[declared]
	adopting sync.Mutex // held by who adopts a state

	tried     chan struct{} // closed when the shared state was found, or not, for the first time
	unsettled atomic.Bool   // a replica does not show what is declared; mend tries again
	untold    atomic.Bool   // the shared state may lack a version that is in the store; mend tells it

	holds   atomic.Bool // a node in the middle of its boot keeps what it is to leave
	booted  atomic.Bool // a node has booted what it was to follow from then on, and the shared state does not know
	calling atomic.Bool // a node has called since drive looked last

	telling sync.Mutex // guards what follows
	told    bool       // the description of the command line was put, if there is one

	// Guarded by adopting:
	seen    map[cluster.NodeName]bool // nodes that were declared once
	unmoved bool                      // the last switch failed for some replica

	mu         sync.Mutex // guards what follows
	coord      *coord.Coord
	coordErr   error
	coordSince time.Time
	captures   map[string]control.Progress // that run now, by image
	mounts     map[int]mounted
	mountSeq   int
	services   []control.Service
	waits      map[int]string // what rollouts wait for, by number
}

// Run serves until ctx ends, which is a success, or something breaks that a restart may mend.
func Run(ctx context.Context, c Config) error {
	d, err := newDaemon(c)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.load(); err != nil {
		return err
	}
	me, _ := d.cluster().Server(d.server)
	sockets, err := listen(ctx, me)
	if err != nil {
		return err
	}
	defer sockets.close()
	d.listening = me
	d.noteServices(sockets)
	d.reconcile(ctx)
	return d.serve(ctx, sockets)
}

func newDaemon(c Config) (*daemon, error) {
	if c.InitDir == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		c.InitDir = filepath.Dir(self)
	}
	if err := pki.Check(c.Data); err != nil {
		return nil, err
	}
	lock, err := lockData(c.Data)
	if err != nil {
		return nil, err
	}
	d := &daemon{
		config: c, lock: lock, layout: layout(c.Data), server: cluster.ServerName(c.As), started: time.Now(), log: c.Log,
		machines: dhcp.NewMachines(machinesKept),
		captures: map[string]control.Progress{}, mounts: map[int]mounted{},
		watches: newWatches(), tried: make(chan struct{}), waits: map[int]string{}, seen: map[cluster.NodeName]bool{},
	}
	d.addSources()
	d.coordErr = fmt.Errorf("not found yet: %s", cmp.Or(strings.Join(c.Endpoints, ", "), d.layout.coord()))
	d.push = push.New(push.Options{Caller: d.caller, Changes: d.changesSince, Seen: d.seenAt, Log: c.Log})
	d.exports = newExports(d)
	d.nfs = nfs.New(d.exports, nfs.Options{Log: d.log})
	d.rpc = oncrpc.NewServer(oncrpc.Options{Log: d.log}, d.nfs.Programs()...)
	d.classes = new(classes)
	if err := d.open(); err != nil {
		d.close()
		return nil, err
	}
	d.assets = newAssets(d.layout.boot(), c.InitDir, d.store, d.log)
	return d, nil
}

// open opens what is on disk; close closes it, also when only a part was opened.
func (d *daemon) open() (err error) {
	if d.store, err = store.Open(d.layout.store(), store.Options{}); err != nil {
		return err
	}
	d.compare = compare.New(d.store.Tree, func(root image.Entry) fs.FS { return versionfs.New(d.store, root) }, d.log)
	if d.set, err = replica.Open(replica.Options{Dir: d.layout.replicas(), Source: d.store, Log: d.log}); err != nil {
		return err
	}
	if d.liveness, err = liveness.Open(d.layout.boots(), d.log); err != nil {
		return err
	}
	if err := d.push.Load(d.layout.mounts()); err != nil {
		d.log.Warn("what nodes have mounted is not known until they call", "error", err)
	}
	return nil
}

// serve runs everything until one part ends.
func (d *daemon) serve(ctx context.Context, l *sockets) error {
	ln, release, err := d.listenControl()
	if err != nil {
		return err
	}
	defer release()
	g, all := errgroup.WithContext(ctx)
	g.Go(func() error { return d.newServices(l).serve(all, l) })
	g.Go(func() error { return server.Serve(all, ln, d, d.log) })
	g.Go(func() error { return d.follow(all) })
	g.Go(func() error { return d.mend(all) })
	g.Go(func() error { return d.drive(all) })
	g.Go(func() error { return d.watchMasters(all) })
	g.Go(func() error { return d.expire(all) })
	g.Go(func() error { return d.journal(all) })
	g.Go(func() error { return d.liveness.Probe(all, func() []*cluster.Node { return d.cluster().Nodes }) })
	g.Go(func() error { return releaseMemory(all) })
	d.log.Info("serving", "server", d.server, "cluster", d.cluster().Name, "nodes", len(d.cluster().Nodes))
	_, _ = sd.SdNotify(false, sd.SdNotifyReady) // without systemd there is nobody to notify
	err = g.Wait()
	d.endMounts()
	if ctx.Err() != nil {
		if err != nil && !errors.Is(err, context.Canceled) {
			d.log.Warn("end", "error", err)
		}
		return nil
	}
	return err
}

func (d *daemon) close() {
	var errs []error
	if d.assets != nil {
		d.assets.close()
	}
	if d.liveness != nil {
		errs = append(errs, d.liveness.Close())
	}
	if d.set != nil {
		errs = append(errs, d.set.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if c := d.shared(); c != nil {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(append(errs, d.lock.Close())...); err != nil {
		d.log.Error("end", "error", err)
	}
}

// shows returns the version that a node's replica shows: the kernel that it boots must fit the modules that it will find.
func (d *daemon) shows(n *cluster.Node) (image.Version, error) {
	if x := d.exports.node(n.Name); x != nil && x.fs.Tree() == treeOf(n) {
		return x.fs.Version(), nil
	}
	if text := d.wrong.Text(problems.Node(n.Name)); text != "" {
		return image.Version{}, errors.New(text)
	}
	v, err := d.declared().version(n)
	if err == nil {
		err = d.errorf("node %s is not served here", n.Name)
	}
	return v, err
}

// noteServices remembers what listens, for `dim status`.
func (d *daemon) noteServices(l *sockets) {
	for _, ln := range l.nfs {
		d.services = append(d.services, control.Service{Name: "nfs", Address: ln.Addr().String()})
	}
	for _, ln := range l.http {
		d.services = append(d.services, control.Service{Name: "http", Address: ln.Addr().String()})
	}
	for _, pc := range l.tftp {
		d.services = append(d.services, control.Service{Name: "tftp", Address: pc.LocalAddr().String()})
	}
	for _, pc := range l.dhcp {
		d.services = append(d.services, control.Service{Name: "dhcp", Address: pc.LocalAddr().String()})
	}
}

// layout is a data directory; docs/formats/data.md.
type layout string

func (l layout) store() string    { return filepath.Join(string(l), "store") }
func (l layout) replicas() string { return filepath.Join(string(l), "replicas") }
func (l layout) coord() string    { return filepath.Join(string(l), "coord") }
func (l layout) boot() string     { return filepath.Join(string(l), "cache", "boot") }
func (l layout) boots() string    { return filepath.Join(string(l), "cache", "boots.log") }
func (l layout) mounts() string   { return filepath.Join(string(l), "cache", "mounts.json") }
func (l layout) notes() string    { return filepath.Join(string(l), "cache", "capture") }
func (l layout) state() string    { return filepath.Join(string(l), "state.json") }

func (d *daemon) errorf(format string, args ...any) error {
	return fmt.Errorf("serve as %s: "+format, append([]any{d.server}, args...)...)
}
