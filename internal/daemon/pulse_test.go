package daemon

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"dim/internal/cluster"
)

func TestANodeThatAnswersNoLongerIsSilent(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	now, answers, broken := time.Unix(1e9, 0), true, false
	p := newPulse()
	p.now = func() time.Time { return now }
	p.ping = func(asked map[netip.Addr]cluster.NodeName) (up []netip.Addr, err error) {
		switch {
		case broken:
			return nil, errors.New("no socket")
		case answers:
			up = append(up, addr)
		}
		return up, nil
	}
	heard, asked := now, 0
	// pass lets so many seconds go by in which the node is asked whenever it is due.
	pass := func(seconds int) {
		asked = 0
		for range seconds {
			now = now.Add(time.Second)
			if p.due("n01", heard) {
				asked++
				_ = p.ask(map[netip.Addr]cluster.NodeName{addr: "n01"})
			}
		}
	}
	expect := func(when string, silent bool, times int) {
		t.Helper()
		if got := p.silent("n01", heard); got != silent || asked != times {
			t.Errorf("%s: silent %v, asked %d times; want %v, %d", when, got, asked, silent, times)
		}
	}
	pass(59)
	expect("a node that called within the minute", false, 0)
	pass(300)
	expect("one that answers", false, 5)
	broken = true
	pass(100)
	expect("when nobody can be asked", false, 100)
	broken, answers = false, false
	pass(15)
	expect("two pings without an answer", false, 2)
	pass(300)
	expect("three", true, 1)
	heard = now
	expect("as soon as it calls", false, 1)
	pass(75)
	expect("quiet again", false, 2)
	pass(10)
	expect("gone again", true, 1)
}
