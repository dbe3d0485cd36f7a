package vfs

import "slices"

// Cred is the credential of a caller. Groups are the supplementary groups.
type Cred struct {
	UID    uint32
	GID    uint32
	Groups []uint32
}

// InGroup reports whether c belongs to group gid.
func (c *Cred) InGroup(gid uint32) bool { return c.GID == gid || slices.Contains(c.Groups, gid) }

// The bits of Permits.
const (
	MayExec  = 1
	MayWrite = 2
	MayRead  = 4
)

// Permits reports whether c has all the wanted permissions (MayRead|MayWrite|MayExec) on an object with attributes
// a. One of the owner, group and other classes decides (POSIX.1-2017 section 4.5). UID 0 has all permissions, with
// one exception: it may execute a file that is not a directory only if some exec bit is set.
func (c *Cred) Permits(a *Attr, want uint32) bool {
	if c.UID == 0 {
		return want&MayExec == 0 || a.Type == Directory || a.Mode&0o111 != 0
	}
	bits := a.Mode
	switch {
	case c.UID == a.UID:
		bits >>= 6
	case c.InGroup(a.GID):
		bits >>= 3
	}
	return bits&want == want
}

// Grant returns which of the wanted Access bits the mode bits of a grant.
func (c *Cred) Grant(a *Attr, want uint32) uint32 {
	var granted uint32
	if c.Permits(a, MayRead) {
		granted |= AccessRead
	}
	if c.Permits(a, MayWrite) {
		granted |= AccessModify | AccessExtend
		if a.Type == Directory {
			granted |= AccessDelete
		}
	}
	if c.Permits(a, MayExec) {
		if a.Type == Directory {
			granted |= AccessLookup
		} else {
			granted |= AccessExecute
		}
	}
	return granted & want
}

// Sticky reports whether the sticky bit of directory dir forbids c to remove or rename an entry with attributes a.
// It does not for the owner of the entry or of the directory (POSIX.1-2017, rename and unlink).
func (c *Cred) Sticky(dir, a *Attr) bool {
	return dir.Mode&0o1000 != 0 && c.UID != 0 && c.UID != a.UID && c.UID != dir.UID
}
