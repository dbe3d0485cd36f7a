package nfsclient

import (
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// Create is CREATE.
func (t *Tree) Create(c *vfs.Cred, dir vfs.Handle, name string, how *vfs.Create) (vfs.Made, error) {
	return t.create(8, c, entry{&dir, name}, func(e *oncrpc.Encoder) {
		e.Uint32(uint32(how.Mode))
		if how.Mode == vfs.Exclusive {
			copy(e.Extend(8), how.Verifier[:])
			return
		}
		putSetAttr(e, &how.Attr)
	})
}

// Mkdir is MKDIR.
func (t *Tree) Mkdir(c *vfs.Cred, dir vfs.Handle, name string, s *vfs.SetAttr) (vfs.Made, error) {
	return t.create(9, c, entry{&dir, name}, func(e *oncrpc.Encoder) { putSetAttr(e, s) })
}

// Symlink is SYMLINK.
func (t *Tree) Symlink(c *vfs.Cred, dir vfs.Handle, name, target string, s *vfs.SetAttr) (vfs.Made, error) {
	return t.create(10, c, entry{&dir, name}, func(e *oncrpc.Encoder) {
		putSetAttr(e, s)
		e.String(target)
	})
}

// Mknod is MKNOD.
func (t *Tree) Mknod(c *vfs.Cred, dir vfs.Handle, name string, n *vfs.Node, s *vfs.SetAttr) (vfs.Made, error) {
	return t.create(11, c, entry{&dir, name}, func(e *oncrpc.Encoder) {
		e.Uint32(uint32(n.Type))
		switch n.Type {
		case vfs.CharDevice, vfs.BlockDevice:
			putSetAttr(e, s)
			e.Uint32(n.Major)
			e.Uint32(n.Minor)
		case vfs.Socket, vfs.FIFO:
			putSetAttr(e, s)
		}
	})
}

// entry is a diropargs3: a name in a directory.
type entry struct {
	dir  *vfs.Handle
	name string
}

func (n entry) put(e *oncrpc.Encoder) {
	putHandle(e, n.dir)
	e.String(n.name)
}

// create calls a procedure that makes an object. If the server returns no handle or no attributes, create looks
// them up.
func (t *Tree) create(proc uint32, c *vfs.Cred, at entry, args func(*oncrpc.Encoder)) (m vfs.Made, err error) {
	whole := true
	err = t.do(proc, c, func(e *oncrpc.Encoder) {
		at.put(e)
		args(e)
	}, func(d *oncrpc.Decoder, st error) {
		if st == nil {
			if whole = d.Bool(); whole {
				m.Handle = getHandle(d)
			}
			whole = getPostAttr(d, &m.Attr) && whole
		}
		m.Dir = getChange(d)
	})
	if err == nil && !whole {
		m.Handle, err = t.Lookup(c, *at.dir, at.name, &m.Attr)
	}
	return m, err
}

// Link is LINK.
func (t *Tree) Link(c *vfs.Cred, h vfs.Handle, dir vfs.Handle, name string) (ch vfs.LinkChange, err error) {
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &h)
		entry{&dir, name}.put(e)
	}
	err = t.do(15, c, args, func(d *oncrpc.Decoder, _ error) {
		getPostAttr(d, &ch.Attr)
		ch.Dir = getChange(d)
	})
	return ch, err
}

// Remove is REMOVE.
func (t *Tree) Remove(c *vfs.Cred, dir vfs.Handle, name string) (ch vfs.Change, err error) {
	err = t.do(12, c, entry{&dir, name}.put, func(d *oncrpc.Decoder, _ error) { ch = getChange(d) })
	return ch, err
}

// Rmdir is RMDIR.
func (t *Tree) Rmdir(c *vfs.Cred, dir vfs.Handle, name string) (ch vfs.Change, err error) {
	err = t.do(13, c, entry{&dir, name}.put, func(d *oncrpc.Decoder, _ error) { ch = getChange(d) })
	return ch, err
}

// Rename is RENAME.
func (t *Tree) Rename(
	c *vfs.Cred, from vfs.Handle, fromName string, to vfs.Handle, toName string,
) (ch vfs.RenameChange, err error) {
	args := func(e *oncrpc.Encoder) {
		entry{&from, fromName}.put(e)
		entry{&to, toName}.put(e)
	}
	err = t.do(14, c, args, func(d *oncrpc.Decoder, _ error) {
		ch.From = getChange(d)
		ch.To = getChange(d)
	})
	return ch, err
}

// ReadDir is READDIR or READDIRPLUS, page by page.
func (t *Tree) ReadDir(
	c *vfs.Cred, dir vfs.Handle, cookie uint64, plus vfs.Plus, yield func(*vfs.DirEntry) bool,
) (bool, error) {
	var page []vfs.DirEntry
	var verifier uint64
	for {
		page = page[:0]
		next := Page{Cookie: cookie, Verifier: &verifier, Size: 64 << 10, Plus: plus}
		eof, err := t.ReadDirPage(c, dir, next, &page)
		if err != nil {
			return false, err
		}
		for i := range page {
			de := &page[i]
			if plus == vfs.WithAttr && de.Handle.IsZero() {
				if de.Handle, err = t.Lookup(c, dir, de.Name, &de.Attr); err != nil {
					continue // it was removed since
				}
			}
			if !yield(de) {
				return false, nil
			}
			cookie = de.Cookie
		}
		if eof {
			return true, nil
		}
	}
}

// Page is what ReadDirPage asks for.
type Page struct {
	Cookie   uint64
	Verifier *uint64 // sent, and set to the verifier of the reply; nil: 0 is sent
	Size     uint32  // the limit on the reply
	Names    uint32  // the limit on names (dircount); 0 is Size
	Plus     vfs.Plus
}

// ReadDirPage is one READDIR or READDIRPLUS. It appends the entries to page.
func (t *Tree) ReadDirPage(c *vfs.Cred, dir vfs.Handle, p Page, page *[]vfs.DirEntry) (eof bool, err error) {
	if p.Verifier == nil {
		p.Verifier = new(uint64)
	}
	if p.Names == 0 {
		p.Names = p.Size
	}
	proc := uint32(16)
	if p.Plus == vfs.WithAttr {
		proc = 17
	}
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &dir)
		e.Uint64(p.Cookie)
		e.Uint64(*p.Verifier)
		if p.Plus == vfs.WithAttr {
			e.Uint32(p.Names)
		}
		e.Uint32(p.Size)
	}
	var a vfs.Attr
	err = t.do(proc, c, args, func(d *oncrpc.Decoder, st error) {
		getPostAttr(d, &a)
		if st != nil {
			return
		}
		*p.Verifier = d.Uint64()
		for d.Bool() {
			*page = append(*page, getEntry(d, p.Plus))
		}
		eof = d.Bool()
	})
	return eof, err
}

func getEntry(d *oncrpc.Decoder, plus vfs.Plus) (de vfs.DirEntry) {
	de.ID = d.Uint64()
	de.Name = d.String(64 << 10)
	de.Cookie = d.Uint64()
	if plus == vfs.WithAttr {
		attr := getPostAttr(d, &de.Attr)
		if d.Bool() {
			de.Handle = getHandle(d)
		}
		if !attr {
			de.Handle = vfs.Handle{}
		}
	}
	return de
}
