package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dim/e2e/agent"
	"dim/internal/control"
	"dim/internal/lab"
	"dim/internal/testkit"
)

// longCache has the mount options of nodes that are notified of switches.
var longCache = strings.Replace(nfsOptions, "actimeo=3,", "actimeo=3600,", 1)

// startResident starts the process that is notified of switches. Without a known start it revalidates everything once.
func (g guest) startResident(root string) {
	g.t.Helper()
	var id int
	testkit.Must(g.t, g.call("Start",
		agent.RunArgs{Argv: []string{"/bin/@dim-push", "10.77.0.1:80", "compute:1", root, "/proc"}}, &id))
}

// pushed returns the server's state of a node's resident process.
func pushed(t *testing.T, c *lab.Cluster, node string) (control.Node, control.Push) {
	t.Helper()
	var n control.Node
	testkit.Must(t, json.Unmarshal([]byte(dim(t, c, "node", "show", node, "-o", "json")), &n))
	if n.Details.Push == nil {
		return n, control.Push{}
	}
	return n, *n.Details.Push
}

func (g guest) list(dir string) []string {
	g.t.Helper()
	var names []string
	testkit.Must(g.t, g.call("ReadDir", dir, &names))
	return names
}

// pushSite is a server with two nodes that mount with a long cache. Only n01 is notified of switches.
type pushSite struct {
	*lab.Cluster
	master             string
	pushNode, pollNode guest
}

func TestANodeWithALongCacheIsNotifiedOfSwitches(t *testing.T) {
	needLab(t)
	master := smallMaster(t)
	busybox, err := os.ReadFile("/bin/busybox")
	testkit.Must(t, err)
	tree(t, master, map[string]string{"opt/busybox": string(busybox), "opt/turn": "a file\n", "opt/away/x": "x\n",
		"usr/lib/systemd/systemd": "", "usr/bin/dbus-daemon": ""})
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	put := map[string]string{"bin/@dim-push": build(t, "dim/cmd/dim-init"), "bin/busybox": "/bin/busybox"}
	s := &pushSite{c, master, startGuest(t, c, "n01", put), startGuest(t, c, "n02", put)}
	for name, g := range map[string]guest{"n01": s.pushNode, "n02": s.pollNode} {
		g.mount("/nodes/"+name, "/mnt/push", longCache)
	}
	s.pushNode.busybox("mkdir", "-p", "/run/systemd") // as dim-init does
	s.pushNode.startResident("/mnt/push")
	testkit.Eventually(t, "n01 is notified", func() bool {
		_, p := pushed(t, c, "n01")
		return p.State == control.PushCurrent
	})
	var proc int
	testkit.Must(t, s.pushNode.call("Start", agent.RunArgs{Argv: []string{"/mnt/push/opt/busybox", "sleep", "600"}},
		&proc))

	t.Run("every kind of change shows at once, and not without a notification", func(t *testing.T) {
		s.testChanges(t, busybox)
	})
	t.Run("the server knows which processes use replaced files", func(t *testing.T) { s.testStale(t, proc) })
	t.Run("the server knows whether units were read again, and a person confirms the rest", s.testUnits)
	t.Run("no user of the node can speak for it", s.testUser)
	t.Run("a restart of the server costs nothing", func(t *testing.T) {
		restart(t, c)
		s.motd(t, "three\n")
		testkit.Eventually(t, "the change shows", func() bool {
			return s.pushNode.read("/mnt/push/etc/motd") == "three\n"
		})
	})
	t.Run("a mount holds the switch that would take it away", s.testMount)
}

// motd changes one file.
func (s *pushSite) motd(t *testing.T, text string) {
	t.Helper()
	tree(t, s.master, map[string]string{"etc/motd": text})
	dim(t, s.Cluster, "image", "capture", "compute", "--rollout", "now")
}

func (s *pushSite) testChanges(t *testing.T, busybox []byte) {
	for _, g := range []guest{s.pushNode, s.pollNode} {
		for _, p := range []string{"etc/motd", "etc/gone", "etc/added", "etc/mode", "srv/a/b/c", "srv/a/b/new",
			"opt/turn", "opt/away/x"} {
			g.stat("/mnt/push/" + p)
		}
		g.list("/mnt/push/etc")
		g.read("/mnt/push/etc/motd")
	}
	at := func(path string) string { return filepath.Join(s.master, path) }
	testkit.Must(t, os.WriteFile(at("opt/busybox.new"), append(busybox, '\n'), 0o755))
	testkit.Must(t, os.Rename(at("opt/busybox.new"), at("opt/busybox")))
	testkit.Must(t, os.RemoveAll(at("opt/turn")))
	testkit.Must(t, os.RemoveAll(at("opt/away")))
	testkit.Must(t, os.Remove(at("etc/gone")))
	testkit.Must(t, os.Chmod(at("etc/mode"), 0o600))
	tree(t, s.master, map[string]string{"etc/added": "a\n", "srv/a/b/new": "n\n", "opt/turn/d": "a directory\n"})
	s.motd(t, "two\n")
	began := time.Now()
	testkit.Eventually(t, "all changes show", func() bool { return showsAll(s.pushNode) })
	t.Logf("all changes show %v after the capture", time.Since(began).Round(time.Millisecond))
	if showsAll(s.pollNode) || s.pollNode.read("/mnt/push/etc/motd") != "one\n" {
		t.Error("a node that is not notified sees the change: the cache is not long, and this test proves nothing")
	}
}

