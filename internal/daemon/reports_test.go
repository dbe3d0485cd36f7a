package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// A head shows what has to be restarted on nodes of other servers, also when those are gone.
func TestAHeadKnowsWhatNodesOfAnotherServerHaveToRestart(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	head.put("usr/lib/systemd/systemd", "systemd\n")
	s := newImageServer(t, head, "127.0.0.3")
	head.start()
	head.capture("compute")
	s.start()
	shows := func(version int) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("n01 shows version %d", version), func() bool {
			n, err := s.client().Node(t.Context(), "n01")
			return err == nil && n.Version == version
		})
	}
	shows(1)
	read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd")
	before := s.hear("")
	head.put("usr/lib/systemd/system/tool.service", "[Service]\n")
	head.capture("compute")
	shows(2)
	check := func(when, verdict, state, units string, restart ...string) {
		t.Helper()
		var r control.Rollout
		var n control.Node
		testkit.Eventually(t, when+" the head knows it", func() bool {
			var err error
			r, err = head.client().RolloutStatus(t.Context(), 1)
			testkit.Must(t, err)
			n, err = head.client().Node(t.Context(), "n01")
			testkit.Must(t, err)
			return r.States[0].Verdict == verdict && n.Details.Push != nil && n.Details.Push.State == state
		})
		if p := n.Details.Push; p.UnitsRead != units || !slices.Equal(p.Restart, restart) {
			t.Errorf("%s the node is shown with %+v", when, p)
		}
	}
	s.hear(fmt.Sprintf(`,"units":%q}{"stale":"/usr/bin/tool","pid":7,"name":"tool","unit":"tool.service"`, before))
	const stale = "stale until restart of tool.service, effective after systemctl daemon-reload"
	check("after the rollout", stale, control.PushCurrent, "no", "tool.service")
	awaitReports(t, head, 2) // the head asked the server until now; the second report was made after that
	testkit.Must(t, s.stop())
	check("without its server", stale, control.PushCurrent, "no", "tool.service")
	s.start()
	now := s.hear("")
	s.hear(fmt.Sprintf(`,"units":%q`, now))
	check("after both were done", "current", control.PushCurrent, "yes")
}

// awaitReports waits until a number of reports of is1 have arrived at a head from now on.
func awaitReports(t *testing.T, head *site, number int) {
	t.Helper()
	last := time.Now()
	testkit.Eventually(t, "reports arrive", func() bool {
		list, err := head.client().Servers(t.Context())
		testkit.Must(t, err)
		for _, one := range list {
			if one.Name == "is1" && one.Reported.After(last) {
				last = one.Reported
				number--
			}
		}
		return number <= 0
	})
}

// hear makes the call of n01's resident process that it makes when it has looked at every change, without its end. It
// returns up to which switch that is. more follows in the call.
func (s *site) hear(more string) string {
	s.t.Helper()
	_, answer := s.nodeCall("127.0.0.11", `{}`)
	seen := position(s.t, answer)
	go s.nodeCall("127.0.0.11", fmt.Sprintf(`{"boot":"b","seen":%q`, seen)+more+"}")
	return seen
}
