package nodediff

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/testkit"
)

func TestContentsAreAskedForOnlyWhereAllElseIsTheSame(t *testing.T) {
	own := func(path, text string) control.NodeHas {
		return control.NodeHas{Path: control.Path(path), Of: control.OfOwn, Text: text, HasContent: true}
	}
	a := control.NodeSide{
		NodeDiffSide: control.NodeDiffSide{Node: "n01", Image: "compute", Version: 1},
		Has: []control.NodeHas{
			own("/b", "5 bytes"), own("/a/x", "5 bytes"), own("/only", "1 bytes"), own("/size", "1 bytes"),
			{Path: "/host", Of: control.OfNodeFile, Text: "one"}, own("/unread", "5 bytes"),
		},
	}
	b := control.NodeSide{
		NodeDiffSide: control.NodeDiffSide{Node: "n02", Image: "compute", Version: 2},
		Has: []control.NodeHas{
			own("/size", "2 bytes"), own("/a/x", "5 bytes"), own("/b", "5 bytes"), own("/unread", "5 bytes"),
			{Path: "/host", Of: control.OfNodeFile, Text: "two"},
		},
	}
	contents := func(known map[control.Path]string) Contents {
		return func(paths []control.Path) (list []string, err error) {
			if want := []control.Path{"/a/x", "/b", "/unread"}; !slices.Equal(paths, want) {
				t.Errorf("asked for %v, want %v", paths, want)
			}
			for _, p := range paths {
				list = append(list, known[p])
			}
			return list, nil
		}
	}
	got := testkit.Value(Of(a, b, contents(map[control.Path]string{"/a/x": "1", "/b": "2"}),
		contents(map[control.Path]string{"/a/x": "1", "/b": "3"})))(t)
	want := control.NodeDiff{A: a.NodeDiffSide, B: b.NodeDiffSide, Paths: []control.NodeDiffPath{
		{Path: "/host", Of: "node file", A: "one", B: "two"},
		{Path: "/b", Of: "own", A: "5 bytes, other content", B: "5 bytes, other content"},
		{Path: "/only", Of: "own", A: "1 bytes"},
		{Path: "/size", Of: "own", A: "1 bytes", B: "2 bytes"},
		{Path: "/unread", Of: "own", A: "5 bytes, other content", B: "5 bytes, other content"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	failed := errors.New("no answer")
	fails := func([]control.Path) ([]string, error) { return nil, failed }
	if _, err := Of(a, b, fails, fails); !errors.Is(err, failed) {
		t.Errorf("contents that cannot be had: %v", err)
	}
}
