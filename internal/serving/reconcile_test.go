package serving

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/store"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

func TestTheVersionThatAReplicaIsToShow(t *testing.T) {
	s := newSite(t, described(""))
	tests := []struct {
		name          string
		before        int // the version that the replica shows
		desired, next int // 0: nothing of its own
		booting       bool

		want   int // 0: an error
		held   bool
		booted bool
	}{
		{name: "it follows the current version", before: 1, want: 1},
		{name: "it follows a version of its own", before: 1, desired: 2, want: 2},
		{name: "another from its next boot on", before: 1, next: 2, want: 1},
		{name: "it has booted what was for its next boot", before: 2, next: 2, want: 2, booted: true},
		{name: "it boots what it follows", before: 1, booting: true, want: 1},
		{name: "it boots another one than it follows", before: 1, desired: 2, booting: true, want: 1, held: true},
		{name: "it boots, and follows another from its next boot on", before: 1, next: 2, booting: true, want: 1},
		{name: "it boots neither", before: 3, desired: 2, next: 1, booting: true, want: 3, held: true},
		{name: "its version does not exist", before: 1, desired: 9},
		{name: "it boots, and its version does not exist", before: 1, desired: 9, booting: true, want: 1, held: true},
	}
	name := func(i int) cluster.NodeName { return cluster.NodeName(fmt.Sprintf("n%02d", i+1)) }
	s.declare(1, func(now *coord.State) {
		for i, tt := range tests {
			now.Desired[string(name(i))] = ref(tt.before)
		}
	})
	s.reconcile()
	s.declare(1, func(now *coord.State) {
		for i, tt := range tests {
			if tt.desired > 0 {
				now.Desired[string(name(i))] = ref(tt.desired)
			}
			if tt.next > 0 {
				now.Next[string(name(i))] = ref(tt.next)
			}
		}
	})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.booting {
				s.Liveness.Report(name(i), boot.Event{Stage: boot.StageKernel})
			}
			s.booted.Store(false)
			v, held, err := s.target(s.declared.now, s.named(name(i)))
			if v.Number != tt.want || held != tt.held || (err != nil) != (tt.want == 0) {
				t.Errorf("got %d, held %v, %v; want %d, %v", v.Number, held, err, tt.want, tt.held)
			}
			if got := s.booted.Load(); got != tt.booted {
				t.Errorf("it has booted: %v", got)
			}
		})
	}

	t.Run("a boot that is over ends the wait", func(t *testing.T) {
		s.reconcile()
		if !s.holding.Load() || s.shows("n06") != 1 {
			t.Errorf("during its boot n06 shows %d, holding %v", s.shows("n06"), s.holding.Load())
		}
		for i := range tests {
			s.Liveness.Report(name(i), boot.Event{Stage: boot.StageHandover})
			s.Liveness.Called(name(i), time.Now())
		}
		if s.reconcile(); s.holding.Load() || s.shows("n06") != 2 {
			t.Errorf("after it n06 shows %d, holding %v", s.shows("n06"), s.holding.Load())
		}
	})
}

func TestABootPinsTheVersionThatItIsToFollow(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, func(now *coord.State) { now.Next["n01"], now.Next["n02"], now.Next["n03"] = ref(2), ref(2), ref(2) })
	s.reconcile()
	if got := s.Booted(); got != nil {
		t.Errorf("before a boot, booted are %v", got)
	}
	s.Begin(t.Context(), s.named("n01"))
	if got := [...]int{s.shows("n01"), s.shows("n02")}; got != [...]int{2, 1} {
		t.Errorf("n01 and n02 show %v", got)
	}
	want := coord.Refs{"n01": ref(2)}
	for range 2 { // until the declared state says so
		if diff := cmp.Diff(want, s.Booted()); diff != "" {
			t.Error(diff)
		}
		s.reconcile()
	}
	if v, err := s.Boots(s.named("n01")); err != nil || v.Number != 2 {
		t.Errorf("n01 boots the kernel of %d, %v", v.Number, err)
	}

	t.Run("a state that was adopted meanwhile counts", func(t *testing.T) {
		s.declared.before = func() {
			s.declared.before = nil
			s.declare(1, nil)
		}
		if s.Begin(t.Context(), s.named("n02")); s.shows("n02") != 1 {
			t.Errorf("n02 shows %d", s.shows("n02"))
		}
	})
	t.Run("when the state knows, nothing is to be told", func(t *testing.T) {
		s.declare(1, func(now *coord.State) { now.Desired["n01"] = ref(2) })
		s.reconcile()
		if got := s.Booted(); len(got) > 0 || s.shows("n01") != 2 {
			t.Errorf("booted are %v, n01 shows %d", got, s.shows("n01"))
		}
	})
	t.Run("a replica that was kept for the boot before is switched", func(t *testing.T) {
		s.Liveness.Report("n03", boot.Event{Stage: boot.StageKernel})
		s.declare(3, nil)
		if s.reconcile(); s.shows("n03") != 1 {
			t.Errorf("during its boot n03 shows %d", s.shows("n03"))
		}
		if s.Begin(t.Context(), s.named("n03")); s.shows("n03") != 3 {
			t.Errorf("when its next boot begins n03 shows %d", s.shows("n03"))
		}
	})
	t.Run("a mount in the way is a problem, and is tried again", func(t *testing.T) {
		s.nodes.mounts = mountedBy("n04")
		s.declare(3, func(now *coord.State) { now.Desired["n04"], now.Next["n04"] = ref(3), ref(1) })
		s.Begin(t.Context(), s.named("n04"))
		if s.shows("n04") != 3 || !strings.Contains(s.problem("n04"), "/etc/motd") || !s.unsettled.Load() {
			t.Errorf("n04 shows %d, its problem %q", s.shows("n04"), s.problem("n04"))
		}
	})
}

