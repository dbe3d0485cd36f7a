package liveness

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

func TestTheTableOfNeighborsIsRead(t *testing.T) {
	testkit.InNetwork(t, []string{
		"link add eth0 type veth peer name eth1", "link set eth0 up", "addr add 10.77.0.1/24 dev eth0",
		"neigh add 10.77.0.11 dev eth0 lladdr 52:54:00:00:00:01 nud reachable",
		"neigh add 10.77.0.12 dev eth0 lladdr 52:54:00:00:00:02 nud stale",
		"neigh add 10.77.0.13 dev eth0 nud failed",
		"neigh add fd00::14 dev eth0 lladdr 52:54:00:00:00:04 nud reachable",
	}, func() {
		table, err := neighbors()
		if err != nil {
			t.Error(err)
		}
		for addr, want := range map[string]neighbor{
			"10.77.0.11": neighborAnswers, "10.77.0.12": neighborAnswers, "10.77.0.13": neighborSilent,
			"fd00::14": neighborAnswers, "10.77.0.15": neighborUnknown,
		} {
			if got := table[netip.MustParseAddr(addr)]; got != want {
				t.Errorf("%s: %d, want %d", addr, got, want)
			}
		}
	})
}

func FuzzParseNeighbor(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 8, 0, 1, 0, 10, 77, 0, 11})
	f.Add([]byte{2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 5, 0, 2, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if addr, _, ok := parseNeighbor(b); ok != addr.IsValid() {
			t.Errorf("%v, %v", addr, ok)
		}
	})
}

func TestASilentNodeHasALikelyCause(t *testing.T) {
	for name, tt := range map[string]struct {
		state neighbor
		want  string
	}{
		"it answers ARP":     {neighborAnswers, "answers ARP but no ping: a firewall"},
		"it answers nothing": {neighborSilent, "answers neither ping nor ARP: it is off"},
		"behind a router":    {neighborUnknown, "answers no ping"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := []*cluster.Node{node("n01", "10.0.0.1")}
				tr := discardingTracker()
				tr.ping = func([]netip.Addr) ([]netip.Addr, error) { return nil, nil }
				tr.neighbors = func() (map[netip.Addr]neighbor, error) {
					return map[netip.Addr]neighbor{nodes[0].Address(): tt.state}, nil
				}
				tr.Called("n01", time.Now())
				for range 100 {
					time.Sleep(time.Second)
					if batch, _ := tr.quiet(nodes, 0); len(batch) > 0 {
						testkit.Must(t, tr.probe(batch))
					}
				}
				if s := tr.State("n01"); s.Stage != Silent || !strings.Contains(s.Detail, tt.want) {
					t.Errorf("%s: %q, want %q", s.Stage, s.Detail, tt.want)
				}
			})
		})
	}
}
