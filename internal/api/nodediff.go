package api

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/layers"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// NodeDiff implements control.Backend.
func (api *API) NodeDiff(_ context.Context, a, b string) (control.NodeDiff, error) {
	var out control.NodeDiff
	ra, err := api.replicaOf(a)
	if err != nil {
		return out, err
	}
	rb, err := api.replicaOf(b)
	if err != nil {
		return out, err
	}
	out.A, out.B = side(a, ra), side(b, rb)
	out.Paths = differingFiles(ra.NodeFiles(), rb.NodeFiles())
	ownA, err := layers.Of(ra).Diff("")
	if err != nil {
		return out, err
	}
	ownB, err := layers.Of(rb).Diff("")
	if err != nil {
		return out, err
	}
	out.Paths = append(out.Paths, differingOwn(ra, rb, ownA, ownB)...)
	return out, nil
}

func side(node string, r *replica.Replica) control.NodeDiffSide {
	v := r.Version()
	return control.NodeDiffSide{Node: node, Image: v.Image, Version: v.Number}
}

// differingFiles compares what was rendered for two nodes.
func differingFiles(a, b []replica.NodeFile) []control.NodeDiffPath {
	text := func(f *replica.NodeFile) string {
		return fmt.Sprintf("%s, %d bytes, mode %04o, owner %d:%d", f.Digest.Short(), f.Size, f.Mode, f.UID, f.GID)
	}
	path := func(f *replica.NodeFile) string { return f.Path }
	return join(a, b, path, func(x, y *replica.NodeFile) (control.NodeDiffPath, bool) {
		out := control.NodeDiffPath{Of: "node file"}
		if x != nil {
			out.A = text(x)
		}
		if y != nil {
			out.B = text(y)
		}
		return out, out.A != out.B
	})
}

// differingOwn compares what two nodes have of their own. Files of one size and one content are the same whenever they
// were written.
func differingOwn(ra, rb *replica.Replica, a, b []layers.Difference) []control.NodeDiffPath {
	path := func(o *layers.Difference) string { return o.Path }
	return join(a, b, path, func(x, y *layers.Difference) (control.NodeDiffPath, bool) {
		out := control.NodeDiffPath{Of: "own"}
		if x != nil {
			out.A = ownText(x)
		}
		if y != nil {
			out.B = ownText(y)
		}
		switch {
		case out.A != out.B:
			return out, true
		case x.Type == vfs.Regular && x.Kind != layers.Removed && !sameContent(ra, rb, x.Path, x.Size):
			out.A += ", other content"
			out.B += ", other content"
			return out, true
		}
		return out, false
	})
}

func ownText(o *layers.Difference) string {
	text := string(o.Kind)
	if o.Kind == layers.Removed {
		return text
	}
	if o.Attrs == "hides" {
		text = "hides the master's"
	}
	text += " " + typeName(o.Type)
	if o.Type == vfs.Regular {
		text += fmt.Sprintf(", %d bytes", o.Size)
	}
	return text + fmt.Sprintf(", mode %04o, owner %d:%d", o.Mode, o.UID, o.GID)
}

// join compares two lists in order of path, entry by entry; one of the two is nil where only the other list has the
// path.
func join[T any](
	a, b []T, path func(*T) string, compare func(x, y *T) (control.NodeDiffPath, bool),
) []control.NodeDiffPath {
	byPath := func(x, y T) int { return image.ComparePaths(path(&x), path(&y)) }
	slices.SortFunc(a, byPath)
	slices.SortFunc(b, byPath)
	var out []control.NodeDiffPath
	for len(a) > 0 || len(b) > 0 {
		var x, y *T
		order := 0
		switch {
		case len(b) == 0:
			order = -1
		case len(a) == 0:
			order = 1
		default:
			order = image.ComparePaths(path(&a[0]), path(&b[0]))
		}
		if order <= 0 {
			x, a = &a[0], a[1:]
		}
		if order >= 0 {
			y, b = &b[0], b[1:]
		}
		diff, differs := compare(x, y)
		if !differs {
			continue
		}
		at := x
		if at == nil {
			at = y
		}
		diff.Path = "/" + control.Path(path(at))
		out = append(out, diff)
	}
	return out
}

// compareMax bounds how much of two files is read to tell whether they are the same.
const compareMax = 16 << 20

// sameContent compares the bytes of a file of two replicas. Larger files than compareMax are taken for different.
func sameContent(a, b *replica.Replica, path string, size uint64) bool {
	if size > compareMax {
		return false
	}
	x, err := readFile(a, path, size)
	if err != nil {
		return false
	}
	y, err := readFile(b, path, size)
	return err == nil && bytes.Equal(x, y)
}

func readFile(r *replica.Replica, path string, size uint64) ([]byte, error) {
	who, h := &vfs.Cred{}, r.Root()
	var a vfs.Attr
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if h, err = r.Lookup(who, h, name, &a); err != nil {
			return nil, err
		}
	}
	buf := make([]byte, size)
	n, _, err := r.Read(who, h, buf, 0)
	return buf[:n], err
}
