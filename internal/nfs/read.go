package nfs

import "dim/internal/vfs"

// read is procedure 6. Data goes from the tree straight to its place in the reply. The attributes are
// taken first: the size tells how much room the reply needs, whatever the client asks for.
func read(c *call) {
	c.object()
	off, count := c.Args.Uint64(), c.Args.Uint32()
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
	if c.attr.Type == vfs.Directory {
		c.readFailed(errIsDir)
		return
	}
	want := int(min(uint64(count), ioMax, uint64(c.Room())))
	if off >= c.attr.Size {
		want = 0
	} else if left := c.attr.Size - off; uint64(want) > left {
		want = int(left)
	}
	c.readInto(off, want)
}

// readInto appends the results of reading want bytes at off.
func (c *call) readInto(off uint64, want int) {
	start := c.Reply.Len()
	c.Reply.Reserve(4 + postAttr + 12 + want + 3)
	c.Reply.Uint32(uint32(ok))
	putPostAttr(&c.Reply, &c.attr)
	sizes := c.Reply.Len()
	c.Reply.Extend(12) // count, eof, length of data
	n, eof, err := c.fs.Read(&c.cred, c.h, c.Reply.Extend(want), off)
	if err != nil {
		c.Reply.Truncate(start)
		c.readFailed(c.status(err))
		return
	}
	end := uint32(0)
	if eof || off+uint64(n) >= c.attr.Size {
		end = 1
	}
	c.Reply.Truncate(sizes + 12 + n)
	c.Reply.Pad(n)
	c.Reply.PutUint32(sizes, uint32(n))
	c.Reply.PutUint32(sizes+4, end)
	c.Reply.PutUint32(sizes+8, uint32(n))
}

func (c *call) readFailed(st status) {
	c.fail(st)
	putPostAttr(&c.Reply, &c.attr)
}
