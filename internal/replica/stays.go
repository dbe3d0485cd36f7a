package replica

import (
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// stays reports whether what the layer has at p, which is no directory, stays although the versions differ there:
//
//   - The master has changed nothing but times. A package manager of a node locks a file, and the master's touches it.
//   - The node has the same as the new version, apart from times. Programs that have it open keep it.
//   - It is a lock, a socket or the file of a process id, and the master's, if any, is one too. They belong to the
//     programs of the machine.
func (a *setAsideOp) stays(c *change, p *dentry) (bool, error) {
	switch {
	case a.own || a.extra || !c.differs:
		return false, nil
	case sameButTimes(c.old, c.new):
		return true, nil
	case p.white:
		return isLock(p.name) && c.new != nil && smallFile(c.new), nil
	case p.obj.kind == vfs.Socket:
		return c.to != vfs.Directory, nil
	}
	var st unix.Stat_t
	if err := a.r.stat(p.obj, &st); err != nil {
		return false, err
	}
	if isLock(p.name) && p.obj.kind == vfs.Regular && st.Size <= lockMax && (c.new == nil || smallFile(c.new)) {
		return true, nil
	}
	return a.equals(p.obj, &st, c.new)
}

// sameButTimes reports whether two entries of versions differ in nothing but their times.
func sameButTimes(old, now *image.Entry) bool {
	if old == nil || now == nil {
		return false
	}
	touched := *old
	touched.Mtime = now.Mtime
	return touched.SameAttributes(now)
}

// lockMax is more bytes than a file has that names a process.
const lockMax = 64

// smallFile reports whether e may be a lock or the file of a process id.
func smallFile(e *image.Entry) bool { return e.Type == image.Regular && e.Size <= lockMax }

// isLock reports whether files with a name are by convention locks, or name a process.
func isLock(name string) bool {
	switch name {
	case "lock", "lock-frontend", "LOCK":
		return true
	}
	if strings.HasPrefix(name, "LCK..") { // of serial lines
		return true
	}
	for _, suffix := range []string{".lock", ".lck", ".pid"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// equals reports whether the layer's object o, which is no directory, is what e says, apart from times and links.
func (a *setAsideOp) equals(o *object, st *unix.Stat_t, e *image.Entry) (bool, error) {
	if e == nil || o.kind != lower.TypeOf(e.Type) || layer.AttrsOf(st) != attrsOf(e) {
		return false, nil
	}
	if o.kind == vfs.Regular && uint64(st.Size) != e.Size {
		return false, nil
	}
	d, name, err := a.r.where(o)
	if err != nil {
		return false, err
	}
	defer d.Release()
	at := layer.At(d.FD, name)
	if same, err := at.HasXattrs(e.Xattrs); !same || err != nil {
		return false, err
	}
	switch o.kind {
	case vfs.Regular:
		sum, err := at.Sum()
		return sum == e.Digest, err
	case vfs.Symlink:
		target, err := at.Target()
		return target == e.Target, err
	case vfs.CharDevice, vfs.BlockDevice:
		return unix.Major(st.Rdev) == e.Major && unix.Minor(st.Rdev) == e.Minor, nil
	}
	return true, nil
}
