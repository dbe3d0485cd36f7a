package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"dim/internal/backup"
	"dim/internal/backup/stopped"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// backupTo makes a backup of the running server, which must be complete.
func (s *site) backupTo(dir string) (path string, info *backup.Info) {
	s.t.Helper()
	o := backup.Options{Data: s.data, Source: s.client(), Program: "test"}
	path, info, err := backup.Make(s.t.Context(), dir, o)
	testkit.Must(s.t, err)
	if !info.Complete {
		s.t.Fatalf("the backup is incomplete: %q", info.Problems)
	}
	return path, info
}

// successor returns a site with the same description, master and ports, whose data directory does not exist yet.
func (s *site) successor(data string) *site {
	next := *s
	next.data, next.log, next.cancel, next.given = data, &lockedBuffer{}, nil, false
	s.t.Cleanup(func() {
		_ = next.stop()
		if s.t.Failed() {
			s.t.Logf("the log of the second server:\n%s", next.log.String())
		}
	})
	return &next
}

// declared returns the declared state that a server has kept, without what names the etcd that it is in.
func (s *site) declared() coord.State {
	s.t.Helper()
	st, err := coord.LoadState(filepath.Join(s.data, "state.json"))
	testkit.Must(s.t, err)
	st.Store, st.Revision = "", 0
	if st.Description != nil {
		st.Description.Revision = 0
	}
	return st
}

// A node that runs while its server is replaced by one that was restored from a backup keeps its files and its handles.
func TestAServerGoesOnFromItsBackup(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.61")
	s.start()
	s.capture("compute")
	n01 := s.mount("127.0.0.11", "/nodes/n01")
	write(t, n01, "etc", "mine", "before")
	s.put("etc/motd", "two\n")
	motd1, err := lookUp(n01, "etc/motd")
	testkit.Must(t, err)
	s.capture("compute")
	if _, err := s.client().Tag(t.Context(), "compute@1", "stable"); err != nil {
		t.Fatal(err)
	}
	handles := map[string]vfs.Handle{"etc/motd of version 1": motd1}
	for _, path := range []string{"etc/mine", "etc/motd", "usr/bin/tool", "etc"} {
		h, err := lookUp(n01, path)
		testkit.Must(t, err)
		handles[path] = h
	}
	dir := filepath.Join(t.TempDir(), "backup")
	_, info := s.backupTo(dir)
	if len(info.Layers) != 1 || len(info.Versions) != 2 || info.Layers[0].Version != 2 || !info.Secrets {
		t.Errorf("the backup has %+v", info)
	}
	write(t, n01, "etc", "late", "after the moment")
	testkit.Must(t, s.stop())
	want := s.declared()

	r := backup.Restoration{From: dir}
	_, err = r.Verify(t.Context())
	testkit.Must(t, err)
	next := s.successor(filepath.Join(t.TempDir(), "data"))
	_, err = r.Restore(t.Context(), next.data)
	testkit.Must(t, err)
	next.start()
	again := next.mount("127.0.0.11", "/nodes/n01")
	for path, h := range handles {
		var a vfs.Attr
		if err := again.Attr(h, &a); err != nil {
			t.Errorf("the handle of %s: %v", path, err)
		}
		if now, err := lookUp(again, path); !strings.Contains(path, " ") && (err != nil || now != h) {
			t.Errorf("%s has another handle: %v", path, err)
		}
	}
	buf := make([]byte, 100)
	if n, _, err := again.Read(superuser, motd1, buf, 0); err != nil || string(buf[:n]) != "one\n" {
		t.Errorf("a file that a switch had replaced, open over the restore, reads %q: %v", buf[:n], err)
	}
	if got := read(t, again, "etc/mine"); got != "before" {
		t.Errorf("the node's own file is %q", got)
	}
	if _, err := lookUp(again, "etc/late"); !errors.Is(err, vfs.ENOENT) {
		t.Errorf("a file from after the backup is there: %v", err)
	}
	write(t, again, "etc", "more", "it can be written to")
	testkit.Eventually(t, "the declared state is back", func() bool { return next.status().Coord.OK })
	testkit.Must(t, next.stop())
	if diff := cmp.Diff(want, next.declared()); diff != "" {
		t.Errorf("the declared state differs (-before +after):\n%s", diff)
	}
}

