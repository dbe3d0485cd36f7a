package api

import (
	"fmt"
	"strings"
	"testing"

	"dim/internal/cluster/nodeset"
)

func TestLongNodeSetsAreCutWithACount(t *testing.T) {
	var odd, words []string
	for i := 1; i < 200; i += 2 {
		odd = append(odd, fmt.Sprintf("n%03d", i))
		words = append(words, fmt.Sprintf("rack%dnode%d", i, i*7))
	}
	for _, tt := range []struct {
		nodes []string
		want  string
	}{
		{odd[:3], "n[001,003,005]"},
		{odd, "n[001,003,005,007,009,011,013,015,017,019,021,023,025,027] and 86 more"},
		{[]string{strings.Repeat("x", 40), strings.Repeat("y", 40)}, strings.Repeat("x", 40) + " and 1 more"},
		{[]string{strings.Repeat("x", 70)}, strings.Repeat("x", 70)},
		{[]string{strings.Repeat("x", 70), strings.Repeat("y", 70)}, "2 nodes"},
	} {
		if got := cutSet(nodeset.Fold(tt.nodes), len(tt.nodes)); got != tt.want {
			t.Errorf("%s\nwant %s", got, tt.want)
		}
	}
	if got := cutSet(nodeset.Fold(words), len(words)); len(got) > 90 {
		t.Errorf("still long: %s", got)
	}
}
