package daemon

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/backup"
	"dim/internal/control"
	"dim/internal/coord"
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