// One node gets the layer of a backup, and what it had is kept.
func TestOneNodeIsRestoredFromABackup(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.62")
	s.start()
	s.capture("compute")
	n01, n02 := s.mount("127.0.0.11", "/nodes/n01"), s.mount("127.0.0.12", "/nodes/n02")
	write(t, n01, "etc", "mine", "before")
	write(t, n02, "etc", "mine", "of n02")
	dir := filepath.Join(t.TempDir(), "backup")
	s.backupTo(dir)
	mine, err := lookUp(n01, "etc/mine")
	testkit.Must(t, err)
	_, err = n01.Write(superuser, mine, []byte("after!"), 0, vfs.FileSync)
	testkit.Must(t, err)
	write(t, n01, "etc", "later", "later")

	b, err := backup.OpenStored(dir)
	testkit.Must(t, err)
	defer b.Close()
	layer, err := b.ImportLayer(t.Context(), s.data, "n01", "compute")
	testkit.Must(t, err)
	done, err := s.client().RestoreSnapshot(t.Context(), "n01",
		control.RestoreSnapshotRequest{To: layer.Stamp, Force: true})
	testkit.Must(t, err)
	if len(done.Paths) != 2 || done.Unknown {
		t.Errorf("the restore did %+v", done)
	}
	if got := read(t, n01, "etc/mine"); got != "before" {
		t.Errorf("the node has %q", got)
	}
	if _, err := lookUp(n01, "etc/later"); !errors.Is(err, vfs.ENOENT) {
		t.Errorf("a file from after the backup is there: %v", err)
	}
	if got := read(t, n02, "etc/mine"); got != "of n02" {
		t.Errorf("another node has %q", got)
	}
	saved, err := s.client().Saved(t.Context(), "n01")
	testkit.Must(t, err)
	if len(saved) != 2 {
		t.Errorf("set aside: %+v", saved)
	}
	if _, err := b.ImportLayer(t.Context(), s.data, "n03", "compute"); !errors.Is(err, backup.ErrNoLayer) {
		t.Errorf("a node that had no layer: %v", err)
	}
}

// turns are two files of a node that are written to in turn: the first is never behind the second.
type turns struct {
	tree         *nfsclient.Tree
	files        [2]vfs.Handle
	acknowledged atomic.Uint64
}

func newTurns(s *site, from, node string) *turns {
	s.t.Helper()
	x := &turns{tree: s.mount(from, "/nodes/"+node)}
	for i, name := range []string{"first", "second"} {
		write(s.t, x.tree, "etc", name, "00000000")
		h, err := lookUp(x.tree, "etc/"+name)
		testkit.Must(s.t, err)
		x.files[i] = h
	}
	return x
}

// run writes until stop.
func (x *turns) run(stop *atomic.Bool) error {
	for n := uint64(1); !stop.Load(); n++ {
		for _, h := range x.files {
			if _, err := x.tree.Write(superuser, h, fmt.Appendf(nil, "%08d", n), 0, vfs.FileSync); err != nil {
				return err
			}
		}
		x.acknowledged.Store(n)
	}
	return nil
}

