package nfs

import "dim/internal/vfs"

// write is procedure 7. The verifier is taken before the data is written: should the data be lost
// between, a later COMMIT shows another one and the client sends the data again.
func write(c *call) {
	c.object()
	off, count, how := c.Args.Uint64(), c.Args.Uint32(), c.Args.Uint32()
	data := c.Args.Opaque(ioMax)
	if how > uint32(vfs.FileSync) || int(count) != len(data) {
		c.Args.Fail()
	}
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok && off > maxFile-uint64(len(data)) {
		st = errFBig
	}
	var ch vfs.Change
	var verifier [8]byte
	if st == ok {
		var err error
		verifier = c.fs.Verifier()
		ch, err = c.fs.Write(&c.cred, c.h, data, off, vfs.Stability(how))
		st = c.status(err)
	}
	c.changed(st, &ch)
	if st == ok {
		c.Reply.Uint32(count)
		c.Reply.Uint32(how)
		copy(c.Reply.Extend(8), verifier[:])
	}
}

// commit is procedure 21. The verifier is taken after the sync, for the same reason. The range is not looked at:
// all of the file is made durable.
func commit(c *call) {
	c.object()
	c.Args.Uint64() // offset
	c.Args.Uint32() // count
	st, decoded := c.ready()
	if !decoded {
		return
	}
	var ch vfs.Change
	if st == ok {
		var err error
		ch, err = c.fs.Commit(&c.cred, c.h)
		st = c.status(err)
	}
	c.changed(st, &ch)
	if st == ok {
		verifier := c.fs.Verifier()
		copy(c.Reply.Extend(8), verifier[:])
	}
}
