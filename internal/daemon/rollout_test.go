package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
)

// makeVersions makes n versions of compute; motd has the number.
func makeVersions(s *site, n int) {
	s.t.Helper()
	for i := range n {
		s.put("etc/motd", string(rune('1'+i))+"\n")
		s.captureWith(control.CaptureRequest{Image: "compute"})
	}
}

// motds returns what the nodes n01 to n04 read, one character each.
func motds(s *site) string {
	s.t.Helper()
	all := ""
	for _, n := range []string{"n01", "n02", "n03", "n04"} {
		all += motdOf(s, n)
	}
	return all
}

func rollOut(s *site, r control.RolloutRequest) control.Rollout {
	s.t.Helper()
	done, err := s.client().Rollout(s.t.Context(), r)
	testkit.Must(s.t, err)
	return done
}

func code(err error) control.Code {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestACaptureAloneMovesNoNode(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	makeVersions(s, 2)
	if got := motds(s); got != "1111" {
		t.Errorf("after a second capture the nodes read %s", got)
	}
	rollOut(s, control.RolloutRequest{Nodes: "n[02-03]", Version: "compute", When: "now"})
	if got := motds(s); got != "1221" {
		t.Errorf("after a rollout to two of them the nodes read %s", got)
	}
	testkit.Must(t, s.stop())
	s.start()
	s.put("etc/motd", "3\n")
	s.captureWith(control.CaptureRequest{Image: "compute"})
	if got := motds(s); got != "1221" {
		t.Errorf("after a restart and a third capture the nodes read %s", got)
	}
	rollOut(s, control.RolloutRequest{Version: "compute@3", When: "now"})
	if got := motds(s); got != "3333" {
		t.Errorf("after a rollout to all the nodes read %s", got)
	}
	_, err := s.client().ChangeRollout(t.Context(), 1, control.RolloutChange{Do: "undo"})
	if code(err) != control.Conflict {
		t.Errorf("undo of a rollout whose nodes were moved since: %v", err)
	}
	_, err = s.client().ChangeRollout(t.Context(), 2, control.RolloutChange{Do: "undo"})
	testkit.Must(t, err)
	if got := motds(s); got != "1221" {
		t.Errorf("after undoing the second rollout the nodes read %s", got)
	}
}

// The shared state is lost, with what nodes follow. The kept state has it.
func TestWhatNodesFollowSurvivesTheLossOfTheSharedState(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	makeVersions(s, 4)
	rollOut(s, control.RolloutRequest{Version: "compute@2", When: "now"})
	rollOut(s, control.RolloutRequest{Nodes: "n04", Version: "compute@3", When: "now"})
	testkit.Must(t, s.stop())
	testkit.Must(t, os.RemoveAll(filepath.Join(s.data, "coord")))
	s.given = false
	s.start()
	testkit.Eventually(t, "the shared state is back", func() bool { return s.problem("shared state").About == "" })
	if got := motds(s); got != "2223" {
		t.Errorf("the nodes read %s", got)
	}
	list, err := s.client().Rollouts(t.Context())
	testkit.Must(t, err)
	if len(list) != 2 || list[0].ID != 2 || list[0].Nodes != "n04" || list[0].State != "done" {
		t.Errorf("rollouts: %+v", list)
	}
}

// awaitRollout waits until a rollout is in a state.
func awaitRollout(s *site, id int, state string) control.Rollout {
	s.t.Helper()
	var r control.Rollout
	testkit.Eventually(s.t, "the rollout is "+state, func() bool {
		var err error
		r, err = s.client().RolloutStatus(s.t.Context(), id)
		testkit.Must(s.t, err)
		return r.State == state
	})
	return r
}

func changeRollout(s *site, id int, do string) {
	s.t.Helper()
	_, err := s.client().ChangeRollout(s.t.Context(), id, control.RolloutChange{Do: do})
	testkit.Must(s.t, err)
}

func TestRingsGoOnAfterARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	makeVersions(s, 2)
	hooks, gate := filepath.Join(s.data, "hooks"), filepath.Join(s.data, "gate")
	r := rollOut(s, control.RolloutRequest{
		Version: "compute", When: "now", Rings: "1,1,rest", Check: "test -e " + gate,
		Hook: `echo "$DIM_ROLLOUT $DIM_RING $DIM_NODES $DIM_IMAGE@$DIM_VERSION" >> ` + hooks,
	})
	if r.State != "running" || r.Count != 4 || len(r.Rings) != 3 {
		t.Errorf("it begins with %+v", r)
	}
	paused := awaitRollout(s, 1, "paused")
	if got := motds(s); got != "2111" || !strings.HasPrefix(paused.Reason, "check: exit status 1") ||
		paused.States[1].Verdict != "waits for ring 2" {
		t.Errorf("when the check failed nodes read %s: %+v", got, paused)
	}
	_, err := s.client().Rollout(t.Context(), control.RolloutRequest{Nodes: "n04", Version: "compute@2", When: "now"})
	if code(err) != control.Conflict {
		t.Errorf("a second rollout of a node that waits: %v", err)
	}
	testkit.Must(t, s.stop())
	testkit.Must(t, os.WriteFile(gate, nil, 0o600))
	s.start()
	if got := motds(s); got != "2111" {
		t.Errorf("after a restart nodes read %s", got)
	}
	changeRollout(s, 1, "resume")
	done := awaitRollout(s, 1, "done")
	if got := motds(s); got != "2222" || *done.Shown != 4 {
		t.Errorf("in the end nodes read %s: %+v", got, done)
	}
	text, err := os.ReadFile(hooks)
	testkit.Must(t, err)
	if want := "1 1 n01 compute@2\n1 2 n02 compute@2\n1 3 n[03-04] compute@2\n"; string(text) != want {
		t.Errorf("hooks: %s", text)
	}
}

