package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"dim/e2e/agent"
	"dim/e2e/storm"
	"dim/internal/lab"
	"dim/internal/testkit"
)

// stormSwitches returns how many switches the test makes, and after how many the node must show the last
// version exactly. There are a thousand switches with DIM_LONG (`make long`).
func stormSwitches() (n, settle int) {
	if os.Getenv("DIM_LONG") == "" {
		return 24, 12
	}
	return 1000, 25
}

// site is a server whose master changes all the time, and a node that uses it.
type site struct {
	*lab.Cluster
	node   guest
	master string
	bases  storm.Bases
	tree   storm.Tree

	problems []string // what the load saw
}

func TestANodeUnderLoadSurvivesSwitches(t *testing.T) {
	needLab(t)
	s := newSite(t)
	s.node.mount("/nodes/n01", "/mnt/root", nfsOptions)
	s.storm(t, "/mnt/root")
}

// The replica is the node's root, with a long cache, and the node is notified of switches.
func TestANodeUnderLoadSurvivesSwitchesOfItsRoot(t *testing.T) {
	needLab(t)
	s := newSite(t)
	s.node.mount("/nodes/n01", "/mnt/root", longCache)
	resident, err := os.ReadFile(build(t, "dim/cmd/dim-init"))
	testkit.Must(t, err)
	testkit.Must(t, s.node.call("Enter", "/mnt/root", &agent.None{}))
	testkit.Must(t, s.node.call("WriteFile", agent.WriteFileArgs{Path: "/tmp/@dim-push", Data: resident, Mode: 0o755},
		&agent.None{}))
	testkit.Must(t, s.node.call("Start",
		agent.RunArgs{Argv: []string{"/tmp/@dim-push", "10.77.0.1:80", "compute:1", "/", "/proc"}}, new(int)))
	s.storm(t, "/")
}

// newSite starts a server with the first version, and boots a node that has nothing mounted.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{master: smallMaster(t), tree: storm.Tree{}}
	t.Cleanup(func() { // after the server's log
		for _, p := range s.problems {
			t.Log(p)
		}
	})
	tree(t, s.master, map[string]string{"proc/": "", "sys/": "", "dev/": "", "run/": ""})
	put := map[string]string{}
	dir := t.TempDir()
	for name, from := range programs(t) {
		run(t, dir, "cp", "-L", from, name)
		put["bases/"+name] = from
	}
	var err error
	s.bases, err = storm.LoadBases(dir)
	testkit.Must(t, err)
	s.change(t, 1)
	s.Cluster = startCluster(t, t.TempDir(), s.master)
	dim(t, s.Cluster, "image", "capture", "compute", "--rollout", "now")
	s.node = bootGuest(t, s.Cluster, "n01", put)
	testkit.Must(t, s.node.Agent.Call("Load.Bases", "/bases", &storm.None{}))
	return s
}

// programs are a static program of ours and a dynamic one of this machine's distribution, with its loader and library.
func programs(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{"runner": build(t, "dim/e2e/storm/runner")}
	out, err := exec.Command("ldd", "/bin/sleep").Output()
	testkit.Must(t, err)
	for name, pattern := range map[string]string{"ld.so": `/\S*/ld-\S+`, "libc.so.6": `/\S*/libc\.so\.6`} {
		found[name] = regexp.MustCompile(pattern).FindString(string(out))
	}
	found["sleep"] = "/bin/sleep"
	return found
}

// change makes the master version v.
func (s *site) change(t *testing.T, v int) {
	t.Helper()
	to := storm.At(v, s.bases)
	testkit.Must(t, storm.Put(filepath.Join(s.master, storm.Dir), s.tree, to, storm.Replacement(v%2)))
	s.tree = maps.Clone(to)
}

// storm switches the node, whose replica is mounted on root, many times under load.
func (s *site) storm(t *testing.T, root string) {
	testkit.Must(t, s.node.Agent.Call("Load.Start", storm.StartArgs{Root: root, Version: 1}, &storm.None{}))
	began := time.Now()
	switches, settle := stormSwitches()
	for v := 2; v <= switches && !t.Failed(); v++ {
		s.change(t, v)
		dim(t, s.Cluster, "image", "capture", "compute", "--rollout", "now")
		s.announce(t, v, false)
		if v%settle == 0 {
			s.rollBackAndForward(t, v)
		}
	}
	var r storm.Report
	testkit.Must(t, s.node.Agent.Call("Load.Stop", storm.None{}, &r))
	t.Logf("%d switches in %v; meanwhile: %v", switches, time.Since(began).Round(time.Second), r.Done)
	s.problems = r.Problems
	if len(s.problems) > 0 {
		t.Errorf("the node saw %d problems", len(s.problems))
	}
}

// rollBackAndForward switches the node to the version before v, and then to v until it shows exactly that.
func (s *site) rollBackAndForward(t *testing.T, v int) {
	t.Helper()
	for _, n := range []int{v - 1, v} {
		dim(t, s.Cluster, "rollout", "n[01-04]", fmt.Sprintf("compute@%d", n), "--when", "now")
		s.announce(t, n, n == v)
	}
}

func (s *site) announce(t *testing.T, v int, settle bool) {
	t.Helper()
	testkit.Must(t, s.node.Agent.Call("Load.InForce", v, &storm.None{}))
	if !settle {
		return
	}
	if err := s.node.Agent.Call("Load.Settle", v, &storm.None{}); err != nil {
		t.Error(err)
	}
}
