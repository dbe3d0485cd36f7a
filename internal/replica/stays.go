package replica

import (
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// ownEntry is what a layer, or a snapshot of one, has at a path. It is no directory.
type ownEntry struct {
	name string
	kind vfs.Type // 0: a whiteout
	stat func(*unix.Stat_t) error
	at   func() (at layer.Entry, release func(), err error)
}

// stays reports whether what the layer has at p, which is no directory, stays although the versions differ there.
func (a *setAsideOp) stays(c *change, p *dentry) (bool, error) {
	if a.own || a.extra || !c.differs {
		return false, nil
	}
	e := ownEntry{name: p.name}
	if o := p.obj; !p.white {
		e.kind = o.kind
		e.stat = func(st *unix.Stat_t) error { return a.r.stat(o, st) }
		e.at = func() (at layer.Entry, release func(), err error) {
			d, name, err := a.r.where(o)
			if err != nil {
				return at, nil, err
			}
			return layer.At(d.FD, name), d.Release, nil
		}
	}
	return e.stays(c.old, c.new, c.to)
}

// stays reports whether e stays although the master has changed its path from old to now, where something of type to is
// afterwards:
//
//   - The master has changed nothing but times. A package manager of a node locks a file, and the master's touches it.
//   - The node has the same as the new version, apart from times. Programs that have it open keep it.
//   - It is a lock, a socket or the file of a process id, and the master's, if any, is one too. They belong to the
//     programs of the machine.
func (e *ownEntry) stays(old, now *image.Entry, to vfs.Type) (bool, error) {
	switch {
	case sameButTimes(old, now):
		return true, nil
	case e.kind == 0:
		return isLock(e.name) && now != nil && smallFile(now), nil
	case e.kind == vfs.Socket:
		return to != vfs.Directory, nil
	}
	var st unix.Stat_t
	if err := e.stat(&st); err != nil {
		return false, err
	}
	if isLock(e.name) && e.kind == vfs.Regular && st.Size <= lockMax && (now == nil || smallFile(now)) {
		return true, nil
	}
	return e.equals(&st, now)
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

// equals reports whether e is what the version's entry says, apart from times and links.
func (e *ownEntry) equals(st *unix.Stat_t, version *image.Entry) (bool, error) {
	if version == nil || e.kind != lower.TypeOf(version.Type) || layer.AttrsOf(st) != attrsOf(version) {
		return false, nil
	}
	if e.kind == vfs.Regular && uint64(st.Size) != version.Size {
		return false, nil
	}
	at, release, err := e.at()
	if err != nil {
		return false, err
	}
	defer release()
	if same, err := at.HasXattrs(version.Xattrs); !same || err != nil {
		return false, err
	}
	switch e.kind {
	case vfs.Regular:
		sum, err := at.Sum()
		return sum == version.Digest, err
	case vfs.Symlink:
		target, err := at.Target()
		return target == version.Target, err
	case vfs.CharDevice, vfs.BlockDevice:
		return unix.Major(st.Rdev) == version.Major && unix.Minor(st.Rdev) == version.Minor, nil
	}
	return true, nil
}

// Stays reports whether an entry of a snapshot, which is no directory, is restored although the master has changed c
// since. The rule is that of a switch.
func (e *Edit) Stays(c treediff.Change, own *layer.CopyEntry) (bool, error) {
	one := ownEntry{name: own.Name, kind: vfs.TypeOf(own.Stat.Mode)}
	if layer.IsWhiteout(&own.Stat) {
		one.kind = 0
	}
	one.stat = func(st *unix.Stat_t) error {
		*st = own.Stat
		return nil
	}
	one.at = func() (layer.Entry, func(), error) { return own.Entry, func() {}, nil }
	var to vfs.Type
	if c.New != nil {
		to = lower.TypeOf(c.New.Type)
	}
	return one.stays(c.Old, c.New, to)
}
