package replica

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// ChangedDirs lists directories in which names or attributes have changed. A node whose kernel revalidates them
// in this order sees what the replica shows.
type ChangedDirs struct {
	Stamp int64            // of the last switch; the argument of the next call
	All   bool             // the history does not reach back: these are all directories
	Dirs  iter.Seq[string] // paths without a leading slash, each behind those above it; "" is the root
}

// ChangedDirs returns what switches have changed since the one with the given stamp. The stamp is that of an
// earlier result.
func (r *Replica) ChangedDirs(stamp int64) ChangedDirs {
	r.mu.RLock()
	last, made, view := r.state.steps, max(r.state.made, r.renewed), *r.view
	r.mu.RUnlock()
	l := ChangedDirs{Stamp: made}
	if last != nil {
		l.Stamp = max(made, last.at)
	}
	if stamp == l.Stamp {
		l.Dirs = slices.Values([]string(nil))
		return l
	}
	if dirs, ok := r.set.dirsSince(last, max(stamp, 1), made); ok {
		l.Dirs = dirs
		return l
	}
	l.All, l.Dirs = true, r.allDirs(view)
	return l
}

// dirsSince joins what the steps after the given stamp have changed. It fails if not all steps are known, or if
// their versions are no longer in the store.
func (s *Set) dirsSince(last *step, stamp, made int64) (iter.Seq[string], bool) {
	if stamp < made {
		return nil, false
	}
	var shared []string // of one step, by all replicas that took it
	all := make(map[string]bool)
	for p := last; p != nil && p.at > stamp; p = p.before {
		if p.from.Digest != p.to.Digest {
			c, err := s.changesBetween(context.Background(), p.from, p.to)
			if err != nil {
				return nil, false
			}
			if shared == nil {
				shared = c.changedDirs()
			} else {
				for _, dir := range c.changedDirs() {
					all[dir] = true
				}
			}
		}
		if p.files == nil {
			continue
		}
		for _, path := range differing(p.prior, p.files) {
			for path != "" { // those above may be there for the node file alone
				path = parentPath(path)
				all[path] = true
			}
		}
	}
	return merged(shared, slices.SortedFunc(maps.Keys(all), image.ComparePaths)), true
}

// merged yields the paths that are in a or b, both in walk order, in walk order and once each.
func merged(a, b []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		a, b := a, b
		for len(a) > 0 || len(b) > 0 {
			from := &a
			if len(a) == 0 || len(b) > 0 && image.ComparePaths(b[0], a[0]) < 0 {
				from = &b
			} else if len(b) > 0 && a[0] == b[0] {
				b = b[1:]
			}
			if !yield((*from)[0]) {
				return
			}
			*from = (*from)[1:]
		}
	}
}

// changedDirs returns the directories in which names changed and those that have other attributes, in walk order.
func (c *changes) changedDirs() []string {
	c.once.Do(func() { c.dirs = c.tree.changedDirs("", nil) })
	return c.dirs
}

func (c *change) changedDirs(path string, list []string) []string {
	isDir := c.to == vfs.Directory || c.old != nil && c.old.Type == image.Directory
	if c.differs && isDir || slices.ContainsFunc(c.kids, func(k *change) bool { return k.differs }) {
		list = append(list, path)
	}
	for _, k := range c.kids {
		list = k.changedDirs(image.JoinPath(path, k.name), list)
	}
	return list
}

// allDirs yields the directories of a version level by level, then those of the layer and of the node files
// that the version does not have.
func (r *Replica) allDirs(v view) iter.Seq[string] {
	return func(yield func(string) bool) {
		for low := lower.Root; int(low) < v.index.Len(); low++ {
			if v.index.IsDir(low) && !yield(v.index.Path(low)) {
				return
			}
		}
		for _, dir := range r.ownDirs(v) {
			if !yield(dir) {
				return
			}
		}
	}
}

func (r *Replica) ownDirs(v view) []string {
	own := make(map[string]bool)
	for i := range v.files.List {
		for path := v.files.List[i].Path; path != ""; {
			path = parentPath(path)
			own[path] = true
		}
	}
	if r.rlock() == nil {
		for _, o := range r.objects {
			if o.kind == vfs.Directory && len(o.names) > 0 {
				own[o.names[0].path()] = true
			}
		}
		r.mu.RUnlock()
	}
	for path := range own {
		if _, there := v.index.Find(path); there {
			delete(own, path)
		}
	}
	return slices.SortedFunc(maps.Keys(own), image.ComparePaths)
}

// Held is a replica that was not switched because the node has a mount on a path that would change. The node's
// kernel would detach the mount silently.
type Held struct {
	Node  string
	Image string
	Path  string // of the mount, without a leading slash
}

// Error names the mount.
func (h *Held) Error() string {
	return fmt.Sprintf("switch %s/%s: the node has a mount on /%s, which changes", h.Node, h.Image, h.Path)
}

// blockedBy returns the first mount point whose entry the transition replaces or removes.
func (t *transition) blockedBy(mounted []string) (string, bool) {
	for _, path := range mounted {
		if t.keep.Cover(path) {
			continue
		}
		version := t.changes != nil && !t.hidden[path] && t.replaces(t.changes.tree, path)
		if version || t.own != nil && t.replacesFile(path) {
			return path, true
		}
	}
	return "", false
}

// replacesFile reports whether the node file at path is added, removed or replaced by another.
func (t *transition) replacesFile(path string) bool {
	before, had := t.r.state.files[path]
	after, has := t.files[path]
	return before != after && (!had || !has || fingerprintID(before) != fingerprintID(after) || t.r.hasOwn(path))
}

// replaces reports whether the changes c put another object, or none, at path or above it. Directories keep
// their ids.
func (t *transition) replaces(c *change, path string) bool {
	at := ""
	for name := range strings.SplitSeq(path, "/") {
		i := slices.IndexFunc(c.kids, func(k *change) bool { return k.name == name })
		if i < 0 {
			return false
		}
		c, at = c.kids[i], image.JoinPath(at, name)
		if !c.differs {
			continue
		}
		switch {
		case c.old == nil:
			return t.r.hasOwn(at)
		case c.new == nil || fileid.OfEntry(at, c.old) != fileid.OfEntry(at, c.new):
			return true
		case c.new.Type != image.Directory && t.r.hasOwn(at): // it is set aside
			return true
		}
	}
	return false
}

// hasOwn reports whether the layer has an entry at path.
func (r *Replica) hasOwn(path string) bool {
	fd, err := r.set.root.Open(r.dir.Upper(path), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
