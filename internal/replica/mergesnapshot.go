package replica

import (
	"golang.org/x/sys/unix"

	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/recordmerge"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// Merge merges own, a file of a snapshot, with what c says that the master has changed since, as a switch would. merged
// is false if no rule asks for that, or if it is not possible. how tells what becomes of own: nothing if the version's
// file is the result, a link if the layer has the result already, else a copy that is given the merged content.
func (e *Edit) Merge(c treediff.Change, own layer.Entry) (
	how layer.Choice, conflicts []recordmerge.Conflict, merged bool, err error,
) {
	format := e.r.rules.Merge[c.Path]
	if format == "" || c.Old == nil && c.New == nil {
		return how, nil, false, nil
	}
	m, err := e.r.set.mergedFile(format, &change{old: c.Old, new: c.New}, own, nil)
	if _, refused := err.(*notMergedError); refused {
		return how, nil, false, nil
	}
	if err != nil {
		return how, nil, false, err
	}
	now, ok := e.At(c.Path)
	switch {
	case m.sameAs(c.New):
		how.Leave = true
	case ok && m.isIn(now):
		how.Link = func(dir int, name string) error {
			at, release, err := now.Open()
			if err != nil {
				return err
			}
			defer release()
			return unix.Linkat(at.FD, at.Name, dir, name, 0)
		}
	default:
		how.Adapt = m.writeTo
	}
	return how, m.result.Conflicts, true, nil
}

// isIn reports whether the layer's file is the merged file already.
func (m *mergedFile) isIn(now LayerEntry) bool {
	if now.Kind() != vfs.Regular {
		return false
	}
	at, release, err := now.Open()
	if err != nil {
		return false
	}
	defer release()
	var st unix.Stat_t
	content, err := readOwn(at, &st)
	return err == nil && layer.AttrsOf(&st) == m.Attrs && string(content) == string(m.result.Content)
}

// writeTo gives to, a copy of the file of the snapshot, the merged content and attributes, and a new id.
func (m *mergedFile) writeTo(to layer.Entry) error {
	const flags = unix.O_WRONLY | unix.O_TRUNC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(to.FD, to.Name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := sysfile.WriteAt(fd, m.result.Content, 0); err != nil {
		return err
	}
	if err := to.SetAttrs(m.Attrs); err != nil {
		return err
	}
	if err := to.SetXattrs(m.xattrs, func(err error) bool { return err == unix.EOPNOTSUPP }); err != nil {
		return err
	}
	if err := to.DropPartOfGroup(); err != nil {
		return err
	}
	return to.SetID(layer.NewID(), nil)
}
