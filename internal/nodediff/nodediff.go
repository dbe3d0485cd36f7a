// Package nodediff compares what two nodes have besides their versions: the files that are rendered for them, and what
// they have written. The nodes may be served by two servers.
//
// # What it must not know
//
// Where a side comes from, and how content is read.
package nodediff

import (
	"slices"

	"dim/internal/control"
	"dim/internal/image"
)

// Contents returns what identifies the content of some files of one side, in their order. "" is not known, and differs
// from everything.
type Contents func(paths []control.Path) ([]string, error)

// Of compares two sides. It asks for the contents of those files only that are the same in all else.
func Of(a, b control.NodeSide, contentA, contentB Contents) (control.NodeDiff, error) {
	out := control.NodeDiff{A: a.NodeDiffSide, B: b.NodeDiffSide}
	var alike []control.Path
	var pending []int // of out.Paths: those that differ only if their contents do
	for _, kind := range []string{control.OfNodeFile, control.OfOwn} {
		for _, p := range pairs(of(a.Has, kind), of(b.Has, kind)) {
			if p.a == nil || p.b == nil || p.a.Text != p.b.Text {
				out.Paths = append(out.Paths, p.diff(kind))
				continue
			}
			if p.a.HasContent {
				pending = append(pending, len(out.Paths))
				out.Paths, alike = append(out.Paths, p.diff(kind)), append(alike, p.a.Path)
			}
		}
	}
	if len(alike) == 0 {
		return out, nil
	}
	inA, err := contentA(alike)
	if err != nil {
		return out, err
	}
	inB, err := contentB(alike)
	if err != nil {
		return out, err
	}
	for i, at := range pending {
		d := &out.Paths[at]
		if i < len(inA) && i < len(inB) && inA[i] != "" && inA[i] == inB[i] {
			d.Path = "" // the same
			continue
		}
		d.A, d.B = d.A+", other content", d.B+", other content"
	}
	out.Paths = slices.DeleteFunc(out.Paths, func(p control.NodeDiffPath) bool { return p.Path == "" })
	return out, nil
}

// of returns what a side has of a kind, in order of path.
func of(list []control.NodeHas, kind string) []control.NodeHas {
	list = slices.DeleteFunc(slices.Clone(list), func(h control.NodeHas) bool { return h.Of != kind })
	slices.SortStableFunc(list, func(x, y control.NodeHas) int {
		return image.ComparePaths(string(x.Path), string(y.Path))
	})
	return list
}

// pair is what two sides have at one path; one of the two is nil where only the other side has something.
type pair struct{ a, b *control.NodeHas }

func (p pair) diff(kind string) control.NodeDiffPath {
	out := control.NodeDiffPath{Of: kind}
	if p.a != nil {
		out.Path, out.A = p.a.Path, p.a.Text
	}
	if p.b != nil {
		out.Path, out.B = p.b.Path, p.b.Text
	}
	return out
}

// pairs joins two lists in order of path.
func pairs(a, b []control.NodeHas) (list []pair) {
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(b) == 0:
			order = -1
		case len(a) == 0:
			order = 1
		default:
			order = image.ComparePaths(string(a[0].Path), string(b[0].Path))
		}
		var p pair
		if order <= 0 {
			p.a, a = &a[0], a[1:]
		}
		if order >= 0 {
			p.b, b = &b[0], b[1:]
		}
		list = append(list, p)
	}
	return list
}
