package driver

import (
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/pkgdb"
	"dim/internal/problems"
	"dim/internal/rollout"
	"dim/internal/testkit"
)

// small has the nodes n01 to n03 of this server with the image compute, n04 with the image other, and x1 of another
// server.
const small = `<cluster name="small">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <server name="second" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.3"/></server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"/>
  <image name="other" arch="amd64" master="dir:/master"/>
  <image name="empty" arch="amd64" master="dir:/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
  <node name="x1" image="compute" servers="second">
    <interface name="eth0" network="boot" address="127.0.0.99" mac="52:54:00:4d:00:99"/>
  </node>
  <group name="others" nodes="n04" image="other"/>
</cluster>
`

// roots are the Roots of a server that serves all nodes but x1.
type roots struct {
	shows  map[cluster.NodeName]image.Version
	booted coord.Refs

	renaming bool
	left     map[cluster.NodeName]string
}

func (r *roots) Serves(n *cluster.Node) bool { return n.Name != "x1" }

func (r *roots) Shows(n cluster.NodeName) (image.Version, bool) { v, ok := r.shows[n]; return v, ok }

func (r *roots) Booted() coord.Refs { return r.booted }

func (r *roots) Renaming() bool { return r.renaming }

func (r *roots) Left(n cluster.NodeName) string { return r.left[n] }

// newDriver returns a Driver of the server head that follows f.
func newDriver(t *testing.T, f *follow.Follower) (*Driver, *roots) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	tracker := testkit.Value(liveness.Open(filepath.Join(t.TempDir(), "boots.log"), nil, log))(t)
	t.Cleanup(func() { testkit.Must(t, tracker.Close()) })
	r := &roots{shows: map[cluster.NodeName]image.Version{}}
	return New(Options{
		Server: "head", Follow: f, Liveness: tracker, Roots: r,
		Fleet: testkit.Value(fleet.Open(t.TempDir()))(t), Problems: new(problems.List),
		Log: log,
	}), r
}

// declared is a state in which compute has the versions 1 and 2, and follows 1.
func declared(t *testing.T) *follow.Declared {
	t.Helper()
	v := followtest.Version
	return &follow.Declared{
		Cluster: testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(small)}))(t),
		State: coord.State{Rollouts: map[int]json.RawMessage{}, Images: map[string]*coord.Image{
			"compute": {Last: 2, Current: 1, Versions: []image.Version{v("compute", 1), v("compute", 2)}},
			"gone":    {Last: 1, Current: 1, Versions: []image.Version{v("gone", 1)}},
		}},
	}
}

func ref(number int) image.Ref { return image.Ref{Image: "compute", Number: number} }

