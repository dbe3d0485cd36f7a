package fuse

import (
	"slices"
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

const estale = gofuse.Status(syscall.ESTALE)

// Forget drops a node, and removes a file whose only name is hidden.
func (a *adapter) Forget(id, lookups uint64) { a.unhide(a.table.forget(id, lookups)) }

// GetAttr returns attributes, also those of a removed object that is still in use.
func (a *adapter) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	var at vfs.Attr
	err := a.fs.Attr(n.h, &at)
	if last := a.table.removedAttr(n); err == vfs.ESTALE && last != nil {
		at, err = *last, nil
	}
	if err != nil {
		return status(err)
	}
	a.answerAttr(n, &at, out)
	return gofuse.OK
}

func (a *adapter) answerAttr(n *node, at *vfs.Attr, out *gofuse.AttrOut) {
	a.fillAttr(n, at, &out.Attr)
	out.AttrValid = uint64(a.validFor().Seconds())
}

// SetAttr changes attributes. For ftruncate the permission that open checked is enough.
func (a *adapter) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	s := setAttr(in)
	ch, err := a.fs.SetAttr(caller(&in.InHeader), n.h, &s)
	if err == vfs.EACCES && in.Valid&gofuse.FATTR_FH != 0 && s.Valid&^(vfs.SetSize|vfs.SetMtimeNow) == 0 {
		ch, err = a.fs.SetAttr(root(), n.h, &s)
	}
	if err != nil {
		return status(err)
	}
	a.answerAttr(n, &ch.After, out)
	return gofuse.OK
}

func setAttr(in *gofuse.SetAttrIn) vfs.SetAttr {
	s := vfs.SetAttr{
		Mode: in.Mode & 0o7777, UID: in.Uid, GID: in.Gid, Size: in.Size,
		Atime: vfs.Time{Sec: int64(in.Atime), Nsec: in.Atimensec},
		Mtime: vfs.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec},
	}
	for _, b := range []struct{ kernel, ours uint32 }{
		{gofuse.FATTR_MODE, vfs.SetMode}, {gofuse.FATTR_UID, vfs.SetUID}, {gofuse.FATTR_GID, vfs.SetGID},
		{gofuse.FATTR_SIZE, vfs.SetSize},
	} {
		if in.Valid&b.kernel != 0 {
			s.Valid |= b.ours
		}
	}
	switch {
	case in.Valid&gofuse.FATTR_ATIME_NOW != 0:
		s.Valid |= vfs.SetAtimeNow
	case in.Valid&gofuse.FATTR_ATIME != 0:
		s.Valid |= vfs.SetAtime
	}
	switch {
	case in.Valid&gofuse.FATTR_MTIME_NOW != 0:
		s.Valid |= vfs.SetMtimeNow
	case in.Valid&gofuse.FATTR_MTIME != 0:
		s.Valid |= vfs.SetMtime
	}
	return s
}

// Readlink returns the target of a symbolic link.
func (a *adapter) Readlink(_ <-chan struct{}, in *gofuse.InHeader) ([]byte, gofuse.Status) {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return nil, estale
	}
	target, err := a.fs.Readlink(withoutGroups(in), n.h)
	return []byte(target), status(err)
}

// StatFs returns sizes and limits.
func (a *adapter) StatFs(_ <-chan struct{}, in *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	s, err := a.fs.StatFS(n.h)
	if err != nil {
		return status(err)
	}
	*out = gofuse.StatfsOut{
		Blocks: s.Bytes / blockSize, Bfree: s.BytesFree / blockSize, Bavail: s.BytesAvail / blockSize,
		Files: s.Files, Ffree: s.FilesFree, Bsize: blockSize, Frsize: blockSize, NameLen: s.NameMax,
	}
	return gofuse.OK
}

// GetXAttr reads an attribute. The kernel checks the permission.
func (a *adapter) GetXAttr(_ <-chan struct{}, in *gofuse.InHeader, name string, dest []byte) (uint32, gofuse.Status) {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return 0, estale
	}
	if a.xattr == nil {
		return 0, gofuse.ENOSYS
	}
	v, err := a.xattr.Xattr(n.h, name)
	if err != nil {
		return 0, status(err)
	}
	return copyOut(v, dest)
}

// ListXAttr lists the names, each followed by a NUL.
func (a *adapter) ListXAttr(_ <-chan struct{}, in *gofuse.InHeader, dest []byte) (uint32, gofuse.Status) {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return 0, estale
	}
	if a.xattr == nil {
		return 0, gofuse.ENOSYS
	}
	names, err := a.xattr.Xattrs(n.h)
	if err != nil {
		return 0, status(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(slices.Values(names)) {
		b.WriteString(name)
		b.WriteByte(0)
	}
	return copyOut([]byte(b.String()), dest)
}

// copyOut copies v to dest. If dest is empty, it returns the size.
func copyOut(v, dest []byte) (uint32, gofuse.Status) {
	if len(dest) > 0 && len(v) > len(dest) {
		return uint32(len(v)), gofuse.ERANGE
	}
	copy(dest, v)
	return uint32(len(v)), gofuse.OK
}

// SetXAttr is refused, because the contract has no call for it.
func (a *adapter) SetXAttr(<-chan struct{}, *gofuse.SetXAttrIn, string, []byte) gofuse.Status {
	return gofuse.ENOTSUP
}

// RemoveXAttr is refused like SetXAttr.
func (a *adapter) RemoveXAttr(<-chan struct{}, *gofuse.InHeader, string) gofuse.Status {
	return gofuse.ENOTSUP
}
