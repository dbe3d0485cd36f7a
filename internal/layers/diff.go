package layers

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// Difference is one path at which a node has something of its own.
type Difference struct {
	Path  string
	Kind  DiffKind
	Type  vfs.Type // of what is there; of what was, if it is removed
	Size  uint64   // bytes of a file's content
	Was   uint64   // of the version's or node file's, where there is one
	Attrs string   // which attributes differ: "mode owner time"; "hides" for a directory that hides the version's
	Mode  uint32
	UID   uint32
	GID   uint32
}

// DiffKind tells how a path differs from the version and the node files.
type DiffKind string

// New; another content or type; not there; only other attributes.
const (
	added      DiffKind = "added"
	Changed    DiffKind = "content"
	Removed    DiffKind = "removed"
	attributes DiffKind = "attributes"
)

// Diff lists what the layer has at and below path, in order of path. It takes content for unchanged if size and
// time are.
func (l Layer) Diff(path string) ([]Difference, error) {
	path, err := cleanPath(path)
	if err != nil || l.none() {
		return nil, err
	}
	var list []Difference
	err = l.r.View(func(root replica.LayerEntry) error {
		entry, ok := root.At(path)
		if !ok {
			return nil
		}
		return addDifferences(entry, &list)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b Difference) int { return image.ComparePaths(a.Path, b.Path) })
	return list, nil
}

func addDifferences(entry replica.LayerEntry, list *[]Difference) error {
	d, differs, err := difference(entry)
	if err != nil {
		return err
	}
	if differs {
		*list = append(*list, d)
	}
	for below := range entry.Entries() {
		if err := addDifferences(below, list); err != nil {
			return err
		}
	}
	return nil
}

// difference compares what the layer has at entry with what it hides.
func difference(entry replica.LayerEntry) (d Difference, differs bool, err error) {
	var below vfs.Attr
	hides := entry.Below(&below)
	switch {
	case entry.Whiteout():
		return Difference{Path: entry.Path(), Kind: Removed, Type: below.Type, Size: contentSize(&below)}, hides, nil
	case entry.Kind() == 0:
		return d, false, nil
	}
	var a vfs.Attr
	if err := entry.Attr(&a); err != nil {
		return d, false, err
	}
	d = Difference{Path: entry.Path(), Type: a.Type, Size: contentSize(&a), Mode: a.Mode, UID: a.UID, GID: a.GID}
	if !hides {
		d.Kind = added
		return d, true, nil
	}
	d.Was = contentSize(&below)
	switch {
	case a.Type != below.Type:
		d.Kind = Changed
	case entry.Opaque():
		d.Kind, d.Attrs = Changed, "hides"
	case a.Type == vfs.Regular && (a.Size != below.Size || a.Mtime != below.Mtime),
		a.Type == vfs.Symlink && !sameTarget(entry), a.Major != below.Major, a.Minor != below.Minor:
		d.Kind = Changed
	default:
		d.Kind, d.Attrs = attributes, attributeNames(&a, &below)
	}
	return d, d.Kind != attributes || d.Attrs != "", nil
}

func contentSize(a *vfs.Attr) uint64 {
	if a.Type == vfs.Regular {
		return a.Size
	}
	return 0
}

// attributeNames names the attributes in which a and b differ. A directory's time does not count: it changes with what
// is in it.
func attributeNames(a, b *vfs.Attr) string {
	var names []string
	if a.Mode != b.Mode {
		names = append(names, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		names = append(names, "owner")
	}
	if a.Mtime != b.Mtime && a.Type != vfs.Directory {
		names = append(names, "time")
	}
	return strings.Join(names, " ")
}

// sameTarget reports whether the layer's link at entry leads where the version's does.
func sameTarget(entry replica.LayerEntry) bool {
	at, release, err := entry.Open()
	if err != nil {
		return false
	}
	defer release()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at.FD, at.Name, buf)
	return err == nil && string(buf[:n]) == entry.VersionTarget()
}
