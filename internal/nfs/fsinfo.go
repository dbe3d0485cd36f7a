package nfs

import (
	"math"

	"dim/internal/vfs"
)

const (
	ioMax   = 1 << 20 // the largest READ and WRITE
	dirPref = 64 << 10
	maxFile = math.MaxInt64
	linkMax = 65000 // that of ext4; a tree that allows fewer links returns EMLINK

	propLink        = 0x01
	propSymlink     = 0x02
	propHomogeneous = 0x08
	propCanSetTime  = 0x10
)

// fsstat is procedure 18.
func fsstat(c *call) {
	c.object()
	var s vfs.StatFS
	if !c.statFS(&s) {
		return
	}
	for _, v := range []uint64{s.Bytes, s.BytesFree, s.BytesAvail, s.Files, s.FilesFree, s.FilesAvail} {
		c.Reply.Uint64(v)
	}
	c.Reply.Uint32(0) // invarsec: it may change at any time
}

// statFS fills s, and appends the status and the attributes. If it returns false, the reply is complete.
func (c *call) statFS(s *vfs.StatFS) bool {
	st, decoded := c.ready()
	if !decoded {
		return false
	}
	if st == ok {
		var err error
		*s, err = c.fs.StatFS(c.h)
		st = c.status(err)
	}
	if st != ok {
		c.fail(st)
		c.postAttrOf(c.h)
		return false
	}
	c.Reply.Uint32(uint32(ok))
	c.postAttrOf(c.h)
	return true
}

// fsinfo is procedure 19.
func fsinfo(c *call) {
	c.object()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok {
		st = c.status(c.fs.Attr(c.h, &c.attr))
	}
	if st != ok {
		c.fail(st)
		c.Reply.Uint32(0)
		return
	}
	c.Reply.Uint32(uint32(ok))
	putPostAttr(&c.Reply, &c.attr)
	for range 2 { // reading, then writing
		c.Reply.Uint32(ioMax) // largest
		c.Reply.Uint32(ioMax) // preferred
		c.Reply.Uint32(4096)  // multiple
	}
	c.Reply.Uint32(dirPref)
	c.Reply.Uint64(maxFile)
	c.Reply.Uint32(0) // time_delta: seconds,
	c.Reply.Uint32(1) // nanoseconds
	c.Reply.Uint32(propLink | propSymlink | propHomogeneous | propCanSetTime)
}

// pathconf is procedure 20.
func pathconf(c *call) {
	c.object()
	var s vfs.StatFS
	if !c.statFS(&s) {
		return
	}
	c.Reply.Uint32(linkMax)
	c.Reply.Uint32(s.NameMax)
	c.Reply.Uint32(1) // no_trunc: long names are errors
	c.Reply.Uint32(1) // chown_restricted
	c.Reply.Uint32(0) // case_insensitive
	c.Reply.Uint32(1) // case_preserving
}
