// Package loadtest lends roots to a load test of a server in use, and tells what the test costs the server.
//
// # Concepts
//
// A session is one load test. Each of its simulated nodes has a root: a version and a layer of its own, like that of a
// real node. The layers are in a scratch directory. Roots of a session belong to no node of the description and are in
// no declared state. Only the superuser of this machine reaches them, or of
// the head that makes the load.
//
// A session ends when its maker ends it, when the maker has not been heard of for a while, or with the daemon. Then
// its directory is removed. What a killed daemon has left is removed by the next one.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Host.mu is held while a session begins or ends.
//
// # What it must not know
//
// How files are asked for and how the load is made.
package loadtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/procstat"
	"dim/internal/replica"
	"dim/internal/store"
)

const (
	// maxNodes is the most simulated nodes of a session.
	maxNodes = 4096
	// silence is how long a session lasts without a word of its maker.
	silence = 30 * time.Second
	// rootBytes and rootFiles are what the layer of a simulated node takes at most: 300 files with a block each, and
	// their directory. On ext4 the inodes take some more.
	rootBytes, rootFiles = 2 << 20, 320
	// reserve is the part of the disk, in percent, that simulated nodes leave free: twice what real nodes must.
	reserve = 10
	// openFiles is how many files the roots keep open at most.
	openFiles = 1024
)

// Roots exports the roots of a session. serving.Server implements it.
type Roots interface {
	// Lend exports roots at prefix + "0" and so on, to those whom admits accepts. end returns when no call uses them.
	Lend(prefix string, roots []*replica.Replica, admits func(caller.Caller) bool) (end func())
}

// Declared is the declared state. follow.Follower implements it.
type Declared interface{ Now() *follow.Declared }

// Options of a Host. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Dir      string             // for the layers of simulated nodes, on the disk of those of real nodes
	Prefix   string             // of the paths of roots
	Store    *store.Store
	Roots    Roots
	Declared Declared
	Log      *slog.Logger
}

// Host holds the sessions of one server: one at a time.
type Host struct {
	Options
	left    []string // directories that an earlier process left
	started time.Time

	active atomic.Pointer[session] // current, for those who must not wait

	mu      sync.Mutex
	current *session
	closed  bool
}

// session is one load test.
type session struct {
	control.Storm
	version image.Version
	dhcp    bool               // this server answers DHCP
	mac     net.HardwareAddr   // of node 0
	maker   cluster.ServerName // that makes the load; "": this machine does
	dir     string
	set     *replica.Set
	end     func() // of the loan
	timer   *time.Timer
}

// New returns a Host. What is in o.Dir was left by an earlier process.
func New(o Options) *Host {
	h := &Host{Options: o, started: time.Now()}
	entries, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		o.Log.Warn("what an earlier load test left is not removed", "dir", o.Dir, "error", err)
	}
	for _, e := range entries {
		h.left = append(h.left, filepath.Join(o.Dir, e.Name()))
	}
	return h
}

// Run removes what an earlier process left, and ends the session that is open when ctx ends.
func (h *Host) Run(ctx context.Context) error {
	for _, dir := range h.left {
		h.remove(dir)
	}
	<-ctx.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.current != nil {
		h.finish("the daemon ends")
	}
	return nil
}

func (h *Host) remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		h.Log.Warn("the directory of a load test is not removed", "dir", dir, "error", err)
	}
}

