package liveness

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/testkit"
)

func node(name cluster.NodeName, addr string) *cluster.Node {
	return &cluster.Node{Name: name, Interfaces: []*cluster.Interface{{Address: netip.MustParseAddr(addr)}}}
}

func TestANodeThatAnswersNoLongerIsSilent(t *testing.T) { synctest.Test(t, testSilence) }

func testSilence(t *testing.T) {
	nodes := []*cluster.Node{node("n01", "10.0.0.1")}
	tr, answers, broken := discardingTracker(), true, false
	tr.ping = func(addrs []netip.Addr) ([]netip.Addr, error) {
		switch {
		case broken:
			return nil, errors.New("no socket")
		case answers:
			return addrs, nil
		}
		return nil, nil
	}
	tr.Called("n01", time.Now())
	probes := 0
	// pass lets so many seconds go by, in which the node is probed whenever it is due.
	pass := func(seconds int) {
		probes = 0
		for range seconds {
			time.Sleep(time.Second)
			if batch, _ := tr.quiet(nodes, 0); len(batch) > 0 {
				probes++
				_ = tr.probe(batch)
			}
		}
	}
	expect := func(when string, silent bool, times int) {
		t.Helper()
		s := tr.State("n01")
		if got := s.Stage == Silent; got != silent || s.Running == silent || probes != times {
			t.Errorf("%s: silent %v, probed %d times; want %v, %d", when, got, probes, silent, times)
		}
	}
	pass(59)
	expect("a node that called within the minute", false, 0)
	pass(300)
	expect("one that answers", false, 5)
	broken = true
	pass(100)
	expect("when no probe can be sent", false, 100)
	broken, answers = false, false
	pass(15)
	expect("two probes without an answer", false, 2)
	pass(300)
	expect("three", true, 1)
	if s := tr.State("n01"); !s.Since.Equal(s.LastSeen) || s.Detail == "" || tr.Stage("n01") != boot.StageRunning {
		t.Errorf("a silent node: %+v, stage %q", s, tr.Stage("n01"))
	}
	tr.Called("n01", time.Now())
	probes = 1
	expect("as soon as it calls", false, 1)
	pass(75)
	expect("quiet again", false, 2)
	pass(10)
	expect("gone again", true, 1)
}

func TestAClusterWithoutPowerIsProbedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		var nodes []*cluster.Node
		for i := range 3 * probeBatch / 2 {
			n := node(cluster.NodeName(fmt.Sprint("n", i)), fmt.Sprintf("10.0.0.%d", i+1))
			nodes = append(nodes, n)
			tr.Called(n.Name, time.Now())
		}
		ctx, cancel := context.WithTimeout(t.Context(), probeAfter+4*probeInterval)
		defer cancel()
		var batches []int
		probed := map[netip.Addr]int{}
		tr.ping = func(addrs []netip.Addr) ([]netip.Addr, error) {
			batches = append(batches, len(addrs))
			for _, a := range addrs {
				probed[a]++
			}
			if len(probed) == len(nodes) {
				cancel()
			}
			return nil, nil
		}
		testkit.Must(t, tr.Probe(ctx, func() []*cluster.Node { return nodes }))
		if want := []int{probeBatch, probeBatch / 2}; !slices.Equal(batches, want) || len(probed) != len(nodes) {
			t.Errorf("batches of %v, want %v; %d of %d nodes", batches, want, len(probed), len(nodes))
		}
	})
}

func TestWhichNodesAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		nodes := []*cluster.Node{
			node("called", "10.0.0.1"), node("boots", "10.0.0.2"), node("answers", "10.0.0.3"),
			node("dead", "10.0.0.4"), node("unknown", "10.0.0.5"),
		}
		tr.Called("answers", time.Now())
		tr.Called("dead", time.Now())
		time.Sleep(time.Second)
		after := time.Now()
		time.Sleep(time.Second)
		tr.Called("called", time.Now())
		tr.Report("boots", boot.Event{Stage: boot.StageMount})
		tr.ping = func(addrs []netip.Addr) (up []netip.Addr, err error) {
			for _, a := range addrs {
				if a == nodes[1].Address() || a == nodes[0].Address() {
					t.Errorf("%s is probed", a)
				}
				if a != nodes[3].Address() {
					up = append(up, a)
				}
			}
			return up, errors.New("half of it failed")
		}
		up, err := tr.Answering(nodes, after)
		if len(up) != 3 || !up["called"] || !up["answers"] || !up["unknown"] || err == nil {
			t.Errorf("up %v, error %v", up, err)
		}
	})
}