// mountedBy is what a node reports that has something mounted on /etc/motd.
func mountedBy(name cluster.NodeName) map[cluster.NodeName]push.MountTable {
	return map[cluster.NodeName]push.MountTable{
		name: {
			Node: name, Image: "compute", Called: time.Now(), Mounts: []push.Mount{{Path: "etc/motd", Type: "ext4"}},
		},
	}
}

func TestAReplicaWithAMountInTheWayStaysAndIsTriedAgain(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	s.nodes.mounts, s.nodes.woken = mountedBy("n01"), nil
	s.declare(2, nil)
	for range 2 {
		s.reconcile()
		if got := [...]int{s.shows("n01"), s.shows("n02")}; got != [...]int{1, 2} {
			t.Errorf("n01 and n02 show %v", got)
		}
		if text := s.problem("n01"); !strings.Contains(text, "/etc/motd") || !s.unsettled.Load() {
			t.Errorf("the problem: %q, to be tried again: %v", text, s.unsettled.Load())
		}
	}
	if !slices.Contains(s.nodes.woken, "n02") || slices.Contains(s.nodes.woken, "x1") {
		t.Errorf("woken are %v", s.nodes.woken)
	}
	s.nodes.mounts = nil
	if s.reconcile(); s.shows("n01") != 2 || s.problem("n01") != "" || s.unsettled.Load() {
		t.Errorf("without the mount n01 shows %d, its problem %q", s.shows("n01"), s.problem("n01"))
	}
}

func TestWhatANodeHasMounted(t *testing.T) {
	s := newSite(t, described(""))
	n := s.named("n01")
	report := func(image string, called time.Time) {
		s.nodes.mounts = mountedBy("n01")
		m := s.nodes.mounts["n01"]
		m.Image, m.Called = image, called
		s.nodes.mounts["n01"] = m
	}
	if got := s.mountedOn(n); got != nil {
		t.Errorf("a node that is off: %v", got)
	}
	s.Liveness.Called("n01", time.Now())
	if got := s.mountedOn(n); len(got) != 1 || !strings.HasSuffix(got[0], "scratch") {
		t.Errorf("a node that runs and has not reported: %v", got)
	}
	report("compute", time.Now())
	if got := s.mountedOn(n); !slices.Equal(got, []string{"etc/motd"}) {
		t.Errorf("a node that has reported: %v", got)
	}
	report("other", time.Now())
	if got := s.mountedOn(n); len(got) != 1 || !strings.HasSuffix(got[0], "scratch") {
		t.Errorf("a report about another image: %v", got)
	}
	report("compute", time.Now().Add(-time.Hour))
	s.Liveness.Report("n01", boot.Event{Stage: boot.StageKernel})
	if got := s.mountedOn(n); got != nil {
		t.Errorf("a report from before the boot: %v", got)
	}
}

