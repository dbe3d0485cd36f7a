package daemon

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/follow"
)

// alone starts s, whose shared state cannot be used, and checks that it serves its nodes what was declared last, and
// says what is wrong.
func alone(t *testing.T, s *site, about, hint string) {
	t.Helper()
	s.start()
	tree := s.mount("127.0.0.11", "/nodes/n01")
	if got := read(t, tree, "etc/motd") + read(t, tree, "etc/own"); got != "one\nmine\n" {
		t.Errorf("n01 reads %q", got)
	}
	write(t, tree, "etc", fmt.Sprint("alone-", time.Now().UnixNano()), "x")
	eventually(t, "the status tells", func() bool { return s.problem("shared state").About != "" })
	p := s.problem("shared state")
	if !strings.Contains(p.Text, about) || !strings.Contains(p.Hint, "nodes are served what was declared last") ||
		!strings.Contains(p.Hint, hint) {
		t.Errorf("the status says: %+v", p)
	}
	_, err := s.client().Capture(t.Context(), control.CaptureRequest{Image: "compute"}, func(control.Progress) {})
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Unavailable || e.Hint == "" {
		t.Errorf("a capture: %v", err)
	}
}

// declare makes a state that is worth something: two versions, a tag, and a node's own file.
func declare(t *testing.T, s *site) {
	t.Helper()
	s.put("etc/motd", "zero\n")
	s.capture("compute")
	s.put("etc/motd", "one\n")
	s.capture("compute")
	_, err := s.client().Tag(t.Context(), "compute@1", "first")
	must(t, err)
	write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
}

// recovered checks that s has all that was declared and can be changed.
func recovered(t *testing.T, s *site) {
	t.Helper()
	eventually(t, "the shared state is back", func() bool { return s.problem("shared state").About == "" })
	if v, err := s.client().Version(t.Context(), "compute@first"); err != nil || v.Number != 1 {
		t.Errorf("the tag names %+v, %v", v, err)
	}
	s.put("etc/motd", "three\n")
	if got := s.capture("compute"); got.Version.Number != 3 {
		t.Errorf("the next version is %d", got.Version.Number)
	}
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "three\n" {
		t.Errorf("n01 reads %q", got)
	}
}

func TestAServerWhoseStateIsDamagedServesAndIsMended(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	declare(t, s)
	must(t, s.stop())
	dir := filepath.Join(s.data, "coord")
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	must(t, err)
	for _, path := range logs {
		must(t, os.WriteFile(path, []byte(strings.Repeat("damage", 1000)), 0o600))
	}
	s.given = false
	alone(t, s, "etcd", "mv "+dir+" "+dir+".damaged")
	must(t, os.Rename(dir, dir+".damaged"))
	recovered(t, s)
	must(t, s.stop())
	s.start()
	if d, err := s.client().Description(t.Context()); err != nil || d.Main != "cluster.xml" {
		t.Errorf("the description after all: %q, %v", d.Main, err)
	}
}

func TestAServerWhoseStateIsGoneMakesItAnew(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	declare(t, s)
	must(t, s.stop())
	must(t, os.RemoveAll(filepath.Join(s.data, "coord")))
	s.given = false
	s.start()
	recovered(t, s)
}

func TestAServerWithoutItsKeptStateGoesOn(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	declare(t, s)
	must(t, s.stop())
	must(t, os.WriteFile(filepath.Join(s.data, "state.json"), []byte("{"), 0o600))
	s.start()
	recovered(t, s)
}

func TestAServerWhoseExternalStateDoesNotAnswerServes(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSite(t, "127.0.0.2")
	endpoint := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t, "127.0.0.1"))}
	s.etcd = []string{endpoint.String()}
	dir := t.TempDir()
	end := startEtcd(t, dir, endpoint)
	s.start()
	declare(t, s)
	end()
	if p := s.problem("shared state"); !strings.Contains(p.Text, endpoint.Host) {
		t.Errorf("when it went, the status says: %+v", p)
	}
	must(t, s.stop())
	s.given = false
	alone(t, s, endpoint.Host, "")
	defer startEtcd(t, dir, endpoint)()
	recovered(t, s)
	must(t, s.stop())
}

// startEtcd runs an etcd of its own, as a site may have one; the function that it returns ends it.
func startEtcd(t *testing.T, dir string, at url.URL) func() {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.LogLevel, c.LogOutputs = dir, "fatal", []string{"/dev/null"}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	c.ListenPeerUrls = nil
	e, err := embed.StartEtcd(c)
	must(t, err)
	<-e.Server.ReadyNotify()
	return e.Close
}

func TestAFullDiskEndsTheStateAndRoomBringsItBack(t *testing.T) {
	t.Parallel() // it waits most of its time
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	disk := t.TempDir()
	must(t, unix.Mount("daemon", disk, "tmpfs", 0, "size=400m"))
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	s := newSiteIn(t, disk, "127.0.0.2")
	s.start()
	declare(t, s)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	eventually(t, "etcd ends", func() bool {
		_, _ = s.client().Tag(t.Context(), "compute@1", strings.Repeat("x", 200))
		return strings.Contains(s.problem("shared state").Text, "etcd ended")
	})
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "one\n" {
		t.Errorf("n01 reads %q", got)
	}
	if p := s.problem("shared state"); !strings.Contains(p.Hint, "MB free") {
		t.Errorf("the status says: %+v", p)
	}
	must(t, os.Remove(ballast))
	select {
	case err := <-s.ended:
		if !errors.Is(err, follow.ErrRestart) {
			t.Errorf("Run: %v, want follow.ErrRestart", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the server does not ask to be restarted")
	}
	s.cancel = nil
}

// fill takes all the room of a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func TestAStateThatWasPutBackFromACopyIsFollowed(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	must(t, s.stop())
	dir := filepath.Join(s.data, "coord")
	must(t, os.CopyFS(dir+".copy", os.DirFS(dir)))
	s.given = false
	s.start()
	for range 10 { // many revisions
		_, err := s.client().Tag(t.Context(), "compute@1", "last")
		must(t, err)
	}
	must(t, s.stop())
	must(t, os.RemoveAll(dir))
	must(t, os.Rename(dir+".copy", dir))
	s.start()
	eventually(t, "the tag of after the copy is gone", func() bool {
		_, err := s.client().Version(t.Context(), "compute@last")
		return err != nil
	})
	s.put("etc/motd", "two\n")
	s.capture("compute")
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "two\n" {
		t.Errorf("n01 reads %q", got)
	}
}
