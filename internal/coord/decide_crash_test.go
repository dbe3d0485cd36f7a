package coord

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"dim/internal/image"
)

// What a decision puts is all there or nothing of it, whenever its process is killed.
func TestADecisionIsWholeAfterAKill(t *testing.T) {
	if data := os.Getenv("COORD_TEST_DECIDE"); data != "" {
		decideForEver(t, data)
	}
	dir := t.TempDir()
	last := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestADecisionIsWholeAfterAKill$")
		cmd.Env = append(os.Environ(), "COORD_TEST_DECIDE="+dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		for lines, until := bufio.NewScanner(out), last+7; last < until && lines.Scan(); {
			_, _ = fmt.Sscanf(lines.Text(), "decided %d", &last)
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		c := open(t, dir)
		s, err := c.Snapshot(t.Context())
		must(t, err)
		must(t, c.Close())
		n := len(s.Rollouts)
		ref := image.Ref{Image: "compute", Number: n}
		if n < last || s.Images["compute"].Current != n || len(s.Desired) != 500 || s.Desired["n0"] != ref || s.Desired["n499"] != ref || s.Next["n7"] != ref {
			t.Fatalf("round %d: %d was acknowledged; %d rollouts, current %d, %d nodes, n0 %s, n7 %s", round, last, n, s.Images["compute"].Current,
				len(s.Desired), s.Desired["n0"], s.Next["n7"])
		}
		last = n
	}
}

// decideForEver moves 500 nodes from one version to the next, and says so, until it is killed.
func decideForEver(t *testing.T, dir string) {
	c := open(t, dir)
	for {
		n := 0
		must(t, c.Decide(t.Context(), func(s State) (Change, error) {
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
