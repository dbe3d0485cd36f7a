package nfs

import (
	"bytes"
	"encoding/binary"
	"math"

	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

const (
	nameMax   = 255
	attrSize  = 84 // fattr3
	postAttr  = 4 + attrSize
	targetMax = 4096
	// stringMax bounds names in requests. It is larger than nameMax, so that the reply to a long name is
	// NFS3ERR_NAMETOOLONG and not GARBAGE_ARGS.
	stringMax = 64 << 10
)

// handle reads a file handle. One that is too long does not decode. An empty one is left to Client.Find to refuse.
func (c *call) handle() vfs.Handle {
	h, _ := vfs.MakeHandle(c.Args.Opaque(vfs.HandleMax))
	return h
}

// object reads the handle that all procedures but NULL begin with.
func (c *call) object() { c.h = c.handle() }

// name reads a filename3. The result aliases the request.
func (c *call) name() []byte { return c.Args.Opaque(stringMax) }

// checkName checks the name of an entry to look up.
func checkName(name []byte) status {
	switch {
	case len(name) > nameMax:
		return errNameTooLong
	case len(name) == 0, bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return errInval
	}
	return ok
}

func isDots(name []byte) bool {
	return len(name) == 1 && name[0] == '.' || len(name) == 2 && name[0] == '.' && name[1] == '.'
}

// checkNewName checks the name of an entry to make.
func checkNewName(name []byte) status {
	if isDots(name) {
		return errExist
	}
	return checkName(name)
}

// checkOldName checks the name of an entry to remove or rename.
func checkOldName(name []byte) status {
	if isDots(name) {
		return errInval
	}
	return checkName(name)
}

// setAttr reads a sattr3 into c.set.
func (c *call) setAttr() {
	d, s := &c.Args, &c.set
	*s = vfs.SetAttr{}
	if d.Bool() {
		s.Valid |= vfs.SetMode
		s.Mode = d.Uint32() & 0o7777
	}
	if d.Bool() {
		s.Valid |= vfs.SetUID
		s.UID = d.Uint32()
	}
	if d.Bool() {
		s.Valid |= vfs.SetGID
		s.GID = d.Uint32()
	}
	if d.Bool() {
		s.Valid |= vfs.SetSize
		s.Size = d.Uint64()
	}
	s.Valid |= setTime(d, &s.Atime, vfs.SetAtimeNow, vfs.SetAtime)
	s.Valid |= setTime(d, &s.Mtime, vfs.SetMtimeNow, vfs.SetMtime)
}

func setTime(d *oncrpc.Decoder, t *vfs.Time, now, to uint32) uint32 {
	switch d.Uint32() {
	case 0:
		return 0
	case 1:
		return now
	case 2:
		*t = decodeTime(d)
		return to
	}
	d.Fail()
	return 0
}

func decodeTime(d *oncrpc.Decoder) vfs.Time {
	t := vfs.Time{Sec: int64(d.Uint32()), Nsec: d.Uint32()}
	if t.Nsec >= 1e9 {
		d.Fail()
	}
	return t
}

// putTime writes an nfstime3, whose seconds are unsigned 32 bits. A time outside them becomes the bound, without a
// fraction, as in Linux (fs/inode.c: timestamp_truncate): a fraction would make an earlier time a later one.
func putTime(p []byte, t *vfs.Time) {
	sec, nsec := uint32(t.Sec), t.Nsec
	switch {
	case t.Sec < 0:
		sec, nsec = 0, 0
	case t.Sec > math.MaxUint32:
		sec, nsec = math.MaxUint32, 0
	}
	binary.BigEndian.PutUint32(p, sec)
	binary.BigEndian.PutUint32(p[4:], nsec)
}

// putAttr writes a fattr3 into the attrSize bytes of p.
func putAttr(p []byte, a *vfs.Attr) {
	be := binary.BigEndian
	_ = p[attrSize-1]
	be.PutUint32(p[0:], uint32(a.Type))
	be.PutUint32(p[4:], a.Mode)
	be.PutUint32(p[8:], a.Nlink)
	be.PutUint32(p[12:], a.UID)
	be.PutUint32(p[16:], a.GID)
	be.PutUint64(p[20:], a.Size)
	be.PutUint64(p[28:], a.Used)
	be.PutUint32(p[36:], a.Major)
	be.PutUint32(p[40:], a.Minor)
	be.PutUint64(p[44:], a.FSID)
	be.PutUint64(p[52:], a.ID)
	putTime(p[60:], &a.Atime)
	putTime(p[68:], &a.Mtime)
	putTime(p[76:], &a.Ctime)
}

// putPostAttr appends a post_op_attr with attributes.
func putPostAttr(e *oncrpc.Encoder, a *vfs.Attr) {
	p := e.Extend(postAttr)
	binary.BigEndian.PutUint32(p, 1)
	putAttr(p[4:], a)
}

// postAttrOf appends a post_op_attr with the attributes of h, or without if the tree does not return them.
func (c *call) postAttrOf(h vfs.Handle) {
	if c.fs == nil || c.fs.Attr(h, &c.post) != nil {
		c.Reply.Uint32(0)
		return
	}
	putPostAttr(&c.Reply, &c.post)
}

// wcc appends the wcc_data of a change. If ch is not valid, it has the present attributes of h only.
func (c *call) wcc(h vfs.Handle, ch *vfs.Change) {
	if !ch.Valid {
		c.Reply.Uint32(0)
		c.postAttrOf(h)
		return
	}
	p := c.Reply.Extend(4 + 24 + postAttr)
	binary.BigEndian.PutUint32(p, 1)
	binary.BigEndian.PutUint64(p[4:], ch.Before.Size)
	putTime(p[12:], &ch.Before.Mtime)
	putTime(p[20:], &ch.Before.Ctime)
	binary.BigEndian.PutUint32(p[28:], 1)
	putAttr(p[32:], &ch.After)
}

// putBool appends a boolean.
func putBool(e *oncrpc.Encoder, v bool) {
	if v {
		e.Uint32(1)
		return
	}
	e.Uint32(0)
}

// putHandle appends an nfs_fh3.
func putHandle(e *oncrpc.Encoder, h *vfs.Handle) { e.Opaque(h.Bytes()) }

// fail appends a status other than ok, and counts the call as an error.
func (c *call) fail(st status) {
	c.Fail()
	c.Reply.Uint32(uint32(st))
}

// ready finds the tree of c.h, with st as the outcome. If the arguments did not decode, decoded is false, and the
// procedure has to return without a reply.
func (c *call) ready() (st status, decoded bool) {
	c.fs = nil
	if !c.Args.OK() {
		return 0, false
	}
	return c.find(), true
}
