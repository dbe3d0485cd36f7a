package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/control"
)

// versions makes n versions of compute; motd has the number.
func versions(s *site, n int) {
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
		all += read(s.t, s.mount("127.0.0.1"+n[2:], "/nodes/"+n), "etc/motd")[:1]
	}
	return all
}

func roll(s *site, r control.RolloutRequest) control.Rollout {
	s.t.Helper()
	done, err := s.client().Rollout(s.t.Context(), r)
	must(s.t, err)
	return done
}

func code(err error) control.Code {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestACaptureAloneMovesNoNode(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	versions(s, 2)
	if got := motds(s); got != "1111" {
		t.Errorf("after a second capture the nodes read %s", got)
	}
	roll(s, control.RolloutRequest{Nodes: "n[02-03]", Version: "compute", When: "now"})
	if got := motds(s); got != "1221" {
		t.Errorf("after a rollout to two of them the nodes read %s", got)
	}
	must(t, s.stop())
	s.start()
	s.put("etc/motd", "3\n")
	s.captureWith(control.CaptureRequest{Image: "compute"})
	if got := motds(s); got != "1221" {
		t.Errorf("after a restart and a third capture the nodes read %s", got)
	}
	roll(s, control.RolloutRequest{Version: "compute@3", When: "now"})
	if got := motds(s); got != "3333" {
		t.Errorf("after a rollout to all the nodes read %s", got)
	}
	_, err := s.client().ChangeRollout(t.Context(), 1, control.RolloutChange{Do: "undo"})
	if code(err) != control.Conflict {
		t.Errorf("undo of a rollout whose nodes were moved since: %v", err)
	}
	_, err = s.client().ChangeRollout(t.Context(), 2, control.RolloutChange{Do: "undo"})
	must(t, err)
	if got := motds(s); got != "1221" {
		t.Errorf("after undoing the second rollout the nodes read %s", got)
	}
}

// The shared state was lost, with who follows what; the kept state says it.
func TestWhoFollowsWhatOutlivesTheSharedState(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	versions(s, 4)
	roll(s, control.RolloutRequest{Version: "compute@2", When: "now"})
	roll(s, control.RolloutRequest{Nodes: "n04", Version: "compute@3", When: "now"})
	must(t, s.stop())
	must(t, os.RemoveAll(filepath.Join(s.data, "coord")))
	s.given = false
	s.start()
	eventually(t, "the shared state is back", func() bool { return s.problem("shared state").About == "" })
	if got := motds(s); got != "2223" {
		t.Errorf("the nodes read %s", got)
	}
	list, err := s.client().Rollouts(t.Context())
	must(t, err)
	if len(list) != 2 || list[0].ID != 2 || list[0].Nodes != "n04" || list[0].State != "done" {
		t.Errorf("rollouts: %+v", list)
	}
}
