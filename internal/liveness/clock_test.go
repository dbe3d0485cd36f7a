package liveness

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

func TestTheClockOfThisMachineAgreesWithItself(t *testing.T) {
	testkit.NeedRoot(t, "it sends ICMP")
	here := netip.MustParseAddr("127.0.0.1")
	ahead := testkit.Value(clocks([]netip.Addr{here, netip.MustParseAddr("::1")}))(t)
	if len(ahead) > 0 {
		t.Errorf("ahead: %v", ahead)
	}
}

func TestHowFarAClockIsAhead(t *testing.T) {
	const id = 7
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	reply := func(began, at time.Time) []byte {
		b := askClock(id, began)
		binary.BigEndian.PutUint32(b[arrivedAt:], uint32(timeOfDay(at).Milliseconds()))
		return b
	}
	for _, tt := range []struct {
		name  string
		began time.Time
		off   time.Duration
		took  time.Duration
		want  time.Duration
	}{
		{"the same time", noon, 0, time.Millisecond, 0},
		{"within the tolerance", noon, -1900 * time.Millisecond, time.Millisecond, 0},
		{"ahead", noon, 68 * time.Second, time.Millisecond, 68 * time.Second},
		{"behind", noon, -10 * time.Minute, time.Millisecond, -10 * time.Minute},
		{"ahead across midnight", noon.Add(12*time.Hour - time.Second), time.Minute, time.Millisecond, time.Minute},
		{"behind across midnight", noon.Add(12 * time.Hour), -time.Minute, time.Millisecond, -time.Minute},
		{"a reply that took long", noon, 2500 * time.Millisecond, time.Second, 0},
		{"a whole day does not show", noon, 24 * time.Hour, time.Millisecond, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := reply(tt.began, tt.began.Add(tt.took/2+tt.off))
			got, ok := readClock(b, id, tt.began, tt.began.Add(tt.took))
			if !ok || (got-tt.want).Abs() > 100*time.Millisecond {
				t.Errorf("%v, %v; want %v", got, ok, tt.want)
			}
		})
	}
	for name, b := range map[string][]byte{
		"another request": reply(noon.Add(-time.Second), noon), "cut off": reply(noon, noon)[:timestampSize-1],
	} {
		if _, ok := readClock(b, id, noon, noon); ok {
			t.Errorf("%s: it is taken for the reply", name)
		}
	}
	b := reply(noon, noon)
	b[arrivedAt] |= 0x80
	if got, ok := readClock(b, id, noon, noon); got != 0 || !ok {
		t.Errorf("a time that is none since midnight: %v, %v", got, ok)
	}
}

func FuzzReadClock(f *testing.F) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Add(askClock(7, noon))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ahead, ok := readClock(b, 7, noon, noon); ahead.Abs() > day/2 || !ok && ahead != 0 {
			t.Errorf("%v, %v", ahead, ok)
		}
	})
}

func TestAClockThatIsOffIsToldUntilItIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := []*cluster.Node{node("n01", "10.0.0.1"), node("n02", "10.0.0.2")}
		tr, ahead, checks := discardingTracker(), time.Minute, 0
		tr.clocks = func(addrs []netip.Addr) (map[netip.Addr]time.Duration, error) {
			checks++
			if len(addrs) != 1 {
				t.Errorf("asked: %v; only n01 runs", addrs)
			}
			if ahead == 0 {
				return nil, nil
			}
			return map[netip.Addr]time.Duration{addrs[0]: ahead}, nil
		}
		tr.Called("n01", time.Now())
		pass := func(seconds, want int, ahead time.Duration) {
			t.Helper()
			checks = 0
			for range seconds {
				tr.checkClocks(nodes)
				time.Sleep(time.Second)
			}
			if got := tr.State("n01").Ahead; got != ahead || checks != want {
				t.Errorf("after %d checks %v ahead, want %d, %v", checks, got, want, ahead)
			}
		}
		pass(10, 1, time.Minute)
		ahead = 0
		pass(60, 1, 0)
		pass(500, 0, 0)
	})
}
