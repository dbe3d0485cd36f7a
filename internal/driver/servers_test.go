package driver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/fleet"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/rollout"
	"dim/internal/testkit"
)

func TestNodesOfAnotherServerAreAsItReports(t *testing.T) {
	t.Parallel()
	f, c := followtest.Open(t, small)
	followtest.Put(t, f, c, followtest.Version("compute", 1), followtest.Version("compute", 2))
	d, _ := newDriver(t, f)
	request := control.RolloutRequest{Version: "compute@2", Nodes: "x1", When: "boot"}
	planned := testkit.Value(d.Plan(f.Now(), request))(t)
	r, _, err := d.Begin(t.Context(), planned)
	if err != nil || !r.Prefetching() || f.Now().State.Next["x1"] != (image.Ref{}) {
		t.Fatalf("it does not wait for the server: %+v, %v", r, err)
	}
	report := func(shows int, versions ...fleet.Version) {
		d.Fleet.Put("second", &fleet.Report{Versions: versions, Nodes: []fleet.Node{
			{Name: "x1", Shows: ref(shows), Stage: "running", Running: true},
		}})
	}
	step := func() rollout.Step {
		t.Helper()
		r, _, err := rollout.Load(f.Now().State, 1)
		testkit.Must(t, err)
		step := d.next(&r)
		if step.Wait == "" {
			testkit.Must(t, d.advance(t.Context(), &r, step))
		}
		return step
	}
	if got := step(); !strings.HasPrefix(got.Wait, "second to have compute@2, ") {
		t.Errorf("before it has reported: %+v", got)
	}
	report(1)
	if got := step(); !strings.HasPrefix(got.Wait, "second to have compute@2, ") {
		t.Errorf("without the version: %+v", got)
	}
	v2 := followtest.Version("compute", 2)
	report(1, fleet.Version{Version: v2.Ref(), Digest: v2.Digest})
	if got := step(); got != (rollout.Step{}) || f.Now().State.Next["x1"] != ref(2) {
		t.Errorf("with the version: %+v; x1 is to follow %v", got, f.Now().State.Next["x1"])
	}
	if diff := cmp.Diff([]string{"x1"}, d.running([]string{"x1"})); diff != "" {
		t.Error(diff)
	}
	d.promote(t.Context())
	if got := f.Now().State.Next["x1"]; got != ref(2) {
		t.Errorf("before it has booted it is to follow %v", got)
	}
	report(2)
	d.promote(t.Context())
	if now, next := f.Now().State.Follows("x1", "compute"); now != ref(2) || !next.IsZero() {
		t.Errorf("when it has booted it follows %v, then %v", now, next)
	}
	if got := step(); got != (rollout.Step{}) || d.ShownOf([]string{"x1", "n01"}, ref(2)) != 1 {
		t.Errorf("in the end: %+v", got)
	}
	if r, _, _ := rollout.Load(f.Now().State, 1); r.UnderWay() {
		t.Errorf("it has not ended: %+v", r)
	}
}

func TestALayerIsLetGoByWhoHasAdoptedTheDescription(t *testing.T) {
	d := New(Options{Server: "head", Fleet: fleet.New()})
	now := declared(t)
	now.State.Store, now.State.Description = "a", &coord.Description{Revision: 7}
	check := func(server cluster.ServerName, want bool) {
		t.Helper()
		if got := d.letGo(now, server); got != want {
			t.Errorf("%s: %v, want %v", server, got, want)
		}
	}
	check("head", true)
	check("removed", true)
	check("second", false)
	now.Digest = image.Sum([]byte("the new description"))
	for _, tt := range []struct {
		report fleet.Report
		want   bool
	}{
		{fleet.Report{Store: "a", Revision: 6, Kept: 6, Description: now.Digest}, false}, // the same one, earlier
		{fleet.Report{Store: "b", Revision: 9, Kept: 9, Description: now.Digest}, false}, // of another state
		{fleet.Report{Store: "a", Revision: 7, Kept: 6, Description: now.Digest}, false}, // a restart would undo it
		{fleet.Report{Store: "a", Revision: 7, Kept: 7}, false},                          // it cannot follow it
		{fleet.Report{Store: "a", Revision: 7, Kept: 7, Description: now.Digest}, true},
	} {
		d.Fleet.Put("second", &tt.report)
		check("second", tt.want)
	}
}

func TestOneHeadDrivesAtATime(t *testing.T) {
	t.Parallel()
	f, _ := followtest.Open(t, small)
	first, _ := newDriver(t, f)
	second, _ := newDriver(t, f)
	second.Server = "second"
	one := first.term(t.Context())
	began := make(chan term)
	go func() { began <- second.term(t.Context()) }()
	if one.Err() != nil || one.alone {
		t.Errorf("the first: %v, alone %v", one.Err(), one.alone)
	}
	one.release()
	two := <-began
	defer two.release()
	if one.Err() == nil || two.Err() != nil {
		t.Errorf("the first has ended: %v; the second: %v", one.Err(), two.Err())
	}
}

func TestTheOnlyHeadNeedsNoLock(t *testing.T) {
	f := followtest.Unavailable(t, strings.Replace(small, `"second" roles="head image"`, `"second" roles="image"`, 1))
	d, _ := newDriver(t, f)
	if got := d.term(t.Context()); !got.alone || got.Err() != nil {
		t.Errorf("alone %v, %v", got.alone, got.Err())
	}
}
