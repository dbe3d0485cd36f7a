package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
)

func someNodes() []control.Node {
	at := func(minutes int) time.Time { return time.Unix(1_700_000_000+int64(minutes)*60, 0) }
	return []control.Node{
		{Name: "n01", Image: "compute", Version: 12, Stage: "running", Since: at(1), LastCall: at(9)},
		{Name: "n02", Image: "compute", Version: 11, Stage: "running", Since: at(3), LastCall: at(8)},
		{Name: "n03", Image: "compute", Version: 12, Stage: "running", Since: at(2), LastCall: at(7)},
		{Name: "n04", Image: "gpu", Version: 12, Stage: "silent", Since: at(4), LastCall: at(6), Problem: "cut off"},
		{Name: "n05", Image: "gpu", Stage: "off"},
	}
}

func TestNodesAreChosenAndOrdered(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    nodeFilter
		want string
	}{
		{"all", nodeFilter{sort: "name"}, "n01 n02 n03 n04 n05"},
		{"of a version", nodeFilter{version: "compute@12", sort: "name"}, "n01 n03"},
		{"of an image", nodeFilter{version: "gpu", sort: "name"}, "n04 n05"},
		{"of a version that the other image has too", nodeFilter{version: "gpu@12", sort: "name"}, "n04"},
		{"in one of two stages", nodeFilter{stages: []string{"off", "silent"}, sort: "name"}, "n04 n05"},
		{"with a problem", nodeFilter{problem: true, sort: "name"}, "n04"},
		{"none", nodeFilter{problem: true, stages: []string{"off"}, sort: "name"}, ""},
		{"those that changed last first", nodeFilter{sort: "since"}, "n04 n02 n03 n01 n05"},
		{"those that called least lately first", nodeFilter{sort: "last-call"}, "n05 n04 n03 n02 n01"},
		{"by version", nodeFilter{sort: "version"}, "n02 n01 n03 n05 n04"},
		{"by stage", nodeFilter{sort: "stage"}, "n05 n01 n02 n03 n04"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var names []string
			for _, n := range tt.f.choose(someNodes()) {
				names = append(names, n.Name)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAStageThatNoNodeCanBeInIsRefused(t *testing.T) {
	var errs strings.Builder
	code := run([]string{"--data", t.TempDir(), "node", "ls", "--stage", "off,runing"}, nil, io.Discard, &errs)
	if code != exitUsage || !strings.Contains(errs.String(), `there is no stage "runing"`) ||
		!strings.Contains(errs.String(), "off, dhcp, ") {
		t.Errorf("exit code %d, printed %s", code, &errs)
	}
}

func TestNodesThatAreAlikeAreOneLine(t *testing.T) {
	var b strings.Builder
	printFolded(&b, someNodes())
	want := "NODES\tCOUNT\tSTAGE\tVERSION\tREMARK\n" +
		"n[01,03]\t2\trunning\tcompute@12\t-\n" +
		"n02\t1\trunning\tcompute@11\t-\n" +
		"n04\t1\tsilent\tgpu@12\tcut off\n" +
		"n05\t1\toff\tgpu\t-\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
