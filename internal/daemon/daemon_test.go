package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"dim/internal/control"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

func TestTwoServersLiveInOneProcess(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a, b := newSite(t, "127.0.0.2"), newSite(t, "127.0.0.3")
	b.put("etc/motd", "b's\n")
	for _, s := range []*site{a, b} {
		s.start()
		defer s.stop()
		s.capture("compute")
	}
	treeA, treeB := a.mount("127.0.0.11", "/nodes/n01"), b.mount("127.0.0.11", "/nodes/n01")
	if got := read(t, treeA, "etc/motd") + read(t, treeB, "etc/motd"); got != "one\nb's\n" {
		t.Errorf("they read %q", got)
	}
	if got := read(t, treeA, "etc/hostname"); got != "n01\n" {
		t.Errorf("n01's hostname: %q", got)
	}
	a.put("etc/motd", "two\n")
	a.capture("compute")
	if got := read(t, treeA, "etc/motd") + read(t, treeB, "etc/motd"); got != "two\nb's\n" {
		t.Errorf("after a capture on one of them they read %q", got)
	}
	for _, s := range []*site{a, b} {
		if err := s.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	closeAll(t)
}

func TestNothingIsLeftOfAServerThatEnded(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	files := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		testkit.Must(t, err)
		return len(names)
	}
	cycle := func() {
		s.start()
		s.capture("compute")
		c := s.nfs("127.0.0.11", 0)
		tree, err := c.Tree("/nodes/n01")
		testkit.Must(t, err)
		read(t, tree, "etc/motd")
		testkit.Must(t, s.stop())
		c.Close()
	}
	cycle() // the runtime opens some for itself
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := files()
	for range 3 {
		cycle()
	}
	testkit.Eventually(t, "the client's end is closed", func() bool { return files() <= before })
}

func TestAServerThatCannotStartLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := newSite(t, "127.0.0.2")
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", s.ports[1]))
	testkit.Must(t, err)
	c := Config{Data: s.data, As: "head", ClusterFile: s.file, Log: slog.New(slog.DiscardHandler)}
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Run: %v", err)
	}
	testkit.Must(t, taken.Close())
	for name, change := range map[string]func(*Config){
		"has no server": func(c *Config) { c.As = "nobody" },
		"no such file":  func(c *Config) { c.ClusterFile += ".none" },
		"--cluster":     func(c *Config) { c.ClusterFile = "" },
		"dim init":      func(c *Config) { c.Data = t.TempDir() },
	} {
		c := c
		change(&c)
		if err := Run(t.Context(), c); err == nil {
			t.Errorf("%s: it ran", name)
		} else if name != "dim init" && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.start()
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "a daemon runs on it already, pid") {
		t.Errorf("a second one: %v", err)
	}
	testkit.Must(t, s.stop())
}

// closeAll ends what tests left open, before goroutines are counted.
func closeAll(t *testing.T) {
	t.Helper()
	if tr, ok := http.DefaultTransport.(*http.Transport); ok {
		tr.CloseIdleConnections()
	}
}

func TestANodeKeepsItsWritesOverSwitchesAndRestarts(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	tree := s.mount("127.0.0.11", "/nodes/n01")
	motd, err := lookUp(tree, "etc/motd")
	testkit.Must(t, err)
	write(t, tree, "etc", "own", "mine\n")

	s.put("etc/motd", "two\n")
	if got := s.capture("compute"); got.Version.Number != 2 || !slices.Contains(got.Version.Nodes, "n01") {
		t.Errorf("captured %+v", got.Version)
	}
	check := func(tree vfs.FS) {
		t.Helper()
		if got := read(t, tree, "etc/motd") + read(t, tree, "etc/own"); got != "two\nmine\n" {
			t.Errorf("n01 reads %q", got)
		}
		buf := make([]byte, 100)
		if n, _, err := tree.Read(superuser, motd, buf, 0); err != nil || string(buf[:n]) != "one\n" {
			t.Errorf("the file that was open reads %q, %v", buf[:n], err)
		}
	}
	check(tree)
	testkit.Must(t, s.stop())
	s.given = false
	s.start()
	check(s.mount("127.0.0.11", "/nodes/n01"))
	if got := s.capture("compute"); !got.Unchanged {
		t.Errorf("captured again after the restart: %+v", got)
	}
	node, err := s.client().Node(t.Context(), "n01")
	testkit.Must(t, err)
	if node.Version != 2 || node.LastCall.IsZero() || node.Details == nil ||
		!slices.Contains(node.Details.Files, "/etc/hostname") {
		t.Errorf("node n01 is shown as %+v", node)
	}
}

func TestANodeReachesItsOwnReplicaAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	own := s.mount("127.0.0.11", "/nodes/n01")
	motd, err := lookUp(own, "etc/motd")
	testkit.Must(t, err)
	for _, c := range []struct {
		name, from string
		port       int
		want       error // of mounting /nodes/n01
		wantNone   error // of mounting /nodes/none
		wantHandle error // of using a handle of n01's
	}{
		{"the node itself", "127.0.0.11", 0, nil, vfs.EACCES, nil},
		{"another node", "127.0.0.12", 0, vfs.EACCES, vfs.EACCES, vfs.EACCES},
		{"an address of no node", "127.0.0.99", 0, vfs.EACCES, vfs.EACCES, vfs.EACCES},
		{"the superuser of this machine", "127.0.0.1", 1001, nil, vfs.ENOENT, nil},
		{"another user of this machine", "127.0.0.1", 0, vfs.EACCES, vfs.EACCES, vfs.EACCES},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := s.nfs(c.from, c.port)
			if _, err := cl.Mount("/nodes/n01"); !errors.Is(err, c.want) {
				t.Errorf("mount: %v, want %v", err, c.want)
			}
			if _, err := cl.Mount("/nodes/none"); !errors.Is(err, c.wantNone) {
				t.Errorf("mount of what is not there: %v, want %v", err, c.wantNone)
			}
			buf := make([]byte, 100)
			if n, _, err := cl.TreeAt(motd).Read(superuser, motd, buf, 0); !errors.Is(err, c.wantHandle) ||
				err != nil && n > 0 {
				t.Errorf("read by handle: %d bytes, %v, want %v", n, err, c.wantHandle)
			}
			if _, err := cl.Mount("/images/compute@1"); (err == nil) != (c.port != 0) {
				t.Errorf("mount of a version: %v", err)
			}
		})
	}
}

func TestAHandleOfAVersionOutlivesARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	tree, err := s.nfs("127.0.0.1", 1002).Tree("/images/compute@1")
	testkit.Must(t, err)
	motd, err := lookUp(tree, "etc/motd")
	testkit.Must(t, err)
	testkit.Must(t, s.stop())
	s.start()
	buf := make([]byte, 100)
	if n, _, err := s.nfs("127.0.0.1", 1003).TreeAt(motd).Read(superuser, motd, buf, 0); err != nil ||
		string(buf[:n]) != "one\n" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}

func TestADescriptionThatChangesHoldsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	s.put("etc/motd", "other\n")
	s.capture("other")
	tree := s.mount("127.0.0.11", "/nodes/n01")
	motd, err := lookUp(tree, "etc/motd")
	testkit.Must(t, err)
	readBy := func(from string) error {
		_, _, err := s.nfs(from, 0).TreeAt(motd).Read(superuser, motd, make([]byte, 100), 0)
		return err
	}

	t.Run("a node file that is new is there", func(t *testing.T) {
		s.describe("", `<shared path="/usr"/>`, `<shared path="/usr"/><file path="/etc/new">{{.Node.Name}}</file>`)
		testkit.Must(t, s.apply())
		if got := read(t, tree, "etc/new"); got != "n01" {
			t.Errorf("it reads %q", got)
		}
	})
	t.Run("a node that changes to another image has both, until it boots", func(t *testing.T) {
		s.describe(`<group name="g" nodes="n01" image="other"/>`)
		testkit.Must(t, s.apply())
		if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "other\n" {
			t.Errorf("n01 mounts what reads %q", got)
		}
		testkit.Must(t, readBy("127.0.0.11"))
		testkit.Must(t, s.stop())
		s.start()
		testkit.Must(t, readBy("127.0.0.11"))
		if err := readBy("127.0.0.12"); !errors.Is(err, vfs.ESTALE) && !errors.Is(err, vfs.EACCES) {
			t.Errorf("from another node: %v", err)
		}
	})
	t.Run("a node that moves takes all its replicas with it", func(t *testing.T) {
		s.describe(`<group name="g" nodes="n01" image="other"/>`, `address="127.0.0.{10+node}"`,
			`address="127.0.0.{20+node}"`)
		testkit.Must(t, s.apply())
		if err := readBy("127.0.0.11"); !errors.Is(err, vfs.EACCES) {
			t.Errorf("from the old address: %v", err)
		}
		testkit.Must(t, readBy("127.0.0.21"))
		s.mount("127.0.0.21", "/nodes/n01")
	})
	t.Run("back at the first image, what it wrote there is there", func(t *testing.T) {
		s.describe("")
		testkit.Must(t, s.apply())
		write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
		s.describe(`<group name="g" nodes="n01" image="other"/>`)
		testkit.Must(t, s.apply())
		s.put("etc/motd", "three\n")
		s.capture("compute")
		s.describe("")
		testkit.Must(t, s.apply())
		tree := s.mount("127.0.0.11", "/nodes/n01")
		if got := read(t, tree, "etc/own") + read(t, tree, "etc/motd"); got != "mine\nthree\n" {
			t.Errorf("n01 reads %q", got)
		}
	})
	t.Run("a node that is gone is refused, and forgotten", func(t *testing.T) {
		s.describe("", `to="4"`, `to="3"`)
		testkit.Must(t, s.apply())
		if _, err := s.nfs("127.0.0.14", 0).Mount("/nodes/n04"); !errors.Is(err, vfs.EACCES) {
			t.Errorf("mount: %v", err)
		}
		s.describe("")
		testkit.Must(t, s.apply())
		s.mount("127.0.0.14", "/nodes/n04")
	})
}

