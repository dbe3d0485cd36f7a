package follow

import (
	"os"
	"strings"
	"testing"
	"time"

	"dim/internal/coord"
	"dim/internal/testkit"
)

func TestTheLaterOfFileAndAppliedDescriptionHolds(t *testing.T) {
	other := strings.Replace(small, `name="small"`, `name="small" domain="other.example"`, 1)
	applied := time.Now().Add(-time.Hour)
	for name, tt := range map[string]struct {
		file    string
		changed time.Time
		holds   string // the domain
		problem string
	}{
		"the file was changed later":  {other, applied.Add(time.Minute), "other.example", ""},
		"the other was applied later": {other, applied.Add(-time.Minute), "", "was applied later"},
		"the file is the same":        {small, applied.Add(-time.Minute), "", ""},
		"the file is half written":    {other[:len(other)/2], applied.Add(time.Minute), "", "is not used"},
		"the file has no such server": {
			strings.ReplaceAll(small, `"head"`, `"x"`), applied.Add(time.Minute), "", "is not used",
		},
		"the file renames a node": {
			strings.Replace(other, `name="n{`, `name="r{`, 1), applied.Add(time.Minute), "", "it renames n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(t, tt.file)
			testkit.Must(t, os.Chtimes(f.ClusterFile, tt.changed, tt.changed))
			d := describe(t, small)
			d.Applied = applied
			kept := coord.State{Store: "a", Revision: 5, Description: d}
			testkit.Must(t, coord.SaveState(f.StateFile, kept), f.Load())
			if got := f.Cluster().Domain; got != tt.holds {
				t.Errorf("the domain is %q, want %q", got, tt.holds)
			}
			list := f.givenProblems(t.Context())
			if tt.problem == "" && len(list) > 0 || tt.problem != "" && len(list) != 1 {
				t.Fatalf("problems: %v", list)
			}
			if tt.problem != "" && !strings.Contains(list[0].Text, tt.problem) {
				t.Errorf("the problem is: %s", list[0].Text)
			}
		})
	}
}
