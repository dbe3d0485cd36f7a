package daemon

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"dim/internal/control"
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
