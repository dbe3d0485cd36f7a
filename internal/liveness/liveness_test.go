package liveness

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
)

func TestABootIsFollowed(t *testing.T) { synctest.Test(t, testBoot) }

func testBoot(t *testing.T) {
	tr := discardingTracker()
	steps := func() string {
		var out []string
		for _, e := range tr.State("n01").Events {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s%s x%d", e.Stage, e.Detail, e.Error, e.Count)))
		}
		return strings.Join(out, ", ")
	}
	then := func(what string, do func(), want string) {
		t.Helper()
		time.Sleep(time.Second)
		do()
		if d := cmp.Diff(want, steps()); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	n01 := &cluster.Node{Name: "n01"}
	report := func(stage boot.Stage, detail string) {
		tr.Report("n01", boot.Event{Stage: stage, Detail: detail})
		tr.Boots(t.Context(), n01)
	}
	fail := func(stage boot.Stage, why string) { tr.Report("n01", boot.Event{Stage: stage, Error: why}) }
	call := func() { tr.Called("n01", time.Now()) }

	then("discovery and request", func() { report("dhcp", "PXE"); report("dhcp", "PXE") }, "dhcp PXE x2")
	then("the loader", func() { report("loader", "") }, "dhcp PXE x2, loader  x1")
	then("the loader asks", func() { report("dhcp", "iPXE") }, "dhcp PXE x2, loader  x1, dhcp iPXE x1")
	then("NFS calls of the last run", call, "dhcp PXE x2, loader  x1, dhcp iPXE x1")
	then("held up", func() { fail("script", "no version"); fail("script", "no version") },
		"dhcp PXE x2, loader  x1, dhcp iPXE x1, script no version x2")
	then("handover", func() { report("handover", ""); call(); call() },
		"dhcp PXE x2, loader  x1, dhcp iPXE x1, script no version x2, handover  x1, running  x1")
	then("the next boot", func() { report("dhcp", "PXE") }, "dhcp PXE x1")
	then("a machine that is switched on again an hour later", func() { time.Sleep(time.Hour); report("dhcp", "PXE") },
		"dhcp PXE x1")
	then("an NFS call during the boot", func() { report("mount", ""); call() }, "dhcp PXE x1, mount  x1")
	then("a report that comes late", func() {
		tr.Report("n01", boot.Event{Stage: "link", Time: time.Now().Add(-1500 * time.Millisecond)})
	}, "dhcp PXE x1, link  x1, mount  x1")
	then("an NFS call long after a handover that was not reported", func() { time.Sleep(time.Hour); call() },
		"dhcp PXE x1, link  x1, mount  x1, running  x1")

	tr.Called("n02", time.Now())
	if s := tr.State("n02"); s.Stage != boot.StageRunning {
		t.Errorf("a node that was running before the server: %q", s.Stage)
	}
	var all []string
	for _, x := range tr.all() {
		all = append(all, fmt.Sprint(x.Node, " ", len(x.Events)))
	}
	if d := cmp.Diff([]string{"n01 6", "n01 1", "n01 4", "n02 1"}, all); d != "" {
		t.Errorf("boots: %s", d)
	}
	tr.Forget("n02")
	if s := tr.State("n02"); s.Stage != Off || s.Running || s.MayRun {
		t.Errorf("n02 is still there: %+v", s)
	}
}

func TestABootThatNeverEndsIsKeptWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
		for i := range 1000 {
			time.Sleep(time.Second)
			tr.Report("n01", boot.Event{Stage: boot.StageMount, Error: fmt.Sprint("try ", i)})
		}
		s := tr.State("n01")
		if len(s.Events) != maxEvents || s.Events[0].Stage != boot.StageDHCP || s.Error != "try 999" {
			t.Errorf("%d events, first %v, last %.20s", len(s.Events), s.Events[0], s.Error)
		}
	})
}

// One table has all that callers want to know of a node.
func TestStateDrawsTheConclusions(t *testing.T) {
	report := func(stage boot.Stage, err string) func(*Tracker) {
		return func(tr *Tracker) { tr.Report("n01", boot.Event{Stage: stage, Error: err}) }
	}
	call := func(tr *Tracker) { tr.Called("n01", time.Now()) }
	seen := func(tr *Tracker) { tr.Seen("n01", time.Now()) }
	wait := func(d time.Duration) func(*Tracker) { return func(*Tracker) { time.Sleep(d) } }
	for _, tt := range []struct {
		name  string
		steps []func(*Tracker)
		want  string // stage, and what holds
	}{
		{"nothing is known", nil, "off"},
		{"firmware asks", []func(*Tracker){report("dhcp", "")}, "dhcp mayrun began"},
		{"it has the script", []func(*Tracker){report("dhcp", ""), report("script", "")},
			"script booting mayrun began"},
		{"there is no kernel for it", []func(*Tracker){report("script", "no version")}, "script mayrun began"},
		{"it mounts its root", []func(*Tracker){report("script", ""), report("mount", "")},
			"mount booting mayrun began"},
		{"its boot broke off", []func(*Tracker){report("script", ""), wait(bootTimeout)}, "script began"},
		{"it runs", []func(*Tracker){report("handover", ""), call}, "running running mayrun began"},
		{"it ran when the server started", []func(*Tracker){call}, "running running mayrun"},
		{"it made no call for long", []func(*Tracker){call, wait(upTimeout)}, "running running"},
		{"only its process called lately", []func(*Tracker){call, wait(upTimeout), seen}, "running running mayrun"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := discardingTracker()
				for _, step := range tt.steps {
					step(tr)
				}
				s := tr.State("n01")
				got := string(s.Stage)
				for _, f := range []struct {
					name string
					is   bool
				}{{"booting", s.Booting}, {"running", s.Running}, {"mayrun", s.MayRun}, {"began", !s.Began.IsZero()}} {
					if f.is {
						got += " " + f.name
					}
				}
				if got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestAnErrorOfDHCPStaysUntilTheBootGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		const declined = "another machine uses 10.77.0.11"
		for _, step := range []struct {
			stage         boot.Stage
			failure, want string
		}{
			{boot.StageDHCP, "", ""},
			{boot.StageDHCP, declined, declined},
			{boot.StageDHCP, "", declined}, // it asks again
			{boot.StageLoader, "", ""},
		} {
			tr.Report("n01", boot.Event{Stage: step.stage, Error: step.failure})
			if s := tr.State("n01"); s.Stage != step.stage || s.Error != step.want {
				t.Errorf("%s: %q, want %q", s.Stage, s.Error, step.want)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(sameBoot)
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
		if s := tr.State("n01"); s.Error != "" {
			t.Errorf("in the next boot: %q", s.Error)
		}
	})
}

func TestBootedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		start := time.Now()
		tr.Called("n01", start.Add(time.Second))
		if s := tr.State("n01"); s.BootedSince(start) {
			t.Error("a call is taken for a boot")
		}
		time.Sleep(time.Minute)
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
		tr.Boots(t.Context(), runner())
		if s := tr.State("n01"); !s.BootedSince(start) || s.BootedSince(time.Now()) {
			t.Errorf("after a boot: %v, %v", s.BootedSince(start), s.BootedSince(time.Now()))
		}
	})
}
