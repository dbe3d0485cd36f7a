package vfs

import "math"

// MaySet returns nil if c may make the change s to an object with attributes a (Linux fs/attr.c: setattr_prepare).
func (c *Cred) MaySet(a *Attr, s *SetAttr) error {
	owner := c.UID == 0 || c.UID == a.UID
	if s.Valid&SetSize != 0 {
		if err := c.mayResize(a, s.Size); err != nil {
			return err
		}
	}
	if s.Valid&SetUID != 0 && c.UID != 0 && (!owner || s.UID != a.UID) {
		return EPERM
	}
	if s.Valid&SetGID != 0 && c.UID != 0 && (!owner || s.GID != a.GID && !c.InGroup(s.GID)) {
		return EPERM
	}
	if s.Valid&SetMode != 0 {
		if !owner {
			return EPERM
		}
		if a.Type == Symlink {
			return EOPNOTSUPP
		}
	}
	return c.mayTouch(a, s)
}

// mayResize always allows the owner to resize a file, because no call says how the file was opened.
func (c *Cred) mayResize(a *Attr, size uint64) error {
	switch {
	case a.Type == Directory:
		return EISDIR
	case a.Type != Regular:
		return EINVAL
	case c.UID != a.UID && !c.Permits(a, MayWrite):
		return EACCES
	case size > math.MaxInt64:
		return EFBIG
	}
	return nil
}

func (c *Cred) mayTouch(a *Attr, s *SetAttr) error {
	const values, now = SetAtime | SetMtime, SetAtimeNow | SetMtimeNow
	if s.Valid&(values|now) == 0 {
		return nil
	}
	if s.Valid&SetAtime != 0 && s.Atime.Nsec > 999_999_999 || s.Valid&SetMtime != 0 && s.Mtime.Nsec > 999_999_999 {
		return EINVAL
	}
	switch {
	case c.UID == 0 || c.UID == a.UID:
		return nil
	case s.Valid&values != 0:
		return EPERM
	case !c.Permits(a, MayWrite):
		return EACCES
	}
	return nil
}

// NewAttr returns owner and mode of an object of type t that c makes in directory dir with s. The owner is the
// caller. The group is that of the caller, or of dir if that has the setgid bit, which a new directory inherits.
// What s sets takes precedence. The error says what c may not set.
func (c *Cred) NewAttr(dir *Attr, t Type, s *SetAttr) (Attr, error) {
	a := Attr{Type: t, UID: c.UID, GID: c.GID}
	inherit := dir.Mode&0o2000 != 0
	if inherit {
		a.GID = dir.GID
	}
	want := *s
	if t != Regular {
		want.Valid &^= SetSize
	}
	if t == Symlink {
		want.Valid &^= SetMode
		a.Mode = 0o777
	}
	if err := c.MaySet(&a, &want); err != nil {
		return a, err
	}
	if want.Valid&SetUID != 0 {
		a.UID = want.UID
	}
	if want.Valid&SetGID != 0 {
		a.GID = want.GID
	}
	if want.Valid&SetMode != 0 {
		a.Mode = want.Mode & 0o7777
	}
	if c.UID != 0 && !c.InGroup(a.GID) {
		a.Mode &^= 0o2000
	}
	if inherit && t == Directory {
		a.Mode |= 0o2000
	}
	return a, nil
}
