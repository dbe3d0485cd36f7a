package coord

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
)

// If the process is killed, either all puts of a decision are there or none.
func TestADecisionIsAtomicAfterAKill(t *testing.T) {
	if data := os.Getenv("COORD_TEST_DECIDE"); data != "" {
		decideUntilKilled(t, data)
	}
	dir := t.TempDir()
	last := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestADecisionIsAtomicAfterAKill$")
		cmd.Env = append(os.Environ(), "COORD_TEST_DECIDE="+dir)
		out := testkit.Value(cmd.StdoutPipe())(t)
		testkit.Must(t, cmd.Start())
		for lines, until := bufio.NewScanner(out), last+7; last < until && lines.Scan(); {
			_, _ = fmt.Sscanf(lines.Text(), "decided %d", &last)
		}
		testkit.Must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		c := open(t, dir)
		s := testkit.Value(c.Snapshot(t.Context()))(t)
		testkit.Must(t, c.Close())
		n := len(s.Rollouts)
		ref := image.Ref{Image: "compute", Number: n}
		if n < last || s.Images["compute"].Current != n {
			t.Fatalf("round %d: %d was acknowledged; %d rollouts, current %d",
				round, last, n, s.Images["compute"].Current)
		}
		if len(s.Desired) != 500 || s.Desired["n0"] != ref || s.Desired["n499"] != ref || s.Next["n7"] != ref {
			t.Fatalf("round %d: %d rollouts, but %d nodes, n0 follows %s, n7 at its boot %s",
				round, n, len(s.Desired), s.Desired["n0"], s.Next["n7"])
		}
		last = n
	}
}

// decideUntilKilled moves 500 nodes from one version to the next, and prints its number, until it is killed.
func decideUntilKilled(t *testing.T, dir string) {
	c := open(t, dir)
	for {
		n := 0
		testkit.Must(t, c.Decide(t.Context(), func(s State) (Change, error) {
			n = len(s.Rollouts) + 1
			ref := image.Ref{Image: "compute", Number: n}
			change := Change{
				Desired: Refs{}, Next: Refs{"n7": ref}, Current: map[string]int{"compute": n},
				Rollouts: map[int]json.RawMessage{n: json.RawMessage(`{}`)},
			}
			for i := range 500 {
				change.Desired[fmt.Sprint("n", i)] = ref
			}
			return change, nil
		}))
		fmt.Printf("decided %d\n", n)
	}
}
