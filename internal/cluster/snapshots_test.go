package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshotsOfAnImage(t *testing.T) {
	for text, want := range map[string]*Snapshots{
		`days="7"`:      nil,
		`snapshots="3"`: {Keep: 3},
		`days="7" snapshots="5" snapshot-days="2" snapshot-copy="1G"`: {Keep: 5, For: 48 * time.Hour, Copy: 1 << 30},
	} {
		c, err := Parse(Source{Name: "q.xml", XML: []byte(strings.Replace(quotaDescription, `days="7"`, text, 1))})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.Images[0].Snapshots); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, bad := range []string{
		`snapshots="0"`, `snapshots="1000"`, `snapshots="3" snapshot-days="0"`, `snapshots="3" snapshot-days="99999"`,
		`snapshots="3" snapshot-copy="much"`,
		`snapshots="3" snapshot-copy="9000T"`, `snapshot-days="3"`,
	} {
		text := strings.Replace(quotaDescription, `days="7"`, bad, 1)
		if _, err := Parse(Source{Name: "q.xml", XML: []byte(text)}); err == nil {
			t.Errorf("<saved %s> was accepted", bad)
		}
	}
}
