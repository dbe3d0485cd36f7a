package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dim/internal/control"
	"dim/internal/layers"
)

// NodeFiles implements control.Backend.
func (api *API) NodeFiles(_ context.Context, node, path string) (list []control.NodeFile, err error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return nil, err
	}
	own, err := layers.Of(r).Diff("")
	if err != nil {
		return nil, err
	}
	hidden := map[string]bool{}
	for i := range own {
		hidden[strings.TrimPrefix(own[i].Path, "/")] = true
	}
	path = strings.TrimPrefix(path, "/")
	for _, f := range r.NodeFiles() {
		if path != "" && f.Path != path {
			continue
		}
		content, there, err := r.NodeFileContent(f.Path)
		if err != nil {
			return nil, err
		}
		if there { // else a switch has just removed it
			list = append(list, control.NodeFile{
				Path: "/" + f.Path, Mode: fmt.Sprintf("%04o", f.Mode), UID: int(f.UID), GID: int(f.GID),
				Size: f.Size, Hidden: hidden[f.Path], Content: string(content),
			})
		}
	}
	if path != "" && len(list) == 0 {
		return nil, control.Errorf(control.NotFound, "node %s: no file is rendered at /%s", node, path).
			WithHint("dim node render " + node + " lists those that are")
	}
	slices.SortFunc(list, func(a, b control.NodeFile) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}