func showsAll(g guest) bool {
	names := g.list("/mnt/push/etc")
	return g.read("/mnt/push/etc/motd") == "two\n" && g.stat("/mnt/push/etc/added").Exists &&
		!g.stat("/mnt/push/etc/gone").Exists &&
		g.stat("/mnt/push/etc/mode").Mode&0o777 == 0o600 && g.stat("/mnt/push/srv/a/b/new").Exists &&
		g.stat("/mnt/push/opt/turn/d").Exists && !g.stat("/mnt/push/opt/away").Exists &&
		slices.Contains(names, "added") && !slices.Contains(names, "gone")
}

func (s *pushSite) testStale(t *testing.T, proc int) {
	var p control.Push
	testkit.Eventually(t, "the running program is reported", func() bool {
		_, p = pushed(t, s.Cluster, "n01")
		return len(p.Stale) > 0
	})
	if len(p.Stale) != 1 || p.Stale[0].Name != "busybox" || !strings.HasSuffix(p.Stale[0].Path, "/opt/busybox") {
		t.Errorf("reported: %+v", p.Stale)
	}
	if p.Memory == 0 || p.Memory > 6<<10 {
		t.Errorf("the process takes %d kB", p.Memory)
	}
	t.Logf("the process takes %d kB", p.Memory)
	testkit.Must(t, s.pushNode.call("Finish", proc, new(int)))
	testkit.Eventually(t, "the program that has ended is forgotten", func() bool {
		_, p = pushed(t, s.Cluster, "n01")
		return len(p.Stale) == 0
	})
}

// testUnits replaces a unit and a policy of D-Bus, and does on the node what systemd does at a daemon-reload.
func (s *pushSite) testUnits(t *testing.T) {
	verdict := func(want string) {
		t.Helper()
		testkit.Eventually(t, "the verdict is "+want, func() bool {
			var r control.Rollout
			testkit.Must(t, json.Unmarshal([]byte(dim(t, s.Cluster, "rollout", "status", "-o", "json")), &r))
			return r.States[0].Node == "n01" && r.States[0].Verdict == want
		})
	}
	tree(t, s.master, map[string]string{"usr/lib/systemd/system/x.timer": "[Timer]\n",
		"usr/share/dbus-1/system.d/x.conf": "x\n"})
	dim(t, s.Cluster, "image", "capture", "compute", "--rollout", "now")
	verdict("current, effective after systemctl daemon-reload, systemctl reload dbus")
	s.pushNode.busybox("mkdir", "/run/systemd/generator")
	verdict("current, effective after systemctl reload dbus")
	if _, p := pushed(t, s.Cluster, "n01"); p.UnitsRead != "yes" {
		t.Errorf("units read: %q", p.UnitsRead)
	}
	var list []control.ConfirmedNode
	testkit.Must(t, json.Unmarshal([]byte(dim(t, s.Cluster, "node", "confirm", "n01", "-o", "json")), &list))
	if len(list) != 1 || !slices.Equal(list[0].Reload, []string{"systemctl reload dbus"}) || len(list[0].Restart) > 0 {
		t.Errorf("confirmed: %+v", list)
	}
	verdict("current")
}

// busybox runs a command on the node.
func (g guest) busybox(args ...string) {
	g.t.Helper()
	var out agent.Output
	testkit.Must(g.t, g.call("Run",
		agent.RunArgs{Argv: append([]string{"/bin/busybox"}, args...), Timeout: time.Minute}, &out))
	if out.Exit != 0 {
		g.t.Fatalf("%v: %s", args, out.Text)
	}
}

// testUser has an ordinary user report a mount on the path that changes next, and a boot.
func (s *pushSite) testUser(t *testing.T) {
	for path, says := range map[string]string{
		"/node/hear":  `{"boot":"b","seen":"compute:1"}{"mount":"/etc/motd","type":"ext4"}`,
		"/boot/stage": `{"stage":"mount"}`,
	} {
		var out agent.Output
		testkit.Must(t, s.pushNode.call("Run", agent.RunArgs{
			Argv:    []string{"/bin/busybox", "wget", "-O", "-", "--post-data", says, "http://10.77.0.1" + path},
			Timeout: time.Minute, User: 1000,
		}, &out))
		if out.Exit == 0 || !strings.Contains(out.Text, "403 Forbidden") {
			t.Errorf("%s: the user is answered %q", path, out.Text)
		}
	}
	if n, p := pushed(t, s.Cluster, "n01"); p.State != control.PushCurrent || n.Stage == "mount" ||
		slices.ContainsFunc(p.Mounts, func(m control.NodeMount) bool { return m.Path == "/etc/motd" }) {
		t.Errorf("n01 is %s, and reported: %+v", n.Stage, p)
	}
}

func (s *pushSite) testMount(t *testing.T) {
	s.pushNode.write("/tmp/over", "mounted\n")
	s.pushNode.busybox("mount", "-o", "bind", "/tmp/over", "/mnt/push/etc/motd")
	testkit.Eventually(t, "the server knows of the mount", func() bool {
		_, p := pushed(t, s.Cluster, "n01")
		return slices.ContainsFunc(p.Mounts, func(m control.NodeMount) bool { return m.Path == "/etc/motd" })
	})
	s.motd(t, "four\n")
	if n, _ := pushed(t, s.Cluster, "n01"); n.Version != 4 ||
		!strings.Contains(n.Problem, "a mount there is on /etc/motd") {
		t.Errorf("n01 shows version %d, problem %q", n.Version, n.Problem)
	}
	if got := s.pushNode.read("/mnt/push/etc/motd"); got != "mounted\n" {
		t.Errorf("under the mount: %q", got)
	}
	s.pushNode.busybox("umount", "/mnt/push/etc/motd")
	testkit.Eventually(t, "the change shows", func() bool { return s.pushNode.read("/mnt/push/etc/motd") == "four\n" })
}
