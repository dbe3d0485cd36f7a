package api

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/layers"
	"dim/internal/nodediff"
	"dim/internal/replica"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// differing compares what two nodes have, none of it in a file of the same size.
func differing(t *testing.T, a, b []control.NodeHas) []control.NodeDiffPath {
	t.Helper()
	none := func([]control.Path) ([]string, error) { return nil, errors.New("no content is needed") }
	d, err := nodediff.Of(control.NodeSide{Has: a}, control.NodeSide{Has: b}, none, none)
	testkit.Must(t, err)
	return d.Paths
}

func TestFilesThatWereRenderedForTwoNodesAreCompared(t *testing.T) {
	file := func(path, text string, mode uint32) replica.NodeFile {
		return replica.NodeFile{Path: path, Mode: mode, Size: uint64(len(text)), Digest: image.Sum([]byte(text))}
	}
	a := []replica.NodeFile{file("etc/same", "x", 0o644), file("etc/hostname", "n01", 0o644), file("etc/a", "a", 0o600)}
	b := []replica.NodeFile{file("etc/hostname", "n02", 0o644), file("etc/same", "x", 0o644), file("etc/b", "b", 0o600)}
	text := func(text, rest string) string { return image.Sum([]byte(text)).Short() + rest }
	want := []control.NodeDiffPath{
		{Path: "/etc/a", Of: "node file", A: text("a", ", 1 bytes, mode 0600, owner 0:0")},
		{Path: "/etc/b", Of: "node file", B: text("b", ", 1 bytes, mode 0600, owner 0:0")},
		{
			Path: "/etc/hostname", Of: "node file",
			A: text("n01", ", 3 bytes, mode 0644, owner 0:0"), B: text("n02", ", 3 bytes, mode 0644, owner 0:0"),
		},
	}
	if diff := cmp.Diff(want, differing(t, renderedOf(a), renderedOf(b))); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTwoNodesHaveOfTheirOwnIsCompared(t *testing.T) {
	dir := func(path string, mode uint32) layers.Difference {
		return layers.Difference{Path: path, Kind: "added", Type: vfs.Directory, Mode: mode}
	}
	gone := layers.Difference{Path: "gone", Kind: layers.Removed, Type: vfs.Regular, Size: 3}
	hides := dir("var", 0o755)
	hides.Attrs = "hides"
	grown := layers.Difference{Path: "log", Kind: layers.Changed, Type: vfs.Regular, Size: 5, Mode: 0o640, UID: 7}
	a := []layers.Difference{dir("same", 0o755), gone, hides, dir("other", 0o700), grown}
	b := []layers.Difference{dir("same", 0o755), gone, dir("other", 0o755)}
	want := []control.NodeDiffPath{
		{Path: "/log", Of: "own", A: "content file, 5 bytes, mode 0640, owner 7:0"},
		{
			Path: "/other", Of: "own",
			A: "added directory, mode 0700, owner 0:0", B: "added directory, mode 0755, owner 0:0",
		},
		{Path: "/var", Of: "own", A: "hides the master's directory, mode 0755, owner 0:0"},
	}
	if diff := cmp.Diff(want, differing(t, ownOf(a), ownOf(b))); diff != "" {
		t.Error(diff)
	}
}