// Begin begins a session whose load another server makes, or this machine if maker is "". The errors are
// control.Errors.
func (h *Host) Begin(ctx context.Context, r control.StormRequest, maker cluster.ServerName) (control.Storm, error) {
	s, err := h.plan(r)
	if err != nil || r.DryRun {
		return s.Storm, err
	}
	s.maker = maker
	s.dhcp = s.dhcp && maker == "" // to act as a relay on another server would take the answers of its own relays
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return s.Storm, control.Errorf(control.Unavailable, "storm: the daemon ends")
	case h.current != nil:
		return s.Storm, control.Errorf(control.Busy, "storm: another load test of %s is in progress", h.Server).
			WithHint("wait until it ends; one whose program was killed ends after " + silence.String())
	}
	if s.Files, err = h.files(ctx, s.version, r.Seed); err != nil {
		return s.Storm, err
	}
	if err := h.lend(ctx, s); err != nil {
		return s.Storm, err
	}
	h.current = s
	h.active.Store(s)
	s.timer = time.AfterFunc(silence, func() { h.expire(s) })
	h.Log.Info("load test begins", "version", s.Ref, "count", s.Nodes)
	return s.Storm, nil
}

// plan returns the session that a request asks for, which has no roots yet.
func (h *Host) plan(r control.StormRequest) (*session, error) {
	now := h.Declared.Now()
	s := &session{Storm: control.Storm{Server: string(h.Server), Nodes: r.Nodes}}
	if r.Nodes < 1 || r.Nodes > maxNodes {
		return s, control.Errorf(control.Invalid, "storm: %d nodes: from 1 to %d", r.Nodes, maxNodes).
			WithHint("what a server takes for one node hardly depends on their number: use --plan for more")
	}
	me, ok := now.Cluster.Server(h.Server)
	if !ok {
		return s, control.Errorf(control.NotFound, "storm: %s is no server of the description", h.Server)
	}
	var err error
	if s.version, err = h.version(now, r.Version); err != nil {
		return s, err
	}
	s.Ref = s.version.Ref().String()
	s.Address = me.Address().String()
	s.Ports = control.StormPorts{NFS: me.Ports.NFS, HTTP: me.Ports.HTTP, TFTP: me.Ports.TFTP}
	s.Machine = control.StormMachine{CPUs: runtime.NumCPU(), Link: procstat.LinkSpeed(me.Address())}
	for _, n := range h.served(now) {
		s.Declared++
		if s.As == "" && string(n.Image.Name) == s.version.Image {
			s.As = string(n.Name)
			s.Address = me.On(n.Boot().Network).String()
		}
	}
	s.dhcp = me.DHCP && s.As != ""
	s.Bytes = uint64(r.Nodes) * rootBytes
	return s, h.checkRoom(s)
}

