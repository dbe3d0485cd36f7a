// Package daemon assembles the program: it opens what a server needs, wires the parts to each other, runs and closes
// them. It looks after this machine (sockets, free disk space, memory, what is installed) and decides nothing about
// nodes. Only cmd imports it.
//
// # Start
//
// A server that restarts with nothing but its own disk serves its nodes, by the order of the start: the kept copy of
// the declared state is read, the store and the replicas are opened, the sockets listen, DHCP, TFTP and HTTP are
// answered, the replicas are attached. Only then nodes can mount them, and the server looks for the shared state, for
// as long as it takes. The control socket answers from the beginning, with how far the start is.
//
// # Lock order across packages
//
//  1. a master's capturing (masters)
//  2. Follower.restoring or Follower.adopting (follow)
//  3. Server.changing (serving)
//  4. the locks of replica
//  5. the locks of store
//
// The locks of liveness, push, problems and metrics are taken last, and no other package's lock under them.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"dim/internal/admission"
	"dim/internal/api"
	"dim/internal/bootfiles"
	"dim/internal/cluster"
	"dim/internal/compare"
	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/control/server"
	"dim/internal/control/wire"
	"dim/internal/coord"
	"dim/internal/coord/member"
	"dim/internal/daemon/sockets"
	"dim/internal/dhcp"
	"dim/internal/diskmark"
	"dim/internal/driver"
	"dim/internal/expiry"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/forward"
	"dim/internal/heap"
	"dim/internal/image"
	"dim/internal/layers/pkgread"
	"dim/internal/liveness"
	"dim/internal/loadtest"
	"dim/internal/loglimit"
	"dim/internal/masters"
	"dim/internal/membership"
	"dim/internal/metrics"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/peer"
	"dim/internal/pki"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/reporting"
	"dim/internal/serving"
	"dim/internal/steadyclock"
	"dim/internal/store"
	"dim/internal/sysfile"
	"dim/internal/versionfs"
	"dim/internal/versions"
)

// Config tells Run what to be.
type Config struct {
	Data        string          // data directory, made by `dim init`
	ClusterFile string          // description to apply at the start; "": the one applied before
	As          string          // name of this server in the description; "": that of its certificate, or else Host
	Host        string          // name of this machine
	Etcd        coord.Remote    // an existing etcd; the zero value: the embedded one
	Loaders     string          // directory of the iPXE programs; "": /usr/lib/ipxe
	InitDir     string          // directory of the dim-init programs; "": that of this program
	Program     string          // this program's version, for `dim status`
	Reader      confine.Program // this program as a process that reads untrusted bytes: it runs Tasks
	Log         *slog.Logger
}

// Tasks are what a Config.Reader runs.
func Tasks() map[string]confine.Task {
	tasks := masters.Tasks()
	tasks[bootfiles.TaskName] = bootfiles.Task()
	tasks[pkgread.TaskName] = pkgread.Task()
	tasks[compare.TaskName] = compare.Task()
	return tasks
}

const (
	// maxMachines bounds how many unknown machines are kept.
	maxMachines = 1000
	// addressWait bounds the wait for an address of this server at the start.
	addressWait = time.Minute
	// maxLogLines bounds the lines of log of one message in a minute, besides one for each node.
	maxLogLines = 500
)

// daemon is one running server. The parts of the second group are on disk.
type daemon struct {
	Config
	server   cluster.ServerName
	started  time.Time
	problems problems.List

	clients  clients
	files    files
	store    *store.Store
	compare  *compare.Comparer
	set      *replica.Set
	liveness *liveness.Tracker

	follow    *follow.Follower
	others    others
	content   content
	push      *push.Hub
	serving   *serving.Server
	roots     roots
	bootfiles *bootfiles.Builder
	driver    *driver.Driver
	masters   *masters.Masters
	api       *api.API
}

// roots are how nodes reach their roots.
type roots struct {
	classes metrics.Classes
	nfs     *nfs.Server
	rpc     *oncrpc.Server

	packages *pkgread.Reader
}

// others are what joins this server to the others.
type others struct {
	credentials *pki.Credentials
	members     *membership.Membership
	server      *peer.Server
	client      *peer.Client
	fleet       *fleet.Fleet
	disk        *membership.DiskGuard
	reporter    *reporting.Reporter
}

// files are what is open in the data directory besides the parts.
type files struct {
	lock  *os.File
	clock *steadyclock.Clock
}