func TestProblemsAreSetAndCleared(t *testing.T) {
	s := newSite(t, described(""))
	if s.reconcile(); len(s.Problems.All(t.Context())) > 0 || s.shows("n01") != 0 {
		t.Errorf("an image that was not captured yet is a problem: %v", s.Problems.All(t.Context()))
	}
	if _, err := s.Boots(s.named("n01")); err == nil || !strings.Contains(err.Error(), "dim image capture compute") {
		t.Errorf("what it boots: %v", err)
	}
	notStored := s.compute[0]
	notStored.Number = 7
	s.declare(1, func(now *coord.State) {
		now.Images["compute"].Versions = append(slices.Clone(s.compute), notStored)
		now.Desired["n01"], now.Desired["n02"] = ref(9), ref(7)
	})
	s.reconcile()
	for name, part := range map[cluster.NodeName]string{
		"n01": "there is no compute@9", "n02": "", "n03": "", "x1": "",
	} {
		if got := s.problem(name); !strings.Contains(got, part) || (got == "") != (part == "") {
			t.Errorf("%s: %q, want %q", name, got, part)
		}
	}
	if got := [...]int{s.shows("n01"), s.shows("n02"), s.shows("n03"), s.shows("x1")}; got != [...]int{0, 1, 1, 0} {
		t.Errorf("n01, n02, n03 and x1 show %v", got)
	}
	if _, err := s.Boots(s.named("n01")); err == nil || err.Error() != s.problem("n01") {
		t.Errorf("what n01 boots: %v", err)
	}
	if _, err := s.Boots(s.named("x1")); err == nil || !strings.Contains(err.Error(), "is not served here") {
		t.Errorf("what x1 boots: %v", err)
	}
	s.declare(1, nil)
	if s.reconcile(); len(s.Problems.All(t.Context())) > 0 || s.unsettled.Load() {
		t.Errorf("when all is well: %v", s.Problems.All(t.Context()))
	}
}

func TestAVersionIsShownWhenAllOfItIsHere(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	coming := s.compute[1]
	coming.Number = 8
	s.declare(1, func(now *coord.State) {
		now.Images["compute"].Versions = append(slices.Clone(s.compute), coming)
		now.Desired["n01"], now.Next["n02"] = ref(8), ref(8)
	})
	for _, when := range []string{"at once", "after a restart"} {
		s.arriving.wait = time.Millisecond
		s.reconcile()
		if all := s.Problems.All(t.Context()); len(all) > 0 {
			t.Errorf("%s: %v", when, all)
		}
		s.Begin(t.Context(), s.named("n02"))
		if s.shows("n01") != 1 || s.shows("n02") != 1 {
			t.Errorf("%s: n01 shows %d, n02 %d; version 8 has not arrived", when, s.shows("n01"), s.shows("n02"))
		}
		s.close()
		s.open(s.Store)
	}
	testkit.Value(s.Store.AddVersion(coming))(t)
	s.reconcile()
	s.Begin(t.Context(), s.named("n02"))
	if s.shows("n01") != 8 || s.shows("n02") != 8 {
		t.Errorf("n01 shows %d, n02 %d", s.shows("n01"), s.shows("n02"))
	}
}

// A head has all versions; an image server gets them.
func TestAVersionThatIsOnItsWayIsNoError(t *testing.T) {
	me := newSite(t, described(""))
	for roles, want := range map[string]string{
		"head image": "level=ERROR", "image": `level=INFO msg="waits for a version"`,
	} {
		var log bytes.Buffer
		me.Log = slog.New(slog.NewTextHandler(&log, nil))
		server, _ := me.Declared.Now().Cluster.Server("head")
		server.Roles = nil
		for role := range strings.FieldsSeq(roles) {
			server.Roles = append(server.Roles, cluster.Role(role))
		}
		err := fmt.Errorf("serve n01: %w", me.lacks(image.Ref{Image: "compute", Number: 9}))
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v is of another kind", roles, err)
		}
		if me.logFailure(problems.Node("n01"), err); !strings.Contains(log.String(), want) ||
			!strings.Contains(log.String(), "compute@9") {
			t.Errorf("%s: the log has %s", roles, &log)
		}
	}
}

func TestAServerThatIsClosedServesNoNodes(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	root := s.node("n01").fs.Root()
	for closed, want := range map[bool]error{true: vfs.ELATER, false: nil} {
		s.closed = closed
		s.reconcile()
		if _, err := testkit.Value(s.client("10.0.0.11:700"))(t).Find(root); !errors.Is(err, want) {
			t.Errorf("closed %v: a call of n01, which runs: %v, want %v", closed, err, want)
		}
		if _, served := s.Node("n01"); served == closed || s.Serves(s.named("n01")) == closed {
			t.Errorf("closed %v: n01 is served: %v", closed, served)
		}
	}
}

// TestAVersionThatArrivesIsShownIfThereIsNoOther has a first version that is not whole, and then a second one.
func TestAVersionThatArrivesIsShownIfThereIsNoOther(t *testing.T) {
	s := newSite(t, described(""))
	first, second := s.compute[0], s.compute[1]
	testkit.Must(t, s.Store.RemoveVersion(first.Ref()), s.Store.RemoveVersion(second.Ref()),
		s.Store.RemoveVersion(s.compute[2].Ref()))
	s.declare(1, nil)
	s.reconcile()
	if _, ok := s.Shows("n01"); ok || !s.Waits(first) || s.Waits(second) {
		t.Errorf("n01 has a root: %v; a node waits for version 1: %v, for 2: %v", ok, s.Waits(first), s.Waits(second))
	}
	s.partial.Store(&first)
	s.reconcile()
	if s.shows("n01") != 1 || s.Waits(first) {
		t.Errorf("n01 shows %d, and a node waits: %v", s.shows("n01"), s.Waits(first))
	}
	s.partial.Store(nil)
	testkit.Value(s.Store.AddVersion(first))(t)
	s.declare(2, nil)
	s.partial.Store(&second)
	s.reconcile()
	if s.shows("n01") != 1 || s.Waits(second) {
		t.Errorf("n01 shows %d before all of version 2 is here, and a node waits: %v", s.shows("n01"), s.Waits(second))
	}
}

