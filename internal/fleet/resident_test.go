package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dim/internal/testkit"
)

func TestALongListOfNamesIsCut(t *testing.T) {
	list := []string{"", strings.Repeat("x", maxName+1), "two\nlines"}
	for i := range maxNames + 5 {
		list = append(list, fmt.Sprintf("tool (pid %d)", i))
	}
	names, omitted := JoinNames(list)
	if got := names.List(); !slices.Equal(got, list[3:3+maxNames]) || omitted != 8 {
		t.Errorf("%q, and %d more", got, omitted)
	}
	if names, omitted := JoinNames(nil); names.List() == nil || len(names.List()) > 0 || omitted != 0 {
		t.Errorf("of nothing: %q, and %d more", names, omitted)
	}
	var again Names
	testkit.Must(t, json.Unmarshal(testkit.Value(json.Marshal(names))(t), &again))
	if again != names {
		t.Errorf("after JSON: %q, want %q", again, names)
	}
	long := `["a\u001b[2J"` + strings.Repeat(`,"a"`, maxNames) + `]`
	if err := json.Unmarshal([]byte(long), &again); err == nil {
		t.Error("a list that is too long is taken")
	}
	testkit.Must(t, json.Unmarshal([]byte(`["a\u001b[2J","b\nc"]`), &again))
	if got, want := again.List(), []string{"a [2J", "b c"}; !slices.Equal(got, want) {
		t.Errorf("harmful names become %q, want %q", got, want)
	}
}
