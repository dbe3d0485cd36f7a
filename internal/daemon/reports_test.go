package daemon

import (
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
)

func TestARolloutWaitsForNodesOfServersThatHaveNotReported(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", `<taxonomy>`,
		`<server name="is2" roles="image" dhcp="off"><interface network="boot" address="127.0.0.3"/></server>
<taxonomy>`,
		`</cluster>`, `<node name="far" image="compute" servers="is2">
  <interface name="eth0" network="boot" address="127.0.0.20" mac="52:54:00:4d:01:01"/></node></cluster>`)
	s.start()
	makeVersions(s, 2)
	rollOut(s, control.RolloutRequest{Version: "compute", When: "now", Hook: "true", NoWait: true})
	var r control.Rollout
	testkit.Eventually(t, "the rollout waits for the other server", func() bool {
		var err error
		r, err = s.client().RolloutStatus(t.Context(), 1)
		testkit.Must(t, err)
		return r.Reason == "unknown: far is served by is2, which has not reported since"
	})
	if node := r.States[0]; r.State != "running" || r.Phase != "switching" || *r.Shown != 4 || node.Node != "far" ||
		node.Verdict != "unknown: is2, which serves it, has not reported" {
		t.Errorf("the status: %+v", r)
	}
	changeRollout(s, 1, "stop")
	if r := awaitRollout(s, 1, "stopped"); r.Reason != "" || *r.Shown != 4 {
		t.Errorf("after it was stopped: %+v", r)
	}
	if got := motds(s); got != "2222" {
		t.Errorf("nodes read %s", got)
	}
	_, err := s.client().ChangeRollout(t.Context(), 1, control.RolloutChange{Do: "undo"})
	testkit.Must(t, err)
	rollOut(s, control.RolloutRequest{Nodes: "n[01-04]", Version: "compute@2", When: "now", Hook: "true"})
	awaitRollout(s, 2, "done")
	if _, err := s.client().Rollout(t.Context(),
		control.RolloutRequest{Version: "compute", When: "now", Rings: "1,rest", NoWait: true}); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, "the last ring waits for the other server, too", func() bool {
		r, err = s.client().RolloutStatus(t.Context(), 3)
		testkit.Must(t, err)
		return r.Ring == 2 && strings.HasPrefix(r.Reason, "unknown: far ")
	})
	rollOut(s, control.RolloutRequest{Version: "compute@1", When: "now"})
	awaitRollout(s, 3, "replaced")
}
