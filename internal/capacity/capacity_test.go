package capacity

import (
	"strings"
	"testing"
)

// gigabit is the speed of the servers' links.
const gigabit = 1_000_000_000

func server(name string, nodes int, cpu float64) Use {
	return Use{Server: name, Nodes: nodes, Seconds: 10, CPUs: 4, CPU: cpu, Machine: cpu, Link: 10 * gigabit}
}

func TestTheLimitIsNamed(t *testing.T) {
	shared := server("head", 64, 15)
	shared.Machine, shared.Maker = 38, 20
	network := server("is02", 50, 10)
	network.Sent = 11 * gigabit // bytes, in 10 s: 8.8 Gbit/s
	disk := server("is03", 50, 10)
	disk.DiskBusy = 9.5
	busy := server("is04", 50, 6)
	busy.Machine = 41
	for _, tt := range []struct {
		name    string
		servers []Use
		maker   float64
		want    string
		hint    string
	}{
		{"CPU of one", []Use{server("is01", 60, 8), server("is07", 100, 38)}, 0.1,
			"is07 is the limit: CPU, 95 % in use (the server 95 %, the rest 0 %)",
			"add a server, or move 39 of its 100 nodes to the others"},
		{"the only one", []Use{server("head", 64, 36)}, 0.1,
			"head is the limit: CPU, 90 % in use (the server 90 %, the rest 0 %)",
			"add a server: with 2 each would boot 32 of the 64 nodes"},
		{"all alike", []Use{server("a", 50, 36), server("b", 50, 36)}, 0.1,
			"a is the limit: CPU, 90 % in use (the server 90 %, the rest 0 %)",
			"add a server: with 3 each would boot 34 of the 100 nodes"},
		{"network", []Use{server("is01", 50, 10), network}, 0.1, "is02 is the limit: network, 88 % in use", "move 25"},
		{"disk", []Use{server("is01", 50, 10), disk}, 0.1, "is03 is the limit: disk, 95 % in use", "move 25"},
		{"other programs", []Use{busy}, 0.1,
			"is04 is the limit: CPU, 100 % in use (the server 15 %, the rest 88 %)", "see what else runs there"},
		{"none", []Use{server("is01", 50, 10)}, 0.1,
			"no server was at its limit: the busiest was is01, with 25 % of its CPU in use", "take more nodes"},
		{"the load maker on the same machine", []Use{shared}, 0.95,
			"the load maker is the limit: it used 53 % of the CPU time on head, whose processors were 95 % busy",
			"another machine"},
		{"the load maker elsewhere", []Use{server("is01", 50, 10)}, 0.9,
			"the load maker is the limit: its processors were 90 % busy, and no server was", "larger machine"},
		{"nothing", nil, 0, "nothing was measured", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Judge(tt.servers, tt.maker)
			if v.Text != tt.want || !strings.Contains(v.Hint, tt.hint) {
				t.Errorf("%s\n%s\nwant %s\n%s", v.Text, v.Hint, tt.want, tt.hint)
			}
		})
	}
}

func TestAPlanIsTheSumOfWhatNodesCost(t *testing.T) {
	u := server("head", 100, 25) // 0.25 CPU s a node
	u.Payload = 100 * 140_000_000
	u.DiskBusy = 2 // 0.02 s a node
	for _, tt := range []struct {
		name  string
		goal  Goal
		link  uint64
		want  int
		limit Resource
	}{
		// 10,000 × 0.25 s / (4 × 100 s × 0.7) = 8.9
		{"CPU", Goal{Nodes: 10_000, Seconds: 100}, 40 * gigabit, 9, CPU},
		// 10,000 × 147 MB / (125 MB/s × 100 s × 0.7) = 168
		{"network", Goal{Nodes: 10_000, Seconds: 100}, gigabit, 168, Network},
		{"a link that is not known", Goal{Nodes: 10_000, Seconds: 100, Link: 10 * gigabit}, 0, 17, Network},
		{"few nodes", Goal{Nodes: 1, Seconds: 100}, gigabit, 1, Network},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u.Link = tt.link
			p, ok := PlanFor([]Use{u}, tt.goal)
			if !ok || p.Servers != tt.want || p.Limit != tt.limit {
				t.Errorf("%t, %+v; want %d servers by %s", ok, p, tt.want, tt.limit)
			}
			if p.PerServer*p.Servers < tt.goal.Nodes || len(p.Assumptions) == 0 {
				t.Errorf("%+v", p)
			}
		})
	}
	if _, ok := PlanFor([]Use{{CPUs: 4}}, Goal{Nodes: 10, Seconds: 10}); ok {
		t.Error("there is a plan without a node that booted")
	}
	slow := u
	slow.Link, slow.CPUs, slow.NoDisk = 40*gigabit, 2, true
	u.Link = 40 * gigabit
	p, ok := PlanFor([]Use{u, slow}, Goal{Nodes: 10_000, Seconds: 100})
	if !ok || p.Servers != 18 || p.Needs[2].Known || p.Needs[2].Servers != 0 {
		t.Errorf("with a server of two processors and a disk that is not measured: %+v", p)
	}
}
