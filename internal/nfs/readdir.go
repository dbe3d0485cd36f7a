package nfs

import (
	"encoding/binary"

	"dim/internal/vfs"
)

// listing is a READDIR or READDIRPLUS reply that is being made.
type listing struct {
	c     *call
	plus  bool
	limit int // length that the reply must not exceed
	names int // bytes left for file ids, names and cookies (dircount)
	count int
	full  bool
	yield func(*vfs.DirEntry) bool // l.add, kept from call to call
}

const (
	listEnd   = 8             // bytes after the entries: end of list, eof
	entrySize = 4 + 8 + 4 + 8 // bytes of an entry without its name: value follows, file id, length of the name, cookie
	entryPlus = entrySize + postAttr + 4 + 4
	listMax   = 256 << 10 // bytes of a reply, four times what FSINFO recommends
)

// readdir is procedure 16. count bounds the whole READDIR3resok.
func readdir(c *call) {
	c.object()
	cookie := c.Args.Uint64()
	c.Args.Uint64() // the verifier
	count := c.Args.Uint32()
	c.readDir(cookie, count, count, vfs.NamesOnly)
}

// readdirplus is procedure 17. dircount bounds file ids, names and cookies, maxcount the whole READDIRPLUS3resok.
func readdirplus(c *call) {
	c.object()
	cookie := c.Args.Uint64()
	c.Args.Uint64() // the verifier
	dircount, maxcount := c.Args.Uint32(), c.Args.Uint32()
	c.readDir(cookie, dircount, maxcount, vfs.WithAttr)
}

func (c *call) readDir(cookie uint64, dircount, maxcount uint32, plus vfs.Plus) {
	st, decoded := c.ready()
	if !decoded {
		return
	}
	if st != ok {
		c.fail(st)
		c.Reply.Uint32(0)
		return
	}
	start := c.Reply.Len()
	c.Reply.Uint32(uint32(ok))
	l := &c.list
	if l.yield == nil {
		l.yield = l.add
	}
	l.c, l.plus, l.count, l.full = c, plus == vfs.WithAttr, 0, false
	l.names = int(min(dircount, listMax))
	l.limit = c.Reply.Len() + int(min(maxcount, listMax)) - listEnd
	c.postAttrOf(c.h)
	c.Reply.Uint64(0) // the verifier
	end, err := c.fs.ReadDir(&c.cred, c.h, cookie, plus, l.yield)
	st = c.status(err)
	if st == ok && l.count == 0 && (l.full || c.Reply.Len() > l.limit) {
		st = errTooSmall
	}
	if st != ok {
		c.Reply.Truncate(start)
		c.fail(st)
		c.postAttrOf(c.h)
		return
	}
	c.Reply.Uint32(0) // no more entries
	putBool(&c.Reply, end && !l.full)
}

// add appends an entry if it fits.
func (l *listing) add(de *vfs.DirEntry) bool {
	e := &l.c.Reply
	padded := (len(de.Name) + 3) &^ 3
	size, names := entrySize+padded, entrySize-4+padded
	if l.plus {
		size = entryPlus + padded + (len(de.Handle.Bytes())+3)&^3
	} else {
		names = 0 // count is the limit on everything
	}
	// dircount alone never excludes the first entry. Otherwise the client could not continue.
	if e.Len()+size > l.limit || names > l.names && l.count > 0 {
		l.full = true
		return false
	}
	l.names -= names
	l.count++
	p := e.Extend(16)
	binary.BigEndian.PutUint32(p, 1)
	binary.BigEndian.PutUint64(p[4:], de.ID)
	binary.BigEndian.PutUint32(p[12:], uint32(len(de.Name)))
	tail := e.Extend(padded + 8)
	copy(tail, de.Name)
	clear(tail[len(de.Name):padded])
	binary.BigEndian.PutUint64(tail[padded:], de.Cookie)
	if l.plus {
		l.addPlus(de)
	}
	return true
}

// addPlus appends the attributes and the handle, or neither if the tree returned no handle.
func (l *listing) addPlus(de *vfs.DirEntry) {
	e := &l.c.Reply
	if de.Handle.IsZero() {
		e.Uint32(0)
		e.Uint32(0)
		return
	}
	putPostAttr(e, &de.Attr)
	e.Uint32(1)
	putHandle(e, &de.Handle)
}
