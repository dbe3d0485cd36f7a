// Package layers is what administrators do to the layers of nodes: list, restore and forget what was set aside,
// reset a layer, restore it from a snapshot, compare it with its version, check its form on disk.
//
// A Layer is that of one replica. Every change is a replica.Edit: calls of the node wait until it ends, and
// what it takes from the layer is set aside. A method whose options have Dry set only returns what it would do.
//
// # Concurrency
//
// All functions may be called concurrently. They take no locks but those of package replica.
//
// # What it must not know
//
// Protocols, the cluster's description, which version a replica ought to follow.
package layers

import (
	"fmt"
	"strings"

	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// Layer is what one node has written over one image.
type Layer struct {
	r    *replica.Replica
	root layer.Dir // of all replicas
	home layer.Home
}

// Of returns the layer of r. A version served read-only has an empty one.
func Of(r *replica.Replica) Layer {
	root, home := r.Disk()
	return Layer{r, root, home}
}

// none reports whether the layer is that of a version served read-only.
func (l Layer) none() bool { return l.home == "" }

// cleanPath returns path without slashes around it. It refuses what is no path in a tree.
func cleanPath(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return "", nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > nameMax || strings.IndexByte(name, 0) >= 0 {
			return "", fmt.Errorf("%q is no path from the root of a node", path)
		}
	}
	if len(path) > layer.PathMax {
		return "", vfs.ENAMETOOLONG
	}
	return path, nil
}

const nameMax = 255

// under reports whether path is dir or below it.
func under(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

func parentPath(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