func TestNodesThatAreGoneAreForgotten(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	s.Liveness.Called("n12", time.Now())
	s.describe(strings.NewReplacer(`to="12"`, `to="11"`, `<image name="other" arch="amd64" master="dir:/master"/>`, "").
		Replace(described("")))
	s.reconcile()
	if _, served := s.Node("n12"); served || !slices.Equal(s.nodes.forgotten, []cluster.NodeName{"n12"}) {
		t.Errorf("n12 is served: %v; forgotten are %v", served, s.nodes.forgotten)
	}
	if got := s.Liveness.State("n12"); got.Stage != liveness.Off {
		t.Errorf("n12 is %s", got.Stage)
	}
	if _, err := s.Set.ReadOnly(s.compute[0]); err != nil || len(s.Paths()) != 11 {
		t.Errorf("%d paths, %v", len(s.Paths()), err)
	}
}

func TestOneMoreNodeSwitchesOnlyReplicasWhoseFilesDiffer(t *testing.T) {
	const more = `<node name="y1" image="compute" servers="head">` +
		`<interface name="eth0" network="boot" address="10.0.0.98" mac="52:54:00:4d:00:98"/></node>`
	for _, tt := range []struct {
		name, builtin string
		switched      bool // every node's /etc/hosts has the new node
	}{
		{"hosts", "", true},
		{"no hosts", `<builtin name="hosts" enabled="no"/>`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(described("%s"), `<mount path="/scratch"/>`, tt.builtin, 1)
			s := newSite(t, fmt.Sprintf(text, ""))
			s.declare(1, nil)
			s.reconcile()
			before := testkit.Value(s.ChangedDirs("n01", "", 0))(t)
			s.describe(fmt.Sprintf(text, more))
			s.declared.now.State.Description.Applied = s.declared.now.State.Description.Applied.Add(time.Hour)
			s.reconcile()
			after := testkit.Value(s.ChangedDirs("n01", "", before.Stamp))(t)
			if dirs := slices.Collect(after.Dirs); (len(dirs) > 0) != tt.switched {
				t.Errorf("changed directories of n01: %q", dirs)
			}
			if s.shows("y1") != 1 {
				t.Errorf("y1 is not served: %s", s.problem("y1"))
			}
			records := s.switches()
			for range 3 { // a description that says the same costs no switch
				s.describe(fmt.Sprintf(text, more+"<!-- again -->"))
				s.declared.now.State.Description.Applied = s.declared.now.State.Description.Applied.Add(2 * time.Hour)
				s.reconcile()
			}
			if got := s.switches(); got != records {
				t.Errorf("the journal has grown from %d to %d bytes", records, got)
			}
		})
	}
}

// switches returns the size of the journal of switches.
func (s *site) switches() int64 {
	s.t.Helper()
	return testkit.Value(os.Stat(filepath.Join(s.dir, "replicas", "switches.log")))(s.t).Size()
}

func TestANodeThatCannotBeServedLeavesTheOthersAlone(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	s.declare(1, func(now *coord.State) { now.Desired["n01"] = ref(2) })
	s.reconcile()
	s.close()
	s.damage(2)
	s.open(s.Store)
	s.declare(3, func(now *coord.State) { now.Desired["n02"] = ref(2) })
	s.reconcile()
	// n01 showed the damaged version until now, without files of its own: it starts anew.
	if s.shows("n03") != 3 || s.shows("n01") != 3 || s.problem("n01") != "" || s.problem("n02") == "" {
		t.Errorf("n03 shows %d, n01 %d", s.shows("n03"), s.shows("n01"))
		t.Errorf("n01: %q, n02: %q", s.problem("n01"), s.problem("n02"))
	}
	s.declare(1, func(now *coord.State) { now.Desired["n02"] = ref(2) })
	s.reconcile()
	if s.shows("n03") != 1 || s.shows("n12") != 1 {
		t.Errorf("after a switch n03 shows %d, n12 %d", s.shows("n03"), s.shows("n12"))
	}
}

// damage removes the root directory of a version from the store.
func (s *site) damage(number int) {
	s.t.Helper()
	hex := s.compute[number-1].Root.Digest.String()
	hex = hex[strings.LastIndexByte(hex, ':')+1:]
	testkit.Must(s.t, os.Remove(filepath.Join(s.dir, "store", "trees", hex[:2], hex)))
}
