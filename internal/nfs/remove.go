package nfs

import "dim/internal/vfs"

// remove is procedure 12.
func remove(c *call) {
	c.unlink(func(name string) (vfs.Change, error) { return c.fs.Remove(&c.cred, c.h, name) })
}

// rmdir is procedure 13.
func rmdir(c *call) {
	c.unlink(func(name string) (vfs.Change, error) { return c.fs.Rmdir(&c.cred, c.h, name) })
}

func (c *call) unlink(f func(name string) (vfs.Change, error)) {
	c.object()
	name := c.name()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok {
		st = checkOldName(name)
	}
	var ch vfs.Change
	if st == ok {
		var err error
		ch, err = f(string(name))
		st = c.status(err)
	}
	c.changed(st, &ch)
}

// rename is procedure 14.
func rename(c *call) {
	c.object()
	fromName := c.name()
	to := c.handle()
	toName := c.name()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok {
		st = c.sameTree(to)
	}
	if st == ok {
		st = checkOldName(fromName)
	}
	if st == ok {
		st = checkOldName(toName)
	}
	var ch vfs.RenameChange
	if st == ok {
		var err error
		ch, err = c.fs.Rename(&c.cred, c.h, string(fromName), to, string(toName))
		st = c.status(err)
	}
	c.changed(st, &ch.From)
	c.wcc(to, &ch.To)
}
