package driver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/control"
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
	t.Parallel()
	f, _ := followtest.Open(t, small)
	d := New(Options{Server: "head", Fleet: testkit.Value(fleet.Open(t.TempDir()))(t), Follow: f})
	testkit.Eventually(t, "the description is adopted", func() bool {
		now := f.Now()
		return now.State.Description != nil && d.letGo(now, "head")
	})
	now := *f.Now()
	store, rev, digest := now.State.Store, now.State.Description.Revision, now.Digest
	check := func(server cluster.ServerName, want bool) {
		t.Helper()
		if got := d.letGo(&now, server); got != want {
			t.Errorf("%s: %v, want %v", server, got, want)
		}
	}
	check("head", true)
	check("removed", true)
	check("second", false)
	for _, tt := range []struct {
		report fleet.Report
		want   bool
	}{
		{fleet.Report{Store: store, Revision: rev - 1, Kept: rev - 1, Description: digest}, false}, // earlier
		{fleet.Report{Store: "b", Revision: rev + 2, Kept: rev + 2, Description: digest}, false},   // elsewhere
		{fleet.Report{Store: store, Revision: rev, Kept: rev - 1, Description: digest}, false},     // not on disk
		{fleet.Report{Store: store, Revision: rev, Kept: rev}, false},                              // not read
		{fleet.Report{Store: store, Revision: rev, Kept: rev, Description: digest}, true},
	} {
		d.Fleet.Put("second", &tt.report)
		check("second", tt.want)
	}
	next := *now.State.Description
	next.Revision = now.State.Revision + 1
	now.State.Description, now.Digest = &next, image.Sum([]byte("the next description"))
	check("head", false) // it has not adopted it yet
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
