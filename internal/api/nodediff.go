package api

import (
	"context"
	"fmt"
	"strings"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/layers"
	"dim/internal/nodediff"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// NodeDiff implements control.Backend.
func (api *API) NodeDiff(ctx context.Context, a, b string) (control.NodeDiff, error) {
	sideA, err := api.NodeSide(ctx, a)
	if err != nil {
		return control.NodeDiff{}, err
	}
	sideB, err := api.NodeSide(ctx, b)
	if err != nil {
		return control.NodeDiff{}, err
	}
	contents := func(node string) nodediff.Contents {
		return func(paths []control.Path) ([]string, error) { return api.contents(ctx, node, paths) }
	}
	return nodediff.Of(sideA, sideB, contents(a), contents(b))
}

// NodeSide implements control.Backend.
func (api *API) NodeSide(_ context.Context, node string) (out control.NodeSide, err error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return out, err
	}
	v := r.Version()
	out.NodeDiffSide = control.NodeDiffSide{Node: node, Image: v.Image, Version: v.Number}
	own, err := layers.Of(r).Diff("")
	out.Has = append(renderedOf(r.NodeFiles()), ownOf(own)...)
	return out, err
}

// renderedOf returns what was rendered for a node.
func renderedOf(files []replica.NodeFile) (list []control.NodeHas) {
	for i := range files {
		f := &files[i]
		list = append(list, control.NodeHas{
			Path: "/" + control.Path(f.Path), Of: control.OfNodeFile,
			Text: fmt.Sprintf("%s, %d bytes, mode %04o, owner %d:%d", f.Digest.Short(), f.Size, f.Mode, f.UID, f.GID),
		})
	}
	return list
}

// ownOf returns what a node has of its own. Files of one size and one content are the same whenever they were written.
func ownOf(own []layers.Difference) (list []control.NodeHas) {
	for i := range own {
		o := &own[i]
		list = append(list, control.NodeHas{
			Path: "/" + control.Path(o.Path), Of: control.OfOwn, Text: ownText(o),
			HasContent: o.Type == vfs.Regular && o.Kind != layers.Removed,
		})
	}
	return list
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

// NodeContents implements control.Backend.
func (api *API) NodeContents(ctx context.Context, node string, q control.ContentsRequest) ([]string, error) {
	if len(q.Paths) > control.MaxContents {
		return nil, control.Errorf(control.Invalid, "read files of %s: %d paths; %d at most", node, len(q.Paths),
			control.MaxContents)
	}
	return api.contents(ctx, node, q.Paths)
}

func (api *API) contents(ctx context.Context, node string, paths []control.Path) ([]string, error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return nil, err
	}
	digests := make([]string, len(paths))
	for i, path := range paths {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if content, ok := readSmall(r, strings.TrimPrefix(string(path), "/"), compareMax); ok {
			digests[i] = image.Sum(content).String()
		}
	}
	return digests, nil
}

// compareMax bounds how much of a file is read to tell whether it is the same as another one.
const compareMax = 16 << 20

// readSmall returns the content of a regular file of a replica. ok is false if there is none, or if it has more than
// limit bytes.
func readSmall(r *replica.Replica, path string, limit uint64) (content []byte, ok bool) {
	who, h := &vfs.Cred{}, r.Root()
	var a vfs.Attr
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if h, err = r.Lookup(who, h, name, &a); err != nil {
			return nil, false
		}
	}
	if a.Type != vfs.Regular || a.Size > limit {
		return nil, false
	}
	buf := make([]byte, a.Size)
	for done := 0; done < len(buf); {
		n, eof, err := r.Read(who, h, buf[done:], uint64(done))
		if done += n; err != nil || n == 0 || eof && done < len(buf) {
			return nil, false
		}
	}
	return buf, true
}
