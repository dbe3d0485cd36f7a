package nfs

import "dim/internal/vfs"

// create is procedure 8.
func create(c *call) {
	c.object()
	name := c.name()
	how := c.Args.Uint32()
	c.create = vfs.Create{Mode: vfs.CreateMode(how)}
	switch {
	case how > uint32(vfs.Exclusive):
		c.Args.Fail()
	case how == uint32(vfs.Exclusive):
		copy(c.create.Verifier[:], c.Args.Fixed(8))
	default:
		c.setAttr()
		c.create.Attr = c.set
	}
	c.newObject(name, func(name string) (vfs.Made, error) {
		return c.fs.Create(&c.cred, c.h, name, &c.create)
	})
}

// mkdir is procedure 9.
func mkdir(c *call) {
	c.object()
	name := c.name()
	c.setAttr()
	c.newObject(name, func(name string) (vfs.Made, error) {
		return c.fs.Mkdir(&c.cred, c.h, name, &c.set)
	})
}

// symlink is procedure 10.
func symlink(c *call) {
	c.object()
	name := c.name()
	c.setAttr()
	target := c.Args.Opaque(stringMax)
	c.newObject(name, func(name string) (vfs.Made, error) {
		if len(target) > targetMax {
			return vfs.Made{}, vfs.ENAMETOOLONG
		}
		return c.fs.Symlink(&c.cred, c.h, name, string(target), &c.set)
	})
}

// mknod is procedure 11.
func mknod(c *call) {
	c.object()
	name := c.name()
	node := vfs.Node{Type: vfs.Type(min(c.Args.Uint32(), 255))}
	known := true
	switch node.Type {
	case vfs.BlockDevice, vfs.CharDevice:
		c.setAttr()
		node.Major, node.Minor = c.Args.Uint32(), c.Args.Uint32()
	case vfs.Socket, vfs.FIFO:
		c.setAttr()
	default:
		known = false
	}
	if !known && c.Args.OK() {
		c.fail(errBadType)
		c.Reply.Uint32(0)
		c.Reply.Uint32(0)
		return
	}
	c.newObject(name, func(name string) (vfs.Made, error) {
		return c.fs.Mknod(&c.cred, c.h, name, &node, &c.set)
	})
}

// newObject calls f, which makes an object with that name, and appends the results of the procedures that do so.
func (c *call) newObject(name []byte, f func(name string) (vfs.Made, error)) {
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok {
		st = checkNewName(name)
	}
	var made vfs.Made
	if st == ok {
		var err error
		made, err = f(string(name))
		st = c.status(err)
	}
	if st != ok {
		c.fail(st)
		c.wcc(c.h, &made.Dir)
		return
	}
	c.Reply.Uint32(uint32(ok))
	c.Reply.Uint32(1)
	putHandle(&c.Reply, &made.Handle)
	putPostAttr(&c.Reply, &made.Attr)
	c.wcc(c.h, &made.Dir)
}

// link is procedure 15.
func link(c *call) {
	c.object()
	dir := c.handle()
	name := c.name()
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st == ok {
		st = c.sameTree(dir)
	}
	if st == ok {
		st = checkNewName(name)
	}
	var ch vfs.LinkChange
	if st == ok {
		var err error
		ch, err = c.fs.Link(&c.cred, c.h, dir, string(name))
		st = c.status(err)
	}
	if st != ok {
		c.fail(st)
		c.postAttrOf(c.h)
	} else {
		c.Reply.Uint32(uint32(ok))
		putPostAttr(&c.Reply, &ch.Attr)
	}
	c.wcc(dir, &ch.Dir)
}

// sameTree checks that h, the second handle of a call, belongs to the same tree as the first.
func (c *call) sameTree(h vfs.Handle) status {
	x, err := c.client.Find(h)
	if err != nil {
		return c.refusal(err)
	}
	if x.Done != nil {
		x.Done() // of the same tree, which is in use by this call, or of none that it uses
	}
	if x.FS != c.fs {
		return errXDev
	}
	return ok
}
