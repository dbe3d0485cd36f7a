package bounds

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestATableKeepsItsLimits(t *testing.T) {
	var table Table[string, int]
	limit := Limit{Each: 2, All: 3}
	for _, step := range []struct {
		key  string
		v    int
		want bool
	}{{"a", 1, true}, {"a", 2, true}, {"a", 3, false}, {"b", 4, true}, {"c", 5, false}} {
		if got := table.Add(step.key, step.v, limit); got != step.want {
			t.Errorf("add %s %d: %t", step.key, step.v, got)
		}
	}
	if !table.Add("c", 5, Limit{Each: 2, All: 4}) {
		t.Error("the limit grew, and nothing more may be added")
	}
	table.Remove("a", 3) // was refused
	table.Remove("a", 1)
	table.Remove("a", 1)
	if d := cmp.Diff([]int{2}, table.Of("a")); d != "" {
		t.Error(d)
	}
	if !table.Add("a", 6, Limit{Each: 2, All: 4}) || table.Add("b", 7, Limit{Each: 2, All: 4}) {
		t.Error("the number in use is not 4")
	}
	for key, list := range map[string][]int{"a": {2, 6}, "b": {4}, "c": {5}} {
		for _, v := range list {
			table.Remove(key, v)
		}
	}
	if table.len != 0 || len(table.of) != 0 {
		t.Errorf("an empty table holds %d values and %d keys", table.len, len(table.of))
	}
	if !table.Add("a", 1, Limit{}) || !table.Add("a", 2, Limit{}) {
		t.Error("0 is a limit")
	}
}

func TestATableIsSafeForGoroutines(t *testing.T) {
	var table Table[int, int]
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				if table.Add(n%3, i, Limit{Each: 4}) {
					table.Of(n % 3)
					table.Remove(n%3, i)
				}
			}
		})
	}
	wg.Wait()
	if table.len != 0 {
		t.Errorf("%d values are left", table.len)
	}
}
