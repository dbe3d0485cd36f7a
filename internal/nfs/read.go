package nfs

import (
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// read is procedure 6. The tree writes the data into the reply, or the data goes from a file to the socket. The
// attributes are read first, because the size of the file limits the room that the reply needs.
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
	if want < oncrpc.SpliceMin || !c.share(off, want) {
		c.readInto(off, want)
	}
}

// share appends the results of a read of want bytes at off without a copy of the data, from a file whose bytes never
// change. It returns false if that is not possible.
func (c *call) share(off uint64, want int) bool {
	fs, ok := c.fs.(vfs.Sharer)
	if !ok {
		return false
	}
	file, ok := fs.Share(&c.cred, c.h)
	if !ok {
		return false
	}
	ok = c.Splice(file.Descriptor(), int64(off), want)
	file.Release()
	if ok {
		c.readHead(off, want)
	}
	return ok
}

// readHead appends the results that precede n bytes of data that were read at off.
func (c *call) readHead(off uint64, n int) {
	end := uint32(0)
	if off+uint64(n) >= c.attr.Size {
		end = 1
	}
	c.Reply.Uint32(uint32(ok))
	putPostAttr(&c.Reply, &c.attr)
	c.Reply.Uint32(uint32(n))
	c.Reply.Uint32(end)
	c.Reply.Uint32(uint32(n))
}

// readInto appends the results of a read of want bytes at off.
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
