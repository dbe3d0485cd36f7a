package nfs

import "dim/internal/vfs"

// lookup is procedure 3. The reply has the attributes of the directory also after an error, because clients decide
// by them how long the result is valid.
func lookup(c *call) {
	c.object()
	name := c.name()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok {
		st = checkName(name)
	}
	var h vfs.Handle
	if st == ok {
		var err error
		h, err = c.fs.Lookup(&c.cred, c.h, string(name), &c.attr)
		st = c.status(err)
	}
	if st != ok {
		c.fail(st)
		c.postAttrOf(c.h)
		return
	}
	c.Reply.Uint32(uint32(ok))
	putHandle(&c.Reply, &h)
	putPostAttr(&c.Reply, &c.attr)
	c.postAttrOf(c.h)
}

// readlink is procedure 5.
func readlink(c *call) {
	c.object()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	var target string
	if st == ok {
		var err error
		target, err = c.fs.Readlink(&c.cred, c.h)
		st = c.status(err)
	}
	if st != ok {
		c.fail(st)
		c.postAttrOf(c.h)
		return
	}
	c.Reply.Uint32(uint32(ok))
	c.postAttrOf(c.h)
	c.Reply.String(target)
}