// The server ends three times while a hook runs. It goes on from the record of the rollout.
func TestAServerThatEndsDuringAHookRunsItAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	makeVersions(s, 2)
	begun, goOn := filepath.Join(s.data, "begun"), filepath.Join(s.data, "go-on")
	rollOut(s, control.RolloutRequest{
		Version: "compute", When: "now", Rings: "2,rest",
		Hook: "echo x >> " + begun + "; test -e " + goOn + " || exec sleep 1000",
	})
	for n := 1; n <= 3; n++ {
		testkit.Eventually(t, "the hook runs", func() bool {
			text, _ := os.ReadFile(begun)
			return strings.Count(string(text), "x") == n
		})
		if got := motds(s); got != "2211" {
			t.Errorf("nodes read %s", got)
		}
		if n == 3 {
			testkit.Must(t, os.WriteFile(goOn, nil, 0o600))
		}
		testkit.Must(t, s.stop())
		s.given = false
		s.start()
	}
	awaitRollout(s, 1, "done")
	if got := motds(s); got != "2222" {
		t.Errorf("in the end nodes read %s", got)
	}
}

func TestPauseEndsTheCommandAndUndoRestoresTheVersions(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	makeVersions(s, 3)
	rollOut(s, control.RolloutRequest{Nodes: "n02", Version: "compute@3", When: "now"})
	rollOut(s, control.RolloutRequest{Version: "compute@2", When: "now", Rings: "3,rest", Hook: "exec sleep 1000"})
	testkit.Eventually(t, "the hook runs", func() bool {
		r, err := s.client().RolloutStatus(t.Context(), 2)
		return err == nil && r.Phase == "hook" && r.Reason == "the hook to end"
	})
	changeRollout(s, 2, "pause")
	awaitRollout(s, 2, "paused")
	if _, err := s.client().ChangeRollout(t.Context(), 2,
		control.RolloutChange{Do: "pause"}); code(err) != control.Conflict {
		t.Errorf("paused twice: %v", err)
	}
	if got := motds(s); got != "2221" {
		t.Errorf("nodes read %s", got)
	}
	changeRollout(s, 2, "undo")
	if got := motds(s); got != "1311" {
		t.Errorf("after it was undone nodes read %s", got)
	}
	for _, bad := range []control.RolloutChange{{Do: "explode"}, {Do: "undo", When: "later"}} {
		if _, err := s.client().ChangeRollout(t.Context(), 2, bad); code(err) != control.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestOfConcurrentRolloutsOfTheSameNodesOneBegins(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	makeVersions(s, 2)
	var refused atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := s.client().Rollout(t.Context(),
				control.RolloutRequest{Version: "compute", When: "now", Rings: "1,rest", Soak: 1000})
			if code(err) == control.Conflict && strings.Contains(err.Error(), "is still running on n[01-04]") {
				refused.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if refused.Load() != 3 {
		t.Errorf("%d of 4 were refused", refused.Load())
	}
	if got := motds(s); got != "2111" {
		t.Errorf("nodes read %s", got)
	}
}

// 2,560 nodes in three rings: the shared state, the replicas and the records, with a restart in between.
func TestARolloutOfThousandsOfNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", `to="4"`, `to="2560"`, `n{node:02}`, `n{node:04}`, `127.0.0.{10+node}`,
		`127.1.{node/256}.{node%256}`,
		`4d:00:{node:02x}`, `4d:{node/256:02x}:{node%256:02x}`)
	s.start()
	makeVersions(s, 2)
	r := rollOut(s, control.RolloutRequest{Version: "compute", When: "now", Rings: "1,10%,rest", Soak: 0.2})
	if r.Count != 2560 || r.Nodes != "n[0001-2560]" || r.Rings[1].Count != 256 || *r.Rings[0].Shown != 1 {
		t.Errorf("it begins with %d nodes (%s), rings %+v", r.Count, r.Nodes, r.Rings)
	}
	testkit.Must(t, s.stop())
	s.start()
	awaitRollout(s, 1, "done")
	showing := func() int {
		r, err := s.client().RolloutStatus(t.Context(), 1)
		testkit.Must(t, err)
		n := 0
		for _, state := range r.States {
			if state.Shows == "compute@2" {
				n++
			}
		}
		return n
	}
	if n := showing(); n != 2560 {
		t.Errorf("when it is done %d nodes show it", n)
	}
	if got := read(t, s.mount("127.1.9.255", "/nodes/n2559"), "etc/motd"); got != "2\n" {
		t.Errorf("n2559 reads %q", got)
	}
	changeRollout(s, 1, "undo")
	testkit.Eventually(t, "none shows it", func() bool { return showing() == 0 })
}
