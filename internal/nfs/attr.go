package nfs

import "dim/internal/vfs"

// getattr is procedure 1.
func getattr(c *call) {
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
		return
	}
	c.Reply.Uint32(uint32(ok))
	putAttr(c.Reply.Extend(attrSize), &c.attr)
}

// setattr is procedure 2.
func setattr(c *call) {
	c.object()
	c.setAttr()
	if c.Args.Bool() {
		c.guard = decodeTime(&c.Args)
		c.set.Guard = &c.guard
	}
	st, decoded := c.ready()
	if !decoded {
		return
	}
	var ch vfs.Change
	if st == ok {
		var err error
		ch, err = c.fs.SetAttr(&c.cred, c.h, &c.set)
		st = c.status(err)
	}
	c.changed(st, &ch)
}

// changed appends a status and the wcc_data of c.h, which are the results of several procedures.
func (c *call) changed(st status, ch *vfs.Change) {
	if st != ok {
		c.fail(st)
	} else {
		c.Reply.Uint32(uint32(ok))
	}
	c.wcc(c.h, ch)
}

// access is procedure 4.
func access(c *call) {
	c.object()
	want := c.Args.Uint32()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	var granted uint32
	if st == ok {
		var err error
		granted, err = c.fs.Access(&c.cred, c.h, want, &c.attr)
		st = c.status(err)
	}
	if st != ok {
		c.fail(st)
		c.postAttrOf(c.h)
		return
	}
	c.Reply.Uint32(uint32(ok))
	putPostAttr(&c.Reply, &c.attr)
	c.Reply.Uint32(granted)
}
