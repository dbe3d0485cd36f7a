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
	"dim/internal/testkit"
)

// checkAlone starts s, whose shared state cannot be used, and checks that it serves its nodes what was declared last,
// and that the status shows the problem.
func checkAlone(t *testing.T, s *site, about, hint string) {
	t.Helper()
	s.start()
	tree := s.mount("127.0.0.11", "/nodes/n01")
	if got := read(t, tree, "etc/motd") + read(t, tree, "etc/own"); got != "one\nmine\n" {
		t.Errorf("n01 reads %q", got)
	}
	write(t, tree, "etc", fmt.Sprint("alone-", time.Now().UnixNano()), "x")
	testkit.Eventually(t, "the status shows it", func() bool { return s.problem("shared state").About != "" })
	p := s.problem("shared state")
	if !strings.Contains(p.Text, about) || !strings.Contains(p.Hint, "nodes are served what was declared last") ||
		!strings.Contains(p.Hint, hint) {
		t.Errorf("the status shows: %+v", p)
	}
	_, err := s.client().Capture(t.Context(), control.CaptureRequest{Image: "compute"}, func(control.Progress) {})
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Unavailable || e.Hint == "" {
		t.Errorf("a capture: %v", err)
	}
}

// declareState makes a state that can be lost: two versions, a tag, and a node's own file.
func declareState(t *testing.T, s *site) {
	t.Helper()
	s.put("etc/motd", "zero\n")
	s.capture("compute")
	s.put("etc/motd", "one\n")
	s.capture("compute")
	_, err := s.client().Tag(t.Context(), "compute@1", "first")
	testkit.Must(t, err)
	write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
}

// checkRecovered checks that s has all that was declared and can be changed.
func checkRecovered(t *testing.T, s *site) {
	t.Helper()
	testkit.Eventually(t, "the shared state is back", func() bool { return s.problem("shared state").About == "" })
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

func TestAServerWhoseStateIsDamagedServesAndRecovers(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	declareState(t, s)
	testkit.Must(t, s.stop())
	dir := filepath.Join(s.data, "coord")
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	testkit.Must(t, err)
	for _, path := range logs {
		testkit.Must(t, os.WriteFile(path, []byte(strings.Repeat("damage", 1000)), 0o600))
	}
	s.given = false
	checkAlone(t, s, "etcd", "mv "+dir+" "+dir+".damaged")
	testkit.Must(t, os.Rename(dir, dir+".damaged"))
	checkRecovered(t, s)
	testkit.Must(t, s.stop())
	s.start()
	if d, err := s.client().Description(t.Context(), 0); err != nil || d.Main != "cluster.xml" {
		t.Errorf("the description in the end: %q, %v", d.Main, err)
	}
}

func TestASharedStateThatIsGoneIsMadeAnew(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	declareState(t, s)
	testkit.Must(t, s.stop())
	testkit.Must(t, os.RemoveAll(filepath.Join(s.data, "coord")))
	s.given = false
	s.start()
	checkRecovered(t, s)
}

func TestAServerRecoversWithoutItsKeptState(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	declareState(t, s)
	testkit.Must(t, s.stop())
	testkit.Must(t, os.WriteFile(filepath.Join(s.data, "state.json"), []byte("{"), 0o600))
	s.start()
	checkRecovered(t, s)
}

func TestAServerWhoseExternalStateDoesNotAnswerServes(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	endpoint := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t, "127.0.0.1"))}
	s.etcd = []string{endpoint.String()}
	dir := t.TempDir()
	end := startEtcd(t, dir, endpoint)
	s.start()
	declareState(t, s)
	end()
	if p := s.problem("shared state"); !strings.Contains(p.Text, endpoint.Host) {
		t.Errorf("when it ended, the status shows: %+v", p)
	}
	testkit.Must(t, s.stop())
	s.given = false
	checkAlone(t, s, endpoint.Host, "")
	defer startEtcd(t, dir, endpoint)()
	checkRecovered(t, s)
	testkit.Must(t, s.stop())
}

// startEtcd runs an etcd apart from the server. The function that it returns ends it.
func startEtcd(t *testing.T, dir string, at url.URL) func() {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.LogLevel, c.LogOutputs = dir, "fatal", []string{"/dev/null"}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	c.ListenPeerUrls = nil
	e, err := embed.StartEtcd(c)
	testkit.Must(t, err)
	<-e.Server.ReadyNotify()
	return e.Close
}

func TestAFullDiskEndsTheStateAndRoomBringsItBack(t *testing.T) {
	t.Parallel()
	testkit.NeedRoot(t, "it mounts a small file system")
	disk := t.TempDir()
	testkit.Must(t, unix.Mount("daemon", disk, "tmpfs", 0, "size=400m"))
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	s := newSiteIn(t, disk, "127.0.0.2")
	s.start()
	declareState(t, s)
	text := described(s)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	n := 0
	testkit.Eventually(t, "etcd ends", func() bool {
		n++ // each is another description, and needs more room than etcd has allocated
		large := fmt.Appendf(nil, "%s<!-- %d %s -->", text, n, strings.Repeat("x", 500_000))
		_, _ = s.client().Apply(t.Context(), control.ApplyRequest{Description: control.Description{
			Main: "cluster.xml", Files: map[string][]byte{"cluster.xml": large},
		}})
		return strings.Contains(s.problem("shared state").Text, "etcd ended")
	})
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "one\n" {
		t.Errorf("n01 reads %q", got)
	}
	if p := s.problem("shared state"); !strings.Contains(p.Hint, "MB free") {
		t.Errorf("the status shows: %+v", p)
	}
	testkit.Must(t, os.Remove(ballast))
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
	testkit.Must(t, err)
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func TestAStateThatWasPutBackFromACopyIsFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	testkit.Must(t, s.stop())
	dir := filepath.Join(s.data, "coord")
	testkit.Must(t, os.CopyFS(dir+".copy", os.DirFS(dir)))
	s.given = false
	s.start()
	for range 10 { // many revisions
		_, err := s.client().Tag(t.Context(), "compute@1", "last")
		testkit.Must(t, err)
	}
	testkit.Must(t, s.stop())
	testkit.Must(t, os.RemoveAll(dir))
	testkit.Must(t, os.Rename(dir+".copy", dir))
	s.start()
	testkit.Eventually(t, "the tag that was made after the copy is gone", func() bool {
		_, err := s.client().Version(t.Context(), "compute@last")
		return err != nil
	})
	s.put("etc/motd", "two\n")
	s.capture("compute")
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "two\n" {
		t.Errorf("n01 reads %q", got)
	}
}