// While nodes write, rollouts switch them and versions are removed, a backup is of one moment for each node, has what
// was acknowledged before it began, and can be served.
func TestABackupOfABusyServerIsConsistent(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.63")
	s.start()
	s.capture("compute")
	var stop atomic.Bool
	var g errgroup.Group
	nodes := map[string]*turns{
		"n01": newTurns(s, "127.0.0.11", "n01"), "n02": newTurns(s, "127.0.0.12", "n02"),
	}
	for _, x := range nodes {
		g.Go(func() error { return x.run(&stop) })
	}
	g.Go(func() error {
		for n := 0; !stop.Load(); n++ {
			s.put("etc/motd", fmt.Sprintf("version %d\n", n))
			r := control.CaptureRequest{Image: "compute", Rollout: &control.RolloutRequest{When: "now"}}
			if _, err := s.client().Capture(t.Context(), r, func(control.Progress) {}); err != nil {
				return err
			}
			_, err := s.client().Prune(t.Context(), control.PruneRequest{Keep: 1})
			if e, ok := errors.AsType[*control.Error](err); err != nil && (!ok || e.Code != control.Busy) {
				return err
			}
		}
		return nil
	})
	dir := filepath.Join(t.TempDir(), "backup")
	var before map[string]uint64
	for range 4 { // the later ones share with those before
		before = map[string]uint64{}
		for name, x := range nodes {
			before[name] = x.acknowledged.Load()
		}
		s.backupTo(dir)
	}
	stop.Store(true)
	testkit.Must(t, g.Wait())
	testkit.Must(t, s.stop())
	names, err := backup.List(dir)
	testkit.Must(t, err)
	for _, name := range names {
		_, err := backup.Restoration{From: filepath.Join(dir, name)}.Verify(t.Context())
		testkit.Must(t, err)
	}
	next := s.successor(filepath.Join(t.TempDir(), "data"))
	_, err = backup.Restoration{From: dir}.Restore(t.Context(), next.data)
	testkit.Must(t, err)
	next.start()
	for name, x := range nodes {
		tree := next.mount("127.0.0.1"+name[2:], "/nodes/"+name)
		var n [2]uint64
		for i, h := range x.files {
			buf := make([]byte, 8)
			if _, _, err := tree.Read(superuser, h, buf, 0); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			n[i], err = strconv.ParseUint(string(buf), 10, 64)
			testkit.Must(t, err)
		}
		if n[1] < before[name] || n[0] < n[1] || n[0] > n[1]+1 {
			t.Errorf("%s: acknowledged %d, restored %d and %d", name, before[name], n[0], n[1])
		}
		if got := read(t, tree, "etc/motd"); !strings.HasPrefix(got, "version ") && got != "one\n" {
			t.Errorf("%s reads %q", name, got)
		}
	}
	testkit.Must(t, next.stop())
	checked, err := CheckReplicas(next.data, "")
	testkit.Must(t, err)
	for _, c := range checked {
		for _, p := range c.Problems {
			t.Errorf("%s/%s: %s %s", c.Node, c.Image, p.Path, p.Text)
		}
	}
}

// A server that does not run is backed up from its data directory, and no daemon starts meanwhile.
func TestAStoppedServerIsBackedUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.64")
	s.start()
	s.capture("compute")
	write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "mine", "mine")
	if _, err := stopped.Open(s.data); err == nil {
		t.Fatal("the data directory of a running server can be locked")
	}
	testkit.Must(t, s.stop())
	want := s.declared()
	testkit.Must(t, os.Remove(filepath.Join(s.data, "state.json"))) // the embedded etcd has it
	source, err := stopped.Open(s.data)
	testkit.Must(t, err)
	if err := Run(t.Context(), Config{Data: s.data, As: "head", Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a daemon started while the backup is made")
	}
	dir := filepath.Join(t.TempDir(), "backup")
	_, info, err := backup.Make(t.Context(), dir, backup.Options{Data: s.data, Source: source})
	testkit.Must(t, err)
	_, second, err := backup.Make(t.Context(), dir, backup.Options{Data: s.data, Source: source})
	testkit.Must(t, err)
	testkit.Must(t, source.Close())
	if second.Written >= info.Written {
		t.Errorf("the first backup has written %d bytes, the second %d", info.Written, second.Written)
	}
	if !info.Complete || info.Cluster != "small" || info.Server != "head" || len(info.Layers) != 1 ||
		info.Layers[0].Version != 1 {
		t.Errorf("the backup is %+v", info)
	}
	next := s.successor(filepath.Join(t.TempDir(), "data"))
	_, err = backup.Restoration{From: dir}.Restore(t.Context(), next.data)
	testkit.Must(t, err)
	next.start()
	if got := read(t, next.mount("127.0.0.11", "/nodes/n01"), "etc/mine"); got != "mine" {
		t.Errorf("the node's file is %q", got)
	}
	testkit.Eventually(t, "the declared state is back", func() bool { return next.status().Coord.OK })
	testkit.Must(t, next.stop())
	if diff := cmp.Diff(want, next.declared()); diff != "" {
		t.Errorf("the declared state differs (-before +after):\n%s", diff)
	}
}