// served returns the nodes of which this server is the first.
func (h *Host) served(now *follow.Declared) (nodes []*cluster.Node) {
	for _, n := range now.Cluster.Nodes {
		if len(n.Servers) > 0 && n.Servers[0].Name == h.Server {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// version returns the version that a reference names, and without one that which most nodes of this server follow.
func (h *Host) version(now *follow.Declared, ref string) (v image.Version, err error) {
	if ref == "" {
		counts, most := map[image.Ref]int{}, 0
		for _, n := range h.served(now) {
			v, err := now.Version(n)
			if err != nil {
				continue
			}
			counts[v.Ref()]++
			if counts[v.Ref()] > most {
				most, ref = counts[v.Ref()], v.Ref().String()
			}
		}
		if ref == "" {
			return v, control.Errorf(control.NotFound, "storm: no node of %s follows a version", h.Server).
				WithHint("name one with --version, or capture an image: dim image capture NAME")
		}
	}
	if v, err = now.Resolve(ref); err != nil {
		return v, err
	}
	if v, err = h.Store.Resolve(v.Ref()); err != nil {
		return v, control.Errorf(control.Unavailable, "storm: %s does not have %s: %v", h.Server, ref, err)
	}
	return v, nil
}

// checkRoom refuses a session whose layers could take the disk's reserve.
func (h *Host) checkRoom(s *session) error {
	var fs unix.Statfs_t
	dir := filepath.Dir(h.Dir)
	if err := unix.Statfs(dir, &fs); err != nil {
		return control.Errorf(control.Unavailable, "storm: look at the disk of %s: %v", dir, err)
	}
	size := uint64(fs.Bsize)
	free, all := fs.Bavail*size, fs.Blocks*size
	files := uint64(math.MaxUint64)
	if fs.Files > 0 { // else the file system makes inodes as it needs them
		files = fs.Ffree
	}
	if free < s.Bytes+all/100*reserve || files < uint64(s.Nodes)*rootFiles+fs.Files/100*reserve {
		return control.Errorf(control.Conflict,
			"storm: the disk of %s has too little room: %d simulated nodes take up to %d MB and %d files, and "+
				"%d %% must stay free", dir, s.Nodes, s.Bytes>>20, s.Nodes*rootFiles, reserve).
			WithHint("take fewer nodes, or make room on the disk")
	}
	return nil
}

// lend makes the roots of s and exports them.
func (h *Host) lend(ctx context.Context, s *session) (err error) {
	var id [8]byte
	rand.Read(id[:])
	s.ID = hex.EncodeToString(id[:])
	s.dir = filepath.Join(h.Dir, s.ID)
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of a load test: %w", err)
	}
	s.set, err = replica.Open(replica.Options{
		Dir: s.dir, Source: h.Store, Log: h.Log, Reserve: reserve, OpenFiles: openFiles,
	})
	if err != nil {
		h.remove(s.dir)
		return err
	}
	specs := make([]replica.Spec, s.Nodes)
	for i := range specs {
		specs[i] = replica.Spec{Node: fmt.Sprintf("storm-%s-%d", s.ID, i), Image: s.version.Image, Version: s.version}
	}
	roots, errs := s.set.AttachAll(ctx, specs)
	if err := errors.Join(errs...); err != nil {
		_ = s.set.Close() // nothing of it stays
		h.remove(s.dir)
		return err
	}
	s.Paths = h.Prefix + s.ID + "/"
	s.mac = net.HardwareAddr{0x02, 0x53, id[0], id[1], 0, 0} // locally administered
	if s.dhcp {
		s.MAC = s.mac.String()
	}
	s.end = h.Roots.Lend(s.Paths, roots, s.admits)
	return nil
}

// admits reports whether who makes the load of s.
func (s *session) admits(who caller.Caller) bool {
	remote := s.maker != "" && who.Superuser && who.Server != nil && who.Server.Name == s.maker
	return who.Node == nil && (who.Root || remote)
}

// Makes reports whether another server that calls makes the load of a session.
func (h *Host) Makes(who caller.Caller) bool {
	s := h.active.Load()
	return s != nil && s.maker != "" && !who.Root && s.admits(who)
}

// Usage returns what this server has used so far, and prolongs a session.
func (h *Host) Usage(id string) (u control.StormUsage, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := h.session(id)
	if err != nil {
		return u, err
	}
	s.timer.Reset(silence)
	return h.usage()
}

// End ends a session and returns what this server had used so far.
func (h *Host) End(id string) (u control.StormUsage, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.session(id); err != nil {
		return u, err
	}
	u, err = h.usage()
	h.finish("")
	return u, err
}

// Version returns the version whose roots are lent; ok is false if there are none.
func (h *Host) Version() (v image.Ref, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil {
		return v, false
	}
	return h.current.version.Ref(), true
}

// session returns the session with an id.
func (h *Host) session(id string) (*session, error) {
	if h.current == nil || h.current.ID != id {
		return nil, control.Errorf(control.NotFound, "storm: the load test has ended on %s", h.Server).
			WithHint("the server was restarted, or heard nothing of the test for " + silence.String())
	}
	return h.current, nil
}

// expire ends a session of whose maker nothing is heard.
func (h *Host) expire(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == s {
		h.finish("nothing is heard of the program that makes the load")
	}
}

// finish ends the current session and removes what is left of it.
func (h *Host) finish(reason string) {
	s := h.current
	h.current = nil
	h.active.Store(nil)
	s.timer.Stop()
	s.end()
	if err := s.set.Close(); err != nil {
		h.Log.Warn("load test did not end well", "error", err)
	}
	h.remove(s.dir)
	h.Log.Info("load test ended", "reason", reason)
}
