package draft

import (
	"fmt"
	"strings"

	"dim/internal/image"
)

// walk resolves one path.
type walk struct {
	t    *Tree
	make bool // add directories that are missing

	dirs  []*node  // from the root to the current directory
	names []string // of dirs, without the root
	last  string
	links int
}

// parent returns the directory of the last component of path, or nil if it is missing. It sets w.last to the last
// component.
func (w *walk) parent(path string) (*node, error) {
	w.dirs, w.names = []*node{w.t.root}, nil
	parts := strings.Split(path, "/")
	w.last = parts[len(parts)-1]
	for parts = parts[:len(parts)-1]; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..": // in the target of a symlink
			if n := len(w.names); n > 0 {
				w.dirs, w.names = w.dirs[:n], w.names[:n-1]
			}
			continue
		}
		target, err := w.enter(part)
		if err != nil || w.dirs[len(w.dirs)-1] == nil {
			w.names = append(w.names, parts...)
			return nil, err
		}
		if target == "" {
			continue
		}
		if strings.HasPrefix(target, "/") {
			w.dirs, w.names = w.dirs[:1], nil
		}
		parts = append(strings.Split(target, "/"), parts...)
	}
	return w.dirs[len(w.dirs)-1], nil
}

// enter makes the directory with the name part the current one. If part is a symlink, it returns the target.
func (w *walk) enter(part string) (target string, err error) {
	dir := w.dirs[len(w.dirs)-1]
	n := dir.names[part].node
	at := image.JoinPath(strings.Join(w.names, "/"), part)
	switch {
	case n == nil && w.make:
		if !image.ValidEntryName(part) || len(at) > image.MaxPath {
			return "", fmt.Errorf("%q is not a path", shortened(at))
		}
		n = newNode(at, implied())
		if err := w.t.account(len(at)); err != nil {
			return "", err
		}
		if err := w.t.set(dir, part, n); err != nil {
			return "", err
		}
	case n == nil || n.names != nil:
	case n.entry.Type != image.Symlink:
		return "", fmt.Errorf("/%s is a %s, so there is nothing in it", at, n.entry.Type)
	case !w.t.o.Follow:
		return "", fmt.Errorf("/%s is a symlink, so there is nothing in it", at)
	default:
		if w.links++; w.links > maxLinks {
			return "", fmt.Errorf("/%s: too many symlinks on the way", at)
		}
		return n.entry.Target, nil
	}
	w.dirs, w.names = append(w.dirs, n), append(w.names, part)
	return "", nil
}

// at returns the resolved path.
func (w *walk) at() string { return image.JoinPath(strings.Join(w.names, "/"), w.last) }

func shortened(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
