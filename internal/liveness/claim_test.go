package liveness

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
)

// runner is a node with one card.
func runner() *cluster.Node {
	return &cluster.Node{Name: "n01", Interfaces: []*cluster.Interface{
		{Name: "eth0", Address: netip.MustParseAddr("10.77.0.11")}, {Name: "ib0"},
	}}
}

// answering returns a Connected that takes a second.
func answering(alive bool) Connected {
	return func(_ context.Context, addrs []netip.Addr, _ time.Time) bool {
		time.Sleep(time.Second)
		return alive && len(addrs) == 1 && addrs[0] == netip.MustParseAddr("10.77.0.11")
	}
}

func TestANodeThatRunsCannotBeMadeToBootByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		tr.answers = answering(true)
		tr.Called("n01", time.Now())
		for range 3 {
			time.Sleep(time.Minute)
			tr.Report("n01", boot.Event{Stage: boot.StageDHCP, Detail: "PXE"})
			tr.Report("n01", boot.Event{Stage: boot.StageDHCP, Detail: "PXE"})
			if tr.Boots(t.Context(), runner()) {
				t.Error("it is taken for a boot")
			}
		}
		clear(tr.changed)
		if tr.Boots(t.Context(), runner()) { // a user, who has made no claim
			t.Error("a request without DHCP is taken for a boot")
		}
		s := tr.State("n01")
		if !s.Running || s.Booting || len(s.Events) != 1 || len(tr.takeChanged()) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestACallAfterAClaimRefutesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		tr.answers = answering(false) // it has no connection of which that is known
		tr.Called("n01", time.Now())
		time.Sleep(time.Minute)
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
		time.Sleep(time.Second)
		tr.Called("n01", time.Now())
		if tr.Boots(t.Context(), runner()) || tr.Stage("n01") != boot.StageRunning {
			t.Errorf("it boots: %+v", tr.State("n01"))
		}
	})
}

func TestANodeWhoseConnectionsAreSilentBoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		tr.answers = answering(false)
		tr.Called("n01", time.Now())
		time.Sleep(time.Minute)
		began := time.Now()
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP, Detail: "PXE"})
		done := make(chan bool)
		for range 2 { // the loader repeats its request
			go func() { done <- tr.Boots(t.Context(), runner()) }()
		}
		for range 2 {
			if !<-done {
				t.Error("it does not boot")
			}
		}
		s := tr.State("n01")
		if s.Running || s.Stage != boot.StageDHCP || s.Detail != "PXE" || !s.Began.Equal(began) {
			t.Errorf("%+v", s)
		}
		if !tr.Boots(t.Context(), runner()) {
			t.Error("it does not go on with its boot")
		}
	})
}

func TestAReportOfDimInitIsABoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		tr.Called("n01", time.Now())
		time.Sleep(time.Minute)
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP, Detail: "dim-init"}) // kexec: no loader asks
		tr.Report("n01", boot.Event{Stage: boot.StageLink})
		if s := tr.State("n01"); !s.Booting || s.Stage != boot.StageLink || s.Events[0].Stage != boot.StageDHCP {
			t.Errorf("%+v", s)
		}
	})
}

func TestAClaimIsDecidedThoughNobodyAsks(t *testing.T) {
	for alive, want := range map[bool]boot.Stage{true: boot.StageRunning, false: boot.StageDHCP} {
		synctest.Test(t, func(t *testing.T) {
			tr := discardingTracker()
			tr.answers = answering(alive)
			tr.ping = func([]netip.Addr) ([]netip.Addr, error) { return nil, nil }
			tr.Called("n01", time.Now())
			tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
			ctx, cancel := context.WithTimeout(t.Context(), claimAge+2*probeInterval)
			defer cancel()
			_ = tr.Probe(ctx, func() []*cluster.Node { return []*cluster.Node{runner()} })
			if got := tr.Stage("n01"); got != want || tr.claim("n01") != nil {
				t.Errorf("alive %t: stage %q", alive, got)
			}
		})
	}
}

func TestTheSameBootIsNotSavedAtEachRequest(t *testing.T) {
	path := t.TempDir() + "/boots.log"
	tr, err := Open(path, nil, discardingTracker().log)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	begin := func() bool {
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
		return tr.ReportBoot("n01", boot.Event{Stage: boot.StageScript})
	}
	if !begin() {
		t.Error("the first boot need not be saved")
	}
	if err := tr.Save(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if begin() {
			t.Error("a boot is to be saved again")
		}
	}
	tr.Report("n01", boot.Event{Stage: boot.StageHandover})
	tr.Called("n01", time.Now())
	if err := tr.Save(); err != nil {
		t.Fatal(err)
	}
	tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
	tr.Boots(t.Context(), runner())
	if !begin() {
		t.Error("the boot of a node that ran need not be saved")
	}
}