// docs/guide/backup.md: a data directory is moved by rsync.
func TestADataDirectoryIsMoved(t *testing.T) {
	t.Parallel()
	rsync, err := exec.LookPath("rsync")
	if err != nil {
		t.Skip("needs rsync")
	}
	s := newSite(t, "127.0.0.65")
	s.start()
	s.capture("compute")
	n01 := s.mount("127.0.0.11", "/nodes/n01")
	write(t, n01, "etc", "mine", "mine")
	etc, err := lookUp(n01, "etc")
	testkit.Must(t, err)
	_, err = n01.Remove(superuser, etc, "motd")
	testkit.Must(t, err)
	mine, err := lookUp(n01, "etc/mine")
	testkit.Must(t, err)
	testkit.Must(t, s.stop())
	next := s.successor(filepath.Join(t.TempDir(), "data"))
	out, err := exec.Command(rsync, "-aHAXS", "--numeric-ids", s.data+"/", next.data+"/").CombinedOutput()
	if err != nil {
		t.Fatalf("rsync: %v\n%s", err, out)
	}
	next.start()
	again := next.mount("127.0.0.11", "/nodes/n01")
	buf := make([]byte, 10)
	if n, _, err := again.Read(superuser, mine, buf, 0); err != nil || string(buf[:n]) != "mine" {
		t.Errorf("a handle from before reads %q: %v", buf[:n], err)
	}
	if _, err := lookUp(again, "etc/motd"); !errors.Is(err, vfs.ENOENT) {
		t.Errorf("a file that the node had removed: %v", err)
	}
}

// afterStage calls then after a layer was copied.
type afterStage struct {
	backup.Source
	then func()
}

func (a *afterStage) Stage(ctx context.Context, r control.StageRequest) (control.Staged, func(), error) {
	s, release, err := a.Source.Stage(ctx, r)
	a.then()
	return s, release, err
}

// A layer is over the version that it was over at its moment, also if the node is switched before the backup ends, and
// that version removed. The restored server makes up for the switch.
func TestASwitchDuringABackupIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.66")
	s.start()
	s.capture("compute")
	n01 := s.mount("127.0.0.11", "/nodes/n01")
	motd, err := lookUp(n01, "etc/motd")
	testkit.Must(t, err)
	_, err = n01.Write(superuser, motd, []byte("own"), 0, vfs.FileSync)
	testkit.Must(t, err)
	s.put("etc/motd", "two\n")
	source := &afterStage{s.client(), func() {
		s.capture("compute")
		if got := read(t, n01, "etc/motd"); got != "two\n" {
			t.Errorf("after the switch the node reads %q", got)
		}
	}}
	dir := filepath.Join(t.TempDir(), "backup")
	_, info, err := backup.Make(t.Context(), dir, backup.Options{Data: s.data, Source: source})
	testkit.Must(t, err)
	if !info.Complete || info.Layers[0].Version != 1 || len(info.Versions) != 2 {
		t.Errorf("the backup is %+v", info)
	}
	testkit.Must(t, s.stop())
	next := s.successor(filepath.Join(t.TempDir(), "data"))
	_, err = backup.Restoration{From: dir}.Restore(t.Context(), next.data)
	testkit.Must(t, err)
	next.start()
	if got := read(t, next.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "two\n" {
		t.Errorf("after the restore the node reads %q", got)
	}
	saved, err := next.client().Saved(t.Context(), "n01")
	testkit.Must(t, err)
	if len(saved) != 1 || saved[0].Path != "/etc/motd" {
		t.Errorf("set aside: %+v", saved)
	}
}

// An image server and its head are each replaced by a machine with a backup of it. Then they work together as before.
func TestServersOfAClusterAreRestored(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	is1 := newImageServer(t, head, "127.0.0.3")
	head.start()
	is1.start()
	head.capture("compute")
	testkit.Eventually(t, "n01 shows the head's version", func() bool { return is1.node().Version == 1 })
	write(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine")
	base := t.TempDir()
	for _, s := range []*site{head, is1} {
		s.backupTo(filepath.Join(base, s.name))
	}
	testkit.Must(t, is1.stop())
	testkit.Must(t, head.stop())
	var next [2]*site
	for i, s := range []*site{head, is1} {
		next[i] = s.successor(filepath.Join(base, s.name+"-data"))
		_, err := backup.Restoration{From: filepath.Join(base, s.name)}.Restore(t.Context(), next[i].data)
		testkit.Must(t, err)
		next[i].start()
	}
	if got := read(t, next[1].mount("127.0.0.11", "/nodes/n01"), "etc/own"); got != "mine" {
		t.Errorf("the node's file is %q", got)
	}
	testkit.Eventually(t, "the new head can change the state", func() bool { return next[0].status().Coord.OK })
	head.put("etc/motd", "two\n")
	next[0].capture("compute")
	testkit.Eventually(t, "the node is switched", func() bool { return next[1].node().Version == 2 })
	testkit.Eventually(t, "the new head knows that", func() bool { return next[0].node().Version == 2 })
}
