package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/pki"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// newPair starts a head and the image server is1, which serves all nodes: they show compute@1.
func newPair(t *testing.T) (head, is1 *site) {
	t.Helper()
	head = newSite(t, "127.0.0.2")
	is1 = newImageServer(t, head, "127.0.0.3")
	head.start()
	is1.start()
	head.capture("compute")
	testkit.Eventually(t, "is1 has reported that n01 shows compute@1", func() bool {
		list, err := head.client().Nodes(t.Context(), "n01") // by the reports, and Node would ask is1
		testkit.Must(t, err)
		return list[0].Version == 1
	})
	return head, is1
}

// latest returns the latest rollout.
func (s *site) latest() control.Rollout {
	s.t.Helper()
	r, err := s.client().RolloutStatus(s.t.Context(), 0)
	testkit.Must(s.t, err)
	return r
}

func isUnavailable(err error) bool {
	e, ok := errors.AsType[*control.Error](err)
	return ok && e.Code == control.Unavailable
}

func TestARolloutMovesNodesOfAnotherServer(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	head.put("etc/motd", "two\n")
	done := head.capture("compute")
	if r := done.Rollout; r == nil || r.ID != 1 {
		t.Fatalf("the capture began no rollout: %+v", done)
	}
	testkit.Eventually(t, "the rollout is done", func() bool { return head.latest().State == "done" })
	if r := head.latest(); r.Shown == nil || *r.Shown != 4 || r.Skipped != "" || len(r.Behind) > 0 {
		t.Errorf("it has ended with %+v", r)
	}
	if got := read(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "two\n" {
		t.Errorf("n01 reads %q", got)
	}

	t.Run("a server that is off catches up by itself", func(t *testing.T) {
		testkit.Must(t, is1.stop())
		head.put("etc/motd", "three\n")
		head.captureWith(control.CaptureRequest{
			Image: "compute", Rollout: &control.RolloutRequest{When: "now", NoWait: true},
		})
		r := head.latest()
		if r.State != "running" || len(r.Behind) != 1 || r.Behind[0].Server != "is1" ||
			r.Behind[0].Nodes != "n[01-04]" {
			t.Errorf("while it is off: %s, behind %+v", r.State, r.Behind)
		}
		is1.start()
		testkit.Eventually(t, "the rollout is done", func() bool { return head.latest().State == "done" })
		if got := read(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "three\n" {
			t.Errorf("n01 reads %q", got)
		}
	})
}

func TestAHeadAnswersForNodesOfAnotherServer(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	write(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
	c := head.client()
	changed := func() (paths []string) {
		t.Helper()
		testkit.Must(t, c.NodeChanges(t.Context(), "n01", func(c control.Change) { paths = append(paths, c.Path) }))
		return paths
	}
	if got := changed(); !slices.Contains(got, "/etc/own") {
		t.Errorf("the node has of its own %v", got)
	}
	list, err := c.Reset(t.Context(), "n01", control.ResetRequest{Paths: []control.Path{"/etc/own"}})
	if err != nil || len(list) != 1 || list[0].Path != "/etc/own" || slices.Contains(changed(), "/etc/own") {
		t.Errorf("a reset: %+v, %v", list, err)
	}
	if list, err := c.Saved(t.Context(), "n01"); err != nil || len(list) != 1 {
		t.Errorf("saved: %+v, %v", list, err)
	}
	if n := head.node(); n.Details.Saved != 1 || n.Details.Usage == nil {
		t.Errorf("node show: %+v", n.Details)
	}
	checks, err := c.Check(t.Context(), "")
	if err != nil || len(checks) != 4 || slices.ContainsFunc(checks, func(c control.CheckResult) bool {
		return len(c.Problems) > 0
	}) {
		t.Errorf("checks: %+v, %v", checks, err)
	}

	testkit.Must(t, is1.stop())
	if n := head.node(); n.Version != 1 || !strings.Contains(n.Problem, "is1 does not answer") {
		t.Errorf("while is1 is off, node show has %+v", n)
	}
	if _, err := c.Saved(t.Context(), "n01"); !isUnavailable(err) || !strings.Contains(err.Error(), "is1") {
		t.Errorf("while is1 is off: %v", err)
	}
	checks, err = c.Check(t.Context(), "")
	if err != nil || len(checks) != 1 || checks[0].Node != "n[01-04]" || len(checks[0].Problems) != 1 {
		t.Errorf("while is1 is off, checks: %+v, %v", checks, err)
	}
}

func TestNodesThatGoToAnotherServerAreServedThereWhenTheFormerOneHasLetThemGo(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	write(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
	testkit.Must(t, is1.stop())
	text := strings.ReplaceAll(string(testkit.Value(os.ReadFile(head.file))(t)), `servers="is1"`, `servers="head"`)
	testkit.Must(t, os.WriteFile(head.file, []byte(text), 0o600))
	head.checkRefused(control.LeftLayers{Nodes: "n[01-04]", Count: 4, From: "is1", To: "head"})
	if head.mounts() {
		t.Error("the head serves a node that is1 may still serve")
	}
	is1.start()
	testkit.Eventually(t, "the head serves the nodes", head.mounts)
	if is1.mounts() {
		t.Error("both serve n01")
	}
	if _, err := lookUp(head.mount("127.0.0.11", "/nodes/n01"), "etc/own"); !errors.Is(err, vfs.ENOENT) {
		t.Errorf("the head has the layer of is1: %v", err)
	}
}

// newTriple starts a head and the image servers is1, which serves n01 and n02, and is2, which serves n03 and n04: all
// show compute@1.
func newTriple(t *testing.T) (head, is1, is2 *site) {
	t.Helper()
	head = newSite(t, "127.0.0.2")
	sites := withServers(t, head, "127.0.0.3", "127.0.0.4")
	is1, is2 = sites[0], sites[1]
	text := string(testkit.Value(os.ReadFile(head.file))(t))
	for i, name := range []string{"is1", "is2"} {
		text = strings.Replace(text, "</cluster>", fmt.Sprintf(`
  <nodes name="n{2*%[1]d+half:02}" each="half" image="compute" servers="%[2]s">
    <interface name="eth0" network="boot" address="127.0.0.{10+2*%[1]d+half}" mac="52:54:00:4d:00:{2*%[1]d+half:02x}"/>
  </nodes></cluster>`, i, name), 1)
	}
	begin, rest, _ := strings.Cut(text, `<nodes name="n{node:02}"`)
	_, end, _ := strings.Cut(rest, "</nodes>")
	text = strings.Replace(begin+end, `<level name="node" from="1" to="4"/>`, `<level name="half" from="1" to="2"/>`, 1)
	testkit.Must(t, os.WriteFile(head.file, []byte(text), 0o600))
	head.start()
	for i, s := range sites {
		name := fmt.Sprintf("is%d", i+1)
		testkit.Value(s.join(head.token(control.TokenRequest{For: name}), name, pki.KeepIdentity))(t)
		s.start()
	}
	head.capture("compute")
	testkit.Eventually(t, "all nodes show compute@1", func() bool {
		list := testkit.Value(head.client().Nodes(t.Context(), ""))(t)
		return len(list) == 4 && !slices.ContainsFunc(list, func(n control.Node) bool { return n.Version != 1 })
	})
	return head, is1, is2
}

func TestAHeadAnswersForNodesOfTwoServers(t *testing.T) {
	t.Parallel()
	head, is1, is2 := newTriple(t)
	c := head.client()
	write(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "of n01\n")
	write(t, is2.mount("127.0.0.13", "/nodes/n03"), "etc", "own", "of n03\n")
	write(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc", "same", "same\n")
	write(t, is2.mount("127.0.0.13", "/nodes/n03"), "etc", "same", "same\n")
	d := testkit.Value(c.NodeDiff(t.Context(), "n01", "n03"))(t)
	at := slices.IndexFunc(d.Paths, func(p control.NodeDiffPath) bool { return p.Path == "/etc/own" })
	if at < 0 || !strings.Contains(d.Paths[at].A, "other content") ||
		slices.ContainsFunc(d.Paths, func(p control.NodeDiffPath) bool { return p.Path == "/etc/same" }) {
		t.Errorf("n01 and n03 differ in %+v", d.Paths)
	}

	head.put("etc/own", "of the master\n")
	head.captureWith(control.CaptureRequest{Image: "compute"})
	var r control.Rollout
	testkit.Eventually(t, "both servers have compute@2", func() bool {
		r = testkit.Value(c.Rollout(t.Context(),
			control.RolloutRequest{Version: "compute@2", When: "now", DryRun: true}))(t)
		return !slices.ContainsFunc(r.Own, func(o control.OwnChanges) bool { return o.Unknown != "" })
	})
	if len(r.Own) != 1 || r.Own[0].Nodes != "n[01,03]" || r.Own[0].Paths != 2 {
		t.Errorf("a dry run says that it would set aside %+v", r.Own)
	}

	text := strings.ReplaceAll(string(testkit.Value(os.ReadFile(head.file))(t)), `from="1" to="2"`, `from="2" to="2"`)
	testkit.Must(t, os.WriteFile(head.file, []byte(text), 0o600))
	testkit.Must(t, head.apply())
	var list []control.RemovedLayer
	testkit.Eventually(t, "both servers let n01 and n03 go", func() bool {
		list = testkit.Value(c.RemoveLayers(t.Context(), control.RemoveLayersRequest{DryRun: true}))(t)
		return len(list) == 2
	})
	if list[0].Server != "is1" || list[0].Node != "n01" || list[1].Server != "is2" || list[1].Node != "n03" {
		t.Errorf("left are %+v", list)
	}
	testkit.Value(c.RemoveLayers(t.Context(), control.RemoveLayersRequest{Nodes: "n03"}))(t)
	if _, err := os.Stat(filepath.Join(is2.data, "replicas", "n03")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what n03 has left: %v", err)
	}
	if _, err := os.Stat(filepath.Join(is1.data, "replicas", "n01")); err != nil {
		t.Errorf("what n01 has left: %v", err)
	}
}

func TestAHeadThatRestartsKnowsTheLastReports(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	if s := is1.server("head"); len(s.KnownTo) != 1 || s.KnownTo[0] != "head" {
		t.Errorf("the image server says of the head %+v", s)
	}
	before := head.server("is1").Reported
	testkit.Must(t, is1.stop(), head.stop())
	head.start()
	s := head.server("is1")
	if s.Reported.Before(before) || s.Observed == nil || s.Observed.Shows["compute@1"] != 4 {
		t.Errorf("after a restart the head says of is1 %+v, %+v", s, s.Observed)
	}
	list := testkit.Value(head.client().Nodes(t.Context(), "n01"))(t)
	if list[0].Version != 1 || list[0].Stage != "off" {
		t.Errorf("after a restart the head says of n01 %+v", list[0])
	}
	is1.start()
	testkit.Eventually(t, "is1 reports", func() bool {
		return head.server("is1").Reported.After(s.Reported)
	})
}