func TestOrdinaryPortsAreRefusedUnlessTheNetworkIsInsecure(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", `insecure="yes"`, `insecure="no"`)
	s.start()
	s.capture("compute")
	if _, err := s.nfs("127.0.0.11", 0).Mount("/nodes/n01"); err == nil {
		t.Error("mounted from an ordinary port")
	}
	_, err := s.nfs("127.0.0.11", 1004).Mount("/nodes/n01")
	testkit.Must(t, err)
	s.describe("")
	testkit.Must(t, s.apply())
	s.mount("127.0.0.11", "/nodes/n01")
}

func TestProblemsOfADescriptionAreReported(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	t.Run("one with problems is refused, with all of them", func(t *testing.T) {
		s.describe("<bogus/>", `image="compute" servers`, `image="nothing" servers`)
		err := s.apply()
		e, ok := errors.AsType[*control.Error](err)
		if !ok || e.Code != control.Invalid || len(e.Details) != 2 {
			t.Errorf("apply: %v %+v", err, e)
		}
	})
	t.Run("ports that change want a restart", func(t *testing.T) {
		s.describe("", fmt.Sprintf(`http-port="%d"`, s.ports[1]), fmt.Sprintf(`http-port="%d"`, freePort(t, s.addr)))
		testkit.Must(t, s.apply())
		if got := s.problem("server head"); got.Hint != "restart it" {
			t.Errorf("problem: %+v", got)
		}
	})
}

func TestTheStatusListsWhatIsNotInstalled(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	missing := func() bool {
		return slices.ContainsFunc(s.status().Problems, func(p control.Problem) bool {
			return p.About == "boot" && strings.Contains(p.Text, "dim-init-amd64 is not in "+s.data)
		})
	}
	if !missing() {
		t.Errorf("without dim-init: %+v", s.status().Problems)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(s.data, "dim-init-amd64"), []byte("an init"), 0o600))
	if missing() {
		t.Error("dim-init is there now, and the status still lists it")
	}
}

func TestAnImageThatCannotBeReadIsAProblemOfHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.78")
	s.start()
	s.capture("compute")
	trees := testkit.Value(filepath.Glob(filepath.Join(s.data, "store", "trees", "*", "*")))(t)
	if status, text := s.get("127.0.0.1", "/healthz"); status != 200 {
		t.Fatalf("before: %d %s", status, text)
	}
	for _, harm := range []func(tree string) error{
		func(tree string) error { return os.WriteFile(tree, []byte("rot"), 0o600) }, os.Remove,
	} {
		for _, tree := range trees {
			testkit.Must(t, harm(tree))
		}
		status, text := s.get("127.0.0.1", "/healthz")
		if status != 503 || !strings.Contains(text, "failing\nstore: ") {
			t.Errorf("%d %s", status, text)
		}
	}
}

func TestTheHTTPServiceAnswersWhenItIsReady(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	for path, want := range map[string]int{"/healthz": 200, "/": 404, "/boot/ipxe": 403,
		"/boot/../../etc/passwd": 404} {
		tr := &http.Transport{DisableKeepAlives: true,
			DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 99)}}).DialContext}
		resp, err := (&http.Client{Transport: tr}).Get(fmt.Sprintf("http://%s:%d%s", s.addr, s.ports[1], path))
		testkit.Must(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestANodeWhoseServerHasNotReportedIsUnknown(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", `servers="head"`, `servers="other"`, "<taxonomy>", `<server name="other" roles="image" dhcp="off">
    <interface network="boot" address="127.0.0.3"/>
  </server>
  <taxonomy>`)
	s.start()
	n, err := s.client().Node(t.Context(), "n01")
	testkit.Must(t, err)
	st := s.status()
	if n.Stage != "unknown" || st.Stages["unknown"] != 4 || st.Servers[1].HasReported || !st.Servers[0].HasReported {
		t.Errorf("stage %q, stages %v, servers %+v", n.Stage, st.Stages, st.Servers)
	}
}
