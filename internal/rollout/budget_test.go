package rollout

import (
	"fmt"
	"testing"
	"time"
)

func TestBudgets(t *testing.T) {
	for _, tt := range []struct {
		text  string
		nodes int
		want  int
		bad   bool
	}{
		{"", 99, 0, false}, {"", 2000, 20, false}, {"0", 2000, 0, false}, {"3", 1, 3, false},
		{"5%", 39, 1, false}, {"100%", 7, 7, false},
		{"x", 1, 0, true}, {"-1", 1, 0, true}, {"101%", 1, 0, true}, {"%", 1, 0, true}, {"1.5%", 1, 0, true},
	} {
		got, err := budget(tt.text, tt.nodes)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%q of %d: %d, %v", tt.text, tt.nodes, got, err)
		}
	}
}

func TestOneDeadNodeDoesNotStopTwoThousand(t *testing.T) {
	var nodes Nodes
	seen := map[string]Seen{}
	for i := range 2000 {
		n := fmt.Sprintf("n%04d", i)
		nodes = append(nodes, n)
		seen[n] = Seen{Server: "is1", Report: &Report{Shows: compute(2)}, Answers: true}
	}
	r := Rollout{
		Image: "compute", Version: 2, When: Now, State: Running, Phase: switching, Since: start,
		Rings: []Ring{{Nodes: nodes, Ran: nodes, Declared: start}, {Nodes: Nodes{"x"}}},
	}
	later := start.Add(patience + time.Second)
	seen["n0007"] = Seen{Server: "is1", Report: &Report{Shows: compute(1), Problem: "disk full"}}
	seen["n0008"] = Seen{Server: "is2"}
	if step := r.Next(seen, start); step.Wait == "" {
		t.Errorf("at once it does not wait: %+v", step)
	}
	if step := r.Next(seen, later); step != (Step{Enter: gating, Without: "n[0007-0008]"}) {
		t.Errorf("later: %+v", step)
	}

	t.Run("a node that stays behind without a reason", func(t *testing.T) {
		seen["n0007"] = Seen{Report: &Report{Shows: compute(1), Booting: true, Problem: "it hangs"}}
		if step := r.Next(seen, later); step.Wait != "n0007 to show compute@2" {
			t.Errorf("after a minute: %+v", step)
		}
		if step := r.Next(seen, start.Add(behindTime+time.Second)); step.Without != "n[0007-0008]" {
			t.Errorf("after %v: %+v", behindTime, step)
		}
	})
	t.Run("nodes that do not come back are of the same budget", func(t *testing.T) {
		r := r
		r.Phase, r.MaxFailed = gating, "3"
		if err := r.leave("n[0007-0008]"); err != nil {
			t.Fatal(err)
		}
		seen["n0007"], seen["n0009"] = Seen{}, Seen{}
		if step := r.Next(seen, later); step != (Step{Without: "n0009"}) {
			t.Errorf("within the budget: %+v", step)
		}
		r.MaxFailed = "2"
		if step := r.Next(seen, later); step.Pause == "" {
			t.Errorf("beyond the budget: %+v", step)
		}
	})
	t.Run("a server that does not report holds it up, and does not pause it", func(t *testing.T) {
		for i := range 64 {
			seen[nodes[i]] = Seen{Server: "is2"}
		}
		if step := r.Next(seen, start.Add(100*patience)); step.Wait == "" {
			t.Errorf("got %+v", step)
		}
	})
}

func TestANodeOfASilentServerIsUnknownUnlessItHasMoved(t *testing.T) {
	r := Rollout{
		Image: "compute", Version: 2, When: Now, State: Running, Phase: switching, Since: start,
		Rings: []Ring{{Nodes: Nodes{"n1", "n2"}, Declared: start}},
	}
	at := start.Add(time.Second)
	seen := map[string]Seen{
		"n1": {Server: "is2", Report: &Report{At: at, Shows: compute(2), Silent: true}},
		"n2": {Server: "is2", Report: &Report{At: at, Shows: compute(1), Silent: true}},
	}
	const want = "unknown: n2 is served by is2, which has not reported since"
	if step := r.Next(seen, start.Add(time.Hour)); step.Wait != want {
		t.Errorf("got %+v", step)
	}
}