func TestARequestIsPlanned(t *testing.T) {
	d := New(Options{})
	now := declared(t)
	type request = control.RolloutRequest
	for _, tt := range []struct {
		name    string
		request request
		rings   string       // of the plan: the nodes of each
		code    control.Code // of the error
		message string       // a part of it
	}{
		{"all nodes of the image", request{Version: "compute"}, "n[01-03],x1 all", "", ""},
		{"a node set", request{Version: "compute@1", Nodes: "n[01-02]"}, "n[01-02]", "", ""},
		{"a set of all nodes", request{Version: "compute@1", Nodes: "n[01-03],x1"}, "n[01-03],x1 all", "", ""},
		{"rings", request{Version: "compute@1", Rings: "1,rest"}, "n01 n[02-03],x1 all", "", ""},
		{"at the next boot", request{Version: "compute@1", Nodes: "n01", When: "boot"}, "n01 boot", "", ""},
		{"no such version", request{Version: "compute@3"}, "", control.NotFound, "compute@3"},
		{"an image that has left the description", request{Version: "gone"}, "", control.NotFound, "has no such image"},
		{
			"nodes of another image", request{Version: "compute", Nodes: "n[03-04]"},
			"", control.Invalid, "roll out compute: n04 run another image",
		},
		{"nodes that do not exist", request{Version: "compute", Nodes: "n09"}, "", control.NotFound, "n09"},
		{"rings that leave nodes", request{Version: "compute", Rings: "1"}, "", control.Invalid, "3 of 4 nodes"},
		{"a time that does not exist", request{Version: "compute", When: "soon"}, "", control.Invalid, `"soon"`},
		{"a soak time below zero", request{Version: "compute", Soak: -1}, "", control.Invalid,
			"--soak must not be negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.request.When == "" {
				tt.request.When = "now"
			}
			r, err := d.Plan(now, tt.request)
			if tt.code != "" {
				e, ok := errors.AsType[*control.Error](err)
				if !ok || e.Code != tt.code || !strings.Contains(e.Message, tt.message) {
					t.Errorf("got %v, want %s: %s", err, tt.code, tt.message)
				}
				return
			}
			testkit.Must(t, err)
			var got []string
			for _, ring := range r.Rings {
				got = append(got, ring.Nodes.String())
			}
			if r.All {
				got = append(got, "all")
			}
			if r.When == rollout.Boot {
				got = append(got, "boot")
			}
			if diff := cmp.Diff(tt.rings, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARequestWithoutAVersionIsChecked(t *testing.T) {
	d, now := New(Options{}), declared(t)
	im, _ := now.Cluster.Image("compute")
	for _, tt := range []struct {
		request control.RolloutRequest
		code    control.Code
	}{
		{control.RolloutRequest{When: "now"}, ""},
		{control.RolloutRequest{When: "boot", Nodes: "n01", Rings: "1,rest"}, ""},
		{control.RolloutRequest{When: "now", OnConflict: "master"}, ""},
		{control.RolloutRequest{When: "now", OnConflict: "node"}, ""},
		{control.RolloutRequest{When: "now", OnConflict: "mine"}, control.Invalid},
		{control.RolloutRequest{When: "never"}, control.Invalid},
		{control.RolloutRequest{When: "now", Nodes: "n04"}, control.Invalid},
		{control.RolloutRequest{When: "now", Rings: "1"}, control.Invalid},
		{control.RolloutRequest{When: "now", Nodes: "n09"}, control.NotFound},
	} {
		err := d.Check(now, im, tt.request)
		e, _ := errors.AsType[*control.Error](err)
		if (err != nil) != (tt.code != "") || e != nil && e.Code != tt.code {
			t.Errorf("%+v: %v, want %q", tt.request, err, tt.code)
		}
	}
}

func TestARolloutThatChangesNothingIsNotDeclared(t *testing.T) {
	one := func(number int, when rollout.When, nodes ...string) *rollout.Rollout {
		return &rollout.Rollout{
			Image: "compute", Version: number, When: when, Rings: []rollout.Ring{{Nodes: nodes}},
		}
	}
	all := func(number int) *rollout.Rollout {
		r := one(number, rollout.Now, "n01", "n02", "n03", "x1")
		r.All = true
		return r
	}
	for _, tt := range []struct {
		name    string
		rollout *rollout.Rollout
		desired coord.Refs
		next    coord.Refs
		want    bool
	}{
		{"nodes follow it", one(1, rollout.Now, "n01", "n02"), nil, nil, false},
		{"one does not", one(1, rollout.Now, "n01", "n02"), coord.Refs{"n02": ref(2)}, nil, true},
		{"one follows another from its next boot on", one(1, rollout.Now, "n01"), nil, coord.Refs{"n01": ref(2)}, true},
		{"all follow it from their next boot on", one(2, rollout.Boot, "n01"), nil, coord.Refs{"n01": ref(2)}, false},
		{"now instead of at the next boot", one(2, rollout.Now, "n01"), nil, coord.Refs{"n01": ref(2)}, true},
		{"it is the current one", all(1), nil, nil, false},
		{
			"all follow it, and another is the current one", all(2),
			coord.Refs{"n01": ref(2), "n02": ref(2), "n03": ref(2), "x1": ref(2)}, nil, true,
		},
		{"nodes that do not exist", one(2, rollout.Now, "n09"), nil, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := declared(t)
			now.State.Desired, now.State.Next = tt.desired, tt.next
			d, _ := newDriver(t, nil)
			if got := d.changes(now, tt.rollout); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestANodeThatStaysBecauseOfItsPackagesIsMovedByAnotherRollout(t *testing.T) {
	d, r := newDriver(t, nil)
	now := declared(t)
	now.State.Desired = coord.Refs{"n01": ref(2)}
	r.left = map[cluster.NodeName]string{"n01": "packages"}
	again := &rollout.Rollout{
		Image: "compute", Version: 2, When: rollout.Now, Rings: []rollout.Ring{{Nodes: rollout.Nodes{"n01"}}},
		OnConflict: pkgdb.LeaveNode,
	}
	if d.changes(now, again) {
		t.Error("it would stay again")
	}
	if again.OnConflict = pkgdb.MasterWins; !d.changes(now, again) {
		t.Error("it is not moved")
	}
}

func TestRequestsForARolloutAreDecided(t *testing.T) {
	d := New(Options{})
	for _, tt := range []struct {
		change control.RolloutChange
		code   control.Code
	}{
		{control.RolloutChange{Do: "pause"}, ""},
		{control.RolloutChange{Do: "resume"}, ""},
		{control.RolloutChange{Do: "stop"}, ""},
		{control.RolloutChange{Do: "undo"}, ""},
		{control.RolloutChange{Do: "undo", When: "boot"}, ""},
		{control.RolloutChange{Do: "undo", When: "later"}, control.Invalid},
		{control.RolloutChange{Do: "redo"}, control.Invalid},
		{control.RolloutChange{}, control.Invalid},
	} {
		decide, err := d.Decide(1, tt.change)
		e, _ := errors.AsType[*control.Error](err)
		if (decide == nil) != (tt.code != "") || e != nil && e.Code != tt.code {
			t.Errorf("%+v: %v, want %q", tt.change, err, tt.code)
		}
		if decide == nil {
			continue
		}
		_, err = decide(coord.State{})
		if e, ok := errors.AsType[*control.Error](APIError(err)); !ok || e.Code != control.NotFound {
			t.Errorf("%+v of a rollout that does not exist: %v", tt.change, err)
		}
	}
}

func TestErrorsOfDecisionsHaveAHint(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code control.Code
		hint string
	}{
		{rollout.ErrState, control.Conflict, "without a number it is the latest"},
		{rollout.ErrConflict, control.Conflict, "undo or stop the one in the way"},
		{coord.ErrUnavailable, control.Unavailable, ""},
	} {
		e, ok := errors.AsType[*control.Error](APIError(tt.err))
		if !ok || e.Code != tt.code || !strings.Contains(e.Hint, tt.hint) || (e.Hint == "") != (tt.hint == "") {
			t.Errorf("%v: %+v", tt.err, e)
		}
	}
	if other := errors.New("other"); APIError(other) != other {
		t.Error("another error is not returned as it is")
	}
}

func TestRunningRolloutsAreDriven(t *testing.T) {
	now := declared(t)
	add := func(id int, state rollout.State, nodes ...string) {
		r := rollout.Rollout{
			Image: "compute", Version: 2, When: rollout.Now, Rings: []rollout.Ring{{Nodes: nodes}},
		}
		r.Check = "true"
		_, c, err := r.Declare(now.State, nil, time.Now())
		testkit.Must(t, err)
		now.State = c.Onto(now.State)
		if state == rollout.Paused {
			c, err = rollout.Pause(now.State, id, "by hand", time.Now())
			testkit.Must(t, err)
			now.State = c.Onto(now.State)
		}
	}
	d := New(Options{Server: "head", Log: slog.New(slog.DiscardHandler)})
	if got := d.driven(now); got != nil {
		t.Errorf("without rollouts: %v", got)
	}
	add(1, rollout.Running, "n01")
	add(2, rollout.Paused, "n02")
	add(3, rollout.Running, "n03")
	now.State.Rollouts[4] = []byte("{")
	if diff := cmp.Diff([]int{3, 1}, d.driven(now)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsSeenOfTheNodesOfARing(t *testing.T) {
	t.Parallel()
	f, c := followtest.Open(t, small)
	followtest.Put(t, f, c, followtest.Version("compute", 1), followtest.Version("compute", 2))
	followtest.Declare(t, f, c, coord.Change{Desired: coord.Refs{"n01": ref(2), "n02": ref(2), "x1": ref(2)},
		Next: coord.Refs{"n03": ref(2)}})
	d, roots := newDriver(t, f)
	roots.shows["n01"] = followtest.Version("compute", 2)
	roots.shows["n02"] = followtest.Version("compute", 1)
	d.Liveness.Called("n01", time.Now())
	d.Liveness.Report("n02", boot.Event{Stage: boot.StageKernel})
	d.Problems.Set(problems.Node("n02"), errors.New("a mount is in the way"))
	r := &rollout.Rollout{
		ID: 1, Image: "compute", Version: 2, Since: time.Now(), Phase: "gate",
		Rings: []rollout.Ring{{Nodes: rollout.Nodes{"n01", "n02", "n03", "n04", "n05", "n09", "x1"}}},
	}
	r.Soak = time.Hour
	want := map[string]rollout.Seen{
		"n01": {Server: "head", Report: &rollout.Report{Shows: ref(2), Stage: "running"}},
		"n02": {Server: "head", Report: &rollout.Report{
			Shows: ref(1), Stage: "kernel", Booting: true, Problem: "a mount is in the way",
		}},
		"n03": {Server: "head", Report: &rollout.Report{Stage: "off"}}, // it has no root yet
		"n04": {Gone: true},                                            // it has another image
		"n05": {Gone: true},                                            // another rollout has moved it
		"n09": {Gone: true},                                            // it is not in the description
		"x1":  {Server: "second"},                                      // nothing has reported what it shows
	}
	if diff := cmp.Diff(want, d.seen(r)); diff != "" {
		t.Error(diff)
	}

	t.Run("a problem of all replicas is one of each", func(t *testing.T) {
		d.Problems.Set(problems.Of(problems.KindReplicas), errors.New("no room"))
		seen := d.seen(r)
		if seen["n01"].Report.Problem != "no room" || seen["n02"].Report.Problem != "a mount is in the way" {
			t.Errorf("n01: %q, n02: %q", seen["n01"].Report.Problem, seen["n02"].Report.Problem)
		}
	})
	t.Run("nodes that run", func(t *testing.T) {
		if diff := cmp.Diff([]string{"n01"}, d.running(r.Nodes())); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("after the soak time, a node that has called is up", func(t *testing.T) {
		r.Soak, r.Since = time.Nanosecond, time.Now().Add(-time.Hour)
		r.Rings[0].Ran = rollout.Nodes{"n01", "n02", "n09"}
		seen := d.seen(r)
		if !seen["n01"].Answers || seen["n02"].Answers || seen["n09"].Answers {
			t.Errorf("seen %+v", seen)
		}
	})
}

func TestARolloutBeginsAndIsChanged(t *testing.T) {
	t.Parallel()
	f, c := followtest.Open(t, small)
	followtest.Put(t, f, c, followtest.Version("compute", 1), followtest.Version("compute", 2))
	d, roots := newDriver(t, f)
	plan := func(version, nodes string) rollout.Rollout {
		t.Helper()
		request := control.RolloutRequest{Version: version, Nodes: nodes, When: "boot", Check: "true"}
		return testkit.Value(d.Plan(f.Now(), request))(t)
	}
	if _, begun, err := d.Begin(t.Context(), plan("compute@1", "")); begun || err != nil {
		t.Errorf("with nothing to do: begun %v, %v", begun, err)
	}
	r, begun, err := d.Begin(t.Context(), plan("compute@2", "n[01-02]"))
	if err != nil || !begun || r.ID != 1 || f.Now().State.Next["n01"] != ref(2) {
		t.Errorf("begun %v, %v: %+v", begun, err, r)
	}
	_, _, err = d.Begin(t.Context(), plan("compute@2", ""))
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Conflict || e.Hint == "" {
		t.Errorf("a second one with nodes in common: %v", err)
	}
	pause := testkit.Value(d.Decide(1, control.RolloutChange{Do: "pause"}))(t)
	testkit.Must(t, d.Apply(t.Context(), 1, "pause", pause))
	if r, _, _ := rollout.Load(f.Now().State, 1); r.State != rollout.Paused {
		t.Errorf("after a pause it is %s", r.State)
	}
	err = d.Apply(t.Context(), 1, "pause", pause)
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Conflict {
		t.Errorf("a second pause: %v", err)
	}

	t.Run("nodes that have booted what they were to follow do so", func(t *testing.T) {
		roots.booted = coord.Refs{"n01": ref(2), "n03": ref(2)} // nothing was declared for n03
		d.promote(t.Context())
		s := f.Now().State
		now, next := s.Follows("n01", "compute")
		if now != ref(2) || !next.IsZero() {
			t.Errorf("n01 follows %v, then %v", now, next)
		}
		if now, _ := s.Follows("n03", "compute"); now != ref(1) {
			t.Errorf("n03 follows %v", now)
		}
		before := s.Revision
		roots.booted = nil
		if d.promote(t.Context()); f.Now().State.Revision != before {
			t.Error("nothing has booted, and the state has changed")
		}
	})
}

func TestWithoutTheSharedStateNothingBegins(t *testing.T) {
	f := followtest.Unavailable(t, small)
	d, roots := newDriver(t, f)
	roots.booted = coord.Refs{"n01": ref(2)}
	d.promote(t.Context())
	r := rollout.Rollout{
		Image: "compute", Version: 2, When: rollout.Now, Rings: []rollout.Ring{{Nodes: rollout.Nodes{"n01"}}},
	}
	_, begun, err := d.Begin(t.Context(), r)
	if e, ok := errors.AsType[*control.Error](err); begun || !ok || e.Code != control.Unavailable {
		t.Errorf("begun %v, %v", begun, err)
	}
	if err := d.Apply(t.Context(), 1, "pause", nil); err == nil {
		t.Error("a change succeeded")
	}
}

func TestARolloutSaysWhatItWaitsFor(t *testing.T) {
	d := New(Options{})
	d.setWait(1, "n01 to boot")
	if got := d.Waits(1) + d.Waits(2); got != "n01 to boot" {
		t.Errorf("got %q", got)
	}
	if d.setWait(1, ""); d.Waits(1) != "" {
		t.Error("it waits for ever")
	}
}

func TestChecksTakeAPartOfTheTime(t *testing.T) {
	for _, tt := range []struct{ took, want time.Duration }{
		{0, checkGap},
		{time.Millisecond, checkGap},
		{20 * time.Millisecond, checkShare * 20 * time.Millisecond},
		{time.Second, interval},
	} {
		if got := gapAfter(tt.took); got != tt.want {
			t.Errorf("after a check of %v the next one comes in %v, want %v", tt.took, got, tt.want)
		}
	}
}
