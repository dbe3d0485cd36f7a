package nfsclient

import (
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// errnoOf turns an nfsstat3 or mountstat3 into an error. A status without an Errno is EIO.
func errnoOf(st uint32) error {
	switch st {
	case 0:
		return nil
	case 63:
		return vfs.ENAMETOOLONG
	case 66:
		return vfs.ENOTEMPTY
	case 69:
		return vfs.EDQUOT
	case 70:
		return vfs.ESTALE
	case 10001:
		return vfs.EBADHANDLE
	case 10002:
		return vfs.EAGAIN
	case 10004:
		return vfs.EOPNOTSUPP
	case 10008:
		return vfs.ELATER
	case 10005, 10007: // TOOSMALL, BADTYPE
		return vfs.EINVAL
	}
	switch e := vfs.Errno(st); e { // the other numbers are those of Unix
	case vfs.EPERM, vfs.ENOENT, vfs.EACCES, vfs.EEXIST, vfs.EXDEV, vfs.ENOTDIR, vfs.EISDIR, vfs.EINVAL, vfs.EFBIG,
		vfs.ENOSPC, vfs.EROFS, vfs.EMLINK:
		return e
	}
	return vfs.EIO
}

func getHandle(d *oncrpc.Decoder) vfs.Handle {
	h, _ := vfs.MakeHandle(d.Opaque(vfs.HandleMax))
	return h
}

func getTime(d *oncrpc.Decoder) vfs.Time { return vfs.Time{Sec: int64(d.Uint32()), Nsec: d.Uint32()} }

func getAttr(d *oncrpc.Decoder, a *vfs.Attr) {
	a.Type = vfs.Type(d.Uint32())
	a.Mode = d.Uint32()
	a.Nlink = d.Uint32()
	a.UID = d.Uint32()
	a.GID = d.Uint32()
	a.Size = d.Uint64()
	a.Used = d.Uint64()
	a.Major = d.Uint32()
	a.Minor = d.Uint32()
	a.FSID = d.Uint64()
	a.ID = d.Uint64()
	a.Atime = getTime(d)
	a.Mtime = getTime(d)
	a.Ctime = getTime(d)
}

// getPostAttr reads a post_op_attr, and reports whether it has attributes.
func getPostAttr(d *oncrpc.Decoder, a *vfs.Attr) bool {
	if !d.Bool() {
		return false
	}
	getAttr(d, a)
	return true
}

// getChange reads a wcc_data. The change is valid if both halves have attributes.
func getChange(d *oncrpc.Decoder) (ch vfs.Change) {
	before := d.Bool()
	if before {
		ch.Before = vfs.Brief{Size: d.Uint64(), Mtime: getTime(d), Ctime: getTime(d)}
	}
	after := getPostAttr(d, &ch.After)
	ch.Valid = before && after
	return ch
}

func putBool(e *oncrpc.Encoder, v bool) {
	if v {
		e.Uint32(1)
		return
	}
	e.Uint32(0)
}

func putHandle(e *oncrpc.Encoder, h *vfs.Handle) { e.Opaque(h.Bytes()) }

func putTime(e *oncrpc.Encoder, t vfs.Time) {
	e.Uint32(uint32(t.Sec))
	e.Uint32(t.Nsec)
}

func putSetAttr(e *oncrpc.Encoder, s *vfs.SetAttr) {
	opt := func(bit uint32, v uint32) {
		putBool(e, s.Valid&bit != 0)
		if s.Valid&bit != 0 {
			e.Uint32(v)
		}
	}
	opt(vfs.SetMode, s.Mode)
	opt(vfs.SetUID, s.UID)
	opt(vfs.SetGID, s.GID)
	putBool(e, s.Valid&vfs.SetSize != 0)
	if s.Valid&vfs.SetSize != 0 {
		e.Uint64(s.Size)
	}
	putSetTime(e, s.Valid&vfs.SetAtimeNow != 0, s.Valid&vfs.SetAtime != 0, s.Atime)
	putSetTime(e, s.Valid&vfs.SetMtimeNow != 0, s.Valid&vfs.SetMtime != 0, s.Mtime)
}

func putSetTime(e *oncrpc.Encoder, now, to bool, t vfs.Time) {
	switch {
	case now:
		e.Uint32(1)
	case to:
		e.Uint32(2)
		putTime(e, t)
	default:
		e.Uint32(0)
	}
}