// Run serves until ctx ends, which is a success, or something breaks that a restart may repair. The error is
// follow.ErrRestart when only a new process can go on.
func Run(ctx context.Context, c Config) error {
	d, err := open(c)
	if err != nil {
		return err
	}
	defer d.close()
	paths, release, err := wire.Sockets(d.Data)
	defer release()
	listeners, lerr := sockets.OpenControl(paths, d.Log)
	for _, ln := range listeners {
		defer ln.Close()
	}
	if err = errors.Join(err, lerr); err != nil {
		return err
	}
	d.assemble()
	calls := server.NewCalls(d.serving.Starting)
	g, all := errgroup.WithContext(ctx)
	calls.Readers = wire.Readers()
	for _, ln := range listeners {
		g.Go(func() error { return server.Serve(all, ln, calls, d.Log) })
	}
	g.Go(func() error { return d.start(all, calls) })
	err = g.Wait()
	if d.api != nil {
		d.api.EndMounts()
	}
	if ctx.Err() != nil {
		if err != nil && !errors.Is(err, context.Canceled) {
			d.Log.Warn("end", "error", err)
		}
		return nil
	}
	return err
}

// start finds out what holds, listens, and serves until one part ends.
func (d *daemon) start(ctx context.Context, calls *server.Calls) error {
	if err := d.follow.Load(); err != nil {
		return err
	}
	if err := d.others.members.Begin(); err != nil {
		return err
	}
	me, _ := d.follow.Cluster().Server(d.server)
	l, err := sockets.Open(ctx, me, addressWait, d.Log)
	if err != nil {
		return err
	}
	defer l.Close()
	d.complete(me, l)
	return d.serve(ctx, me, l, calls)
}

