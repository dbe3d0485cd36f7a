package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/storm"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// stormNodes is how many simulated nodes boot in the tests.
const stormNodes = 24

// storm lets simulated nodes boot from the server.
func (s *site) storm(ctx context.Context, nodes int) (*storm.Result, error) {
	return storm.Run(ctx, s.client(), storm.Options{Nodes: nodes, Seed: 1, Listen: net.ListenPacket})
}

// layersOf lists everything below the replicas of a server's nodes, with when it was changed.
func layersOf(t *testing.T, data string) string {
	t.Helper()
	var b strings.Builder
	testkit.Must(t, filepath.WalkDir(layout(data).replicas(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, path, st.Ino, info.Mode(), info.Size(), st.Ctim.Nano())
		return nil
	}))
	return b.String()
}

// scratch returns what load tests have in the data directory.
func (s *site) scratch() []os.DirEntry {
	s.t.Helper()
	list, err := os.ReadDir(layout(s.data).loadtest())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return list
}

func TestALoadTestDoesNotTouchRealNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	testkit.Must(t, os.MkdirAll(filepath.Join(layout(s.data).loadtest(), "left/of/a/killed/daemon"), 0o700))
	s.start()
	testkit.Eventually(t, "what a killed daemon has left is removed", func() bool { return len(s.scratch()) == 0 })
	bootable(s, "1")
	rollOut(s, control.RolloutRequest{Version: "compute", When: "now"})
	node := s.mount("127.0.0.11", "/nodes/n01")
	write(t, node, "etc", "own", "of n01")
	before, declared := layersOf(t, s.data), s.status()

	planned, err := storm.Plan(t.Context(), s.client(), storm.Options{Nodes: 3})
	if err != nil || len(planned) != 1 || planned[0].ID != "" || planned[0].Ref != "compute@1" ||
		planned[0].As != "n01" || planned[0].Declared != 4 {
		t.Errorf("a dry run: %+v, %v", planned, err)
	}
	r, err := s.storm(t.Context(), stormNodes)
	testkit.Must(t, err)
	x := &r.Servers[0]
	if r.Failed != 0 || r.Wrong != 0 || x.Nodes != stormNodes || x.Lost != "" ||
		len(x.Skipped) != 1 || !strings.HasPrefix(x.Skipped[0], "DHCP") {
		t.Errorf("%+v", r)
	}
	if x.Calls < stormNodes*10_000 || x.Payload == 0 || x.CPU <= 0 || x.BootP99 < x.BootP50 || r.Verdict.Text == "" {
		t.Errorf("%+v", r)
	}

	if after := layersOf(t, s.data); after != before {
		t.Errorf("the layers of real nodes were\n%s and are\n%s", before, after)
	}
	if got := read(t, node, "etc/own"); got != "of n01" {
		t.Errorf("n01 reads %q", got)
	}
	st := s.status()
	if st.Coord.Revision != declared.Coord.Revision || fmt.Sprint(st.Stages) != fmt.Sprint(declared.Stages) {
		t.Errorf("revision %d and stages %v, before %d and %v", st.Coord.Revision, st.Stages,
			declared.Coord.Revision, declared.Stages)
	}
	if left := s.scratch(); len(left) != 0 {
		t.Errorf("the load test has left %v", left)
	}
}

func TestOnlyWhoMakesALoadTestReachesItsRoots(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	begun, err := s.client().BeginStorm(t.Context(), control.StormRequest{Nodes: 2})
	testkit.Must(t, err)
	_, err = s.client().BeginStorm(t.Context(), control.StormRequest{Nodes: 2})
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Busy {
		t.Errorf("a second load test: %v", err)
	}
	root, err := s.nfs("127.83.0.1", 1023).Tree(begun.Paths + "1")
	testkit.Must(t, err)
	if got := read(t, root, "etc/motd"); got != "one\n" {
		t.Errorf("a simulated node reads %q", got)
	}
	write(t, root, "etc", "motd2", "two")
	for _, from := range []string{"127.0.0.11", "127.83.0.1"} { // a node, and a user of this machine
		if _, err := s.nfs(from, 0).Tree(begun.Paths + "1"); err == nil {
			t.Errorf("a caller at %s mounts the root of a simulated node", from)
		}
		if _, err := s.nfs(from, 0).TreeAt(root.Root()).Access(superuser, root.Root(), 1, new(vfs.Attr)); err == nil {
			t.Errorf("a caller at %s uses the root of a simulated node", from)
		}
	}
	if _, err := s.nfs("127.83.0.1", 1022).Tree(begun.Paths + "2"); err == nil {
		t.Error("there is a third root")
	}
	s.captureWith(control.CaptureRequest{Image: "compute"}) // what is lent stays when something else is adopted
	testkit.Must(t, s.apply())
	if got := read(t, root, "etc/motd2"); got != "two" {
		t.Errorf("a simulated node reads %q", got)
	}
	_, err = s.client().EndStorm(t.Context(), begun.ID)
	testkit.Must(t, err)
	if err := root.Attr(root.Root(), new(vfs.Attr)); err == nil {
		t.Error("the root is there after the end")
	}
	_, err = s.client().StormUsage(t.Context(), begun.ID)
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.NotFound {
		t.Errorf("after the end: %v", err)
	}
}

func TestALoadTestTellsThatTheServerEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	type outcome struct {
		*storm.Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := s.storm(t.Context(), stormNodes)
		done <- outcome{r, err}
	}()
	testkit.Eventually(t, "nodes boot", func() bool {
		made, _ := filepath.Glob(filepath.Join(layout(s.data).loadtest(), "*/*/compute/upper/storm/boot-*"))
		return len(made) > 0
	})
	testkit.Must(t, s.stop())
	if left := s.scratch(); len(left) != 0 {
		t.Errorf("the server that ended has left %v", left)
	}
	r := <-done
	testkit.Must(t, r.err)
	if r.Failed == 0 || r.Servers[0].Lost == "" || len(r.Servers[0].Errors) == 0 {
		t.Errorf("%+v", r.Result)
	}
}

func TestALoadTestCanBeEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		testkit.Eventually(t, "there is a load test", func() bool { return len(s.scratch()) > 0 })
	}()
	if _, err := s.storm(ctx, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left := s.scratch(); len(left) != 0 {
		t.Errorf("the load test has left %v", left)
	}
}

func TestWrongBytesAreNoticed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.put("usr/lib/right", "these bytes are right")
	s.capture("compute")
	digest := image.Sum([]byte("these bytes are right")).String()
	blob := filepath.Join(layout(s.data).store(), "blobs", digest[:2], digest)
	testkit.Must(t, os.WriteFile(blob, []byte("these bytes are wrong"), 0o600))
	r, err := s.storm(t.Context(), 1)
	testkit.Must(t, err)
	got := fmt.Sprint(r.Servers[0].Errors)
	if r.Wrong != 1 || r.Failed != 1 || !strings.Contains(got, "read usr/lib/right: wrong bytes") {
		t.Errorf("%d files, %s", r.Wrong, got)
	}
}

// The head asks an image server for roots, and its own superuser makes the load.
func TestALoadTestTakesOtherServers(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	other := newImageServer(t, head, "127.0.0.3")
	head.start()
	head.capture("compute")
	other.start()
	testkit.Eventually(t, "the image server has the version", func() bool {
		list, err := filepath.Glob(layout(other.data).store() + "/versions/compute/*") // it is shown while it arrives
		return err == nil && len(list) == 1
	})
	o := storm.Options{
		Nodes: 5, Seed: 1, Version: "compute", Servers: []string{"head", "is1"}, Listen: net.ListenPacket,
	}
	planned, err := storm.Plan(t.Context(), head.client(), o)
	testkit.Must(t, err)
	if planned[0].Nodes+planned[1].Nodes != 5 || planned[1].Server != "is1" || planned[1].As != "n01" ||
		!planned[1].Remote || planned[0].Remote {
		t.Errorf("%+v", planned)
	}
	r, err := storm.Run(t.Context(), head.client(), o)
	testkit.Must(t, err)
	for i, s := range r.Servers {
		if s.Server != o.Servers[i] || s.Nodes != planned[i].Nodes || s.Lost != "" || s.CPU <= 0 || s.Calls == 0 {
			t.Errorf("%+v", s)
		}
	}
	if left := other.scratch(); len(left) != 0 {
		t.Errorf("the load test has left %v", left)
	}
	o.Servers = []string{"head", "is9"}
	_, err = storm.Run(t.Context(), head.client(), o)
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.NotFound {
		t.Errorf("a server that there is not: %v", err)
	}
	testkit.Must(t, other.stop())
	o.Servers = []string{"head", "is1"}
	_, err = storm.Run(t.Context(), head.client(), o)
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Unavailable ||
		!strings.HasPrefix(e.Message, "server is1 does not answer: ") {
		t.Errorf("a server that is off: %v", err)
	}
}