// open opens what is on disk.
func open(c Config) (d *daemon, err error) {
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
	d = &daemon{Config: c, started: time.Now()}
	d.Log = slog.New(loglimit.New(c.Log.Handler(), func() int { return maxLogLines + d.nodes() }))
	d.clients = clients{
		mtus:    &sockets.PathMTUs{},
		nfs:     admission.New("nfs", d.declared, d.Log),
		http:    admission.New("http", d.declared, d.Log),
		unknown: dhcp.NewMachines(maxMachines),
	}
	if d.files.lock, err = pki.Lock(c.Data); err != nil {
		return nil, err
	}
	if err := d.openIdentity(layout(c.Data)); err != nil {
		d.close()
		return nil, err
	}
	if err := d.openParts(layout(c.Data)); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// openIdentity finds out which server this is, and makes what depends on that alone.
func (d *daemon) openIdentity(l layout) (err error) {
	if d.others.credentials, err = pki.Open(d.Data); err != nil {
		return err
	}
	if _, err := os.Stat(d.ClusterFile); d.others.credentials.Authority() == nil && errors.Is(err, fs.ErrNotExist) {
		d.ClusterFile = "" // a server that has joined gets the description from the heads
	}
	d.server = cmp.Or(cluster.ServerName(d.As), d.others.credentials.Identity().Name, cluster.ServerName(d.Host))
	d.follow = follow.New(follow.Options{
		Server: d.server, StateFile: l.state(), CoordDir: l.coord(), Etcd: d.Etcd, ClusterFile: d.ClusterFile,
		Heads: d.heads, Log: d.Log,
		Peers: func(now *follow.Declared) (*member.Peers, error) {
			return d.others.members.Peers(now, d.others.client)
		},
	})
	d.others.members = membership.New(membership.Options{
		Server: d.server, Credentials: d.others.credentials, Follow: d.follow, Log: d.Log,
	})
	o := peer.Options{
		Credentials: d.others.credentials, Declared: d.declared, Refused: d.others.members.Refused, Log: d.Log,
	}
	d.others.server, d.others.client = peer.NewServer(o), peer.NewClient(o)
	return nil
}

func (d *daemon) openParts(l layout) (err error) {
	if d.others.fleet, err = fleet.Open(l.reports()); err != nil {
		d.Log.Warn("last reports of other servers are lost", "error", err)
	}
	disk, err := diskmark.Open(l.disk())
	if err != nil {
		d.Log.Error("the marks of this disk are lost", "error", err)
	}
	d.others.disk = &membership.DiskGuard{Server: d.server, Disk: disk, Follow: d.follow, Log: d.Log}
	if d.store, err = store.Open(l.store(), store.Options{Reserve: minFree}); err != nil {
		return err
	}
	d.assemblePuller()
	files := func(root image.Entry) readfs.FS { return versionfs.New(d.store, root) }
	d.compare = compare.New(d.store.Tree, files, d.Reader, d.Log)
	if d.files.clock, err = steadyclock.Open(l.clock()); err != nil {
		d.Log.Warn("the last known time is lost", "error", err)
	}
	o := replica.Options{
		Dir: l.replicas(), Source: d.content.puller.Content(0), Compare: d.compare.Changes, Expiry: d.files.clock.Now,
		Reserve: minFree, Log: d.Log, Await: d.content.puller.Content(readWait).OpenBlob,
	}
	if d.set, err = replica.Open(o); err != nil {
		return err
	}
	d.liveness, err = liveness.Open(l.boots(), d.clients.answers, d.Log)
	return err
}

// assemble makes the parts that declare, serve and boot.
func (d *daemon) assemble() {
	l := layout(d.Data)
	d.push = push.New(push.Options{
		Caller: func(r *http.Request) (cluster.NodeName, error) { return d.serving.CallingNode(r) },
		Changes: func(node cluster.NodeName, image string, stamp int64) (push.Changes, error) {
			return d.serving.ChangedDirs(node, image, stamp)
		},
		Seen: d.liveness.Seen, Log: d.Log,
	})
	if err := d.push.Load(l.mounts()); err != nil {
		d.Log.Warn("what nodes have mounted is not known until they call", "error", err)
	}
	d.roots.packages = pkgread.New(d.Reader)
	d.serving = serving.New(serving.Options{
		Server: d.server, Declared: d.follow, Store: d.store, Set: d.set, Liveness: d.liveness, Push: d.push,
		Class: d.roots.classes.Of, Closed: d.others.disk.Disk.Old, Packages: d.roots.packages,
		Problems: &d.problems, Log: d.Log,
		Content: d.content.puller.Content(0), Partial: d.content.puller.Partial,
	})
	d.roots.nfs = nfs.New(d.serving, nfs.Options{Log: d.Log})
	// The admission controller bounds the connections.
	d.roots.rpc = oncrpc.NewServer(oncrpc.Options{Conns: math.MaxInt, Log: d.Log}, d.roots.nfs.Programs()...)
	d.bootfiles = bootfiles.New(bootfiles.Options{
		Dir: l.boot(), InitDir: d.InitDir, Store: d.content.puller.Content(bootWait), Reader: d.Reader, Log: d.Log,
	})
	d.assembleContent()
	d.others.reporter = reporting.New(reporting.Options{
		Server: d.server, Program: d.Program, Started: d.started, Follow: d.follow, Store: d.store, Roots: d.serving,
		Residents: &reporting.Residents{Push: d.push, Set: d.set}, Liveness: d.liveness, Problems: &d.problems,
		Fleet: d.others.fleet, Heads: d.heads, Arriving: d.content.keeper.Arriving, Disk: d.others.disk.Disk,
		Log: d.Log,
	})
	d.driver = driver.New(driver.Options{
		Server: d.server, Follow: d.follow, Liveness: d.liveness, Roots: d.serving, Fleet: d.others.fleet,
		Problems: &d.problems, Log: d.Log,
	})
}

// complete makes the parts that answer people, once it is known what listens.
func (d *daemon) complete(me *cluster.Server, l *sockets.Set) {
	registry := versions.New(versions.Options{
		Server: d.server, Store: d.store, Follow: d.follow, Replicas: d.set, Removed: d.serving.Drop, Log: d.Log,
		Used: d.inUse, Arriving: d.content.keeper.ArrivingRoots,
	})
	storms := loadtest.New(loadtest.Options{
		Server: d.server, Dir: layout(d.Data).loadtest(), Prefix: serving.LentPrefix, Store: d.store, Roots: d.serving,
		Declared: d.follow, Log: d.Log,
	})
	d.masters = masters.New(masters.Options{
		Server: d.server, Data: d.Data, Notes: layout(d.Data).notes(), Store: d.store, Reader: d.Reader, Log: d.Log,
		Follow: d.follow, Versions: registry, Compare: d.compare, RollOut: d.driver.RollOut, Problems: &d.problems,
	})
	d.api = api.New(
		api.Info{Server: d.server, Program: d.Program, Data: d.Data, Started: d.started, Services: l.Services()},
		api.Parts{
			Store: d.store, Set: d.set, Follow: d.follow, Fleet: d.others.fleet, Registry: registry,
			Compare: d.compare, Masters: d.masters, Driver: d.driver, Members: d.others.members, Serving: d.serving,
			BootFiles: d.bootfiles, Packages: d.roots.packages, Liveness: d.liveness,
			Residents: d.others.reporter.Residents, Holdings: d.content.keeper, Unknown: d.clients.unknown,
			Storms: storms, Expiry: expiry.NewSchedule(d.set), Problems: &d.problems, Log: d.Log,
		})
	registry.RewriteRecords(context.Background())
	d.follow.OnRestore(registry.PutPending)
	d.follow.Subscribe(d.others.disk.Adopted)
	d.others.disk.Begin(context.Background())
	d.follow.Subscribe(d.serving.Adopted)
	d.follow.Subscribe(d.content.keeper.Adopted)
	d.follow.Subscribe(d.others.reporter.Adopted)
	if d.follow.IsHead() {
		d.follow.Subscribe(d.masters.Adopted)
		d.follow.Subscribe(d.driver.Adopted)
		d.lead()
	}
	d.others.members.Handle(d.others.server)
	forward.Handle(d.others.server, d.api, d.Log)
	d.clients.nfs.Apart, d.clients.http.Apart = storms.Makes, storms.Makes
	d.follow.Subscribe(d.adopted)
	for _, s := range d.problemSources(me) {
		d.problems.Add(s)
	}
}

// adopted is a subscriber of follow.Follower: others may be refused from now on.
func (d *daemon) adopted(ctx context.Context, now *follow.Declared) {
	d.others.members.Adopted(ctx, now)
	d.others.server.Recheck()
	d.others.client.Recheck()
}

// serve runs everything until one part ends. What nodes ask for before they have a root is answered at once. The roots
// come next, and then all that needs them: calls of nodes for their roots wait until then.
func (d *daemon) serve(ctx context.Context, me *cluster.Server, l *sockets.Set, calls *server.Calls) error {
	g, all := errgroup.WithContext(ctx)
	services := d.newServices(me, l)
	g.Go(func() error { return services.serve(all, l) })
	d.serving.Reconcile(all)
	parts := []func(context.Context) error{
		func(ctx context.Context) error { return services.serveRoots(ctx, l) },
		func(ctx context.Context) error { return expiry.Run(ctx, d.set, expireInterval, d.Log) },
		func(ctx context.Context) error {
			return d.liveness.Probe(ctx, func() []*cluster.Node { return d.follow.Cluster().NodesOf(d.server) })
		},
		d.follow.Run, d.serving.Run, d.content.keeper.Run, d.others.reporter.Run, d.others.disk.Run, d.api.Storms.Run,
		d.saveState, heap.Release,
		func(ctx context.Context) error { return d.others.members.Run(ctx, d.others.client) },
	}
	if d.follow.IsHead() {
		parts = append(parts, d.driver.Run, d.masters.Run)
	}
	for _, run := range parts {
		g.Go(func() error { return run(all) })
	}
	calls.Open(forward.New(d.api, forward.Options{Server: d.server, Follow: d.follow, Peers: d.others.client}))
	d.Log.Info("serving", "server", d.server, "cluster", d.follow.Cluster().Name, "count",
		len(d.follow.Cluster().Nodes), "took", time.Since(d.started))
	_, _ = sd.SdNotify(false, sd.SdNotifyReady) // fails where no systemd waits for it
	return g.Wait()
}

// close closes what was opened, also when that is only a part.
func (d *daemon) close() {
	var errs []error
	if d.others.client != nil {
		d.others.client.Close()
	}
	if d.bootfiles != nil {
		d.bootfiles.Close()
	}
	if d.roots.packages != nil {
		d.roots.packages.Close()
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
	if d.follow != nil {
		errs = append(errs, d.follow.Close())
	}
	if err := errors.Join(append(errs, sysfile.Unlock(d.files.lock))...); err != nil {
		d.Log.Error("end", "error", err)
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
func (l layout) disk() string     { return filepath.Join(string(l), "disk.json") }
func (l layout) reports() string  { return filepath.Join(string(l), "cache", "reports") }
func (l layout) notes() string    { return filepath.Join(string(l), "cache", "capture") }
func (l layout) loadtest() string { return filepath.Join(string(l), "loadtest") }
func (l layout) clock() string    { return filepath.Join(string(l), "clock.json") }
func (l layout) state() string    { return filepath.Join(string(l), "state.json") }
