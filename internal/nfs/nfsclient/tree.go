package nfsclient

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// ioMax is the most that one READ or WRITE carries.
const ioMax = 1 << 20

// Tree is a mounted export as a vfs.FS. Errors of the server are vfs.Errno; anything else is an error of the
// connection or an RPCError.
type Tree struct {
	c        *Client
	root     vfs.Handle
	verifier atomic.Uint64
}

var _ vfs.FS = (*Tree)(nil)

// Tree mounts path.
func (c *Client) Tree(path string) (*Tree, error) {
	root, err := c.Mount(path)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	return &Tree{c: c, root: root}, nil
}

// TreeAt returns the tree whose root has handle h, which may come from another connection.
func (c *Client) TreeAt(h vfs.Handle) *Tree { return &Tree{c: c, root: h} }

// decodeResults decodes the results of a procedure that follow the status st.
type decodeResults = func(d *oncrpc.Decoder, st error)

// do calls an NFS procedure. results is called for every status.
func (t *Tree) do(proc uint32, cred *vfs.Cred, args func(*oncrpc.Encoder), results decodeResults) error {
	var status error
	call := Call{Program: ProgramNFS, Proc: proc, Cred: cred, Args: args}
	call.Results = func(d *oncrpc.Decoder) error {
		status = errnoOf(d.Uint32())
		results(d, status)
		return nil
	}
	err := t.c.Do(call)
	if err != nil {
		return err
	}
	return status
}

// Root returns the handle of the root.
func (t *Tree) Root() vfs.Handle { return t.root }

// Attr is GETATTR.
func (t *Tree) Attr(h vfs.Handle, a *vfs.Attr) error {
	return t.do(1, &vfs.Cred{}, func(e *oncrpc.Encoder) { putHandle(e, &h) }, func(d *oncrpc.Decoder, st error) {
		if st == nil {
			getAttr(d, a)
		}
	})
}

// SetAttr is SETATTR.
func (t *Tree) SetAttr(c *vfs.Cred, h vfs.Handle, s *vfs.SetAttr) (ch vfs.Change, err error) {
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &h)
		putSetAttr(e, s)
		putBool(e, s.Guard != nil)
		if s.Guard != nil {
			putTime(e, *s.Guard)
		}
	}
	err = t.do(2, c, args, func(d *oncrpc.Decoder, _ error) { ch = getChange(d) })
	return ch, err
}

// Lookup is LOOKUP.
func (t *Tree) Lookup(c *vfs.Cred, dir vfs.Handle, name string, a *vfs.Attr) (h vfs.Handle, err error) {
	var dirAttr vfs.Attr
	err = t.do(3, c, entry{&dir, name}.put, func(d *oncrpc.Decoder, st error) {
		if st == nil {
			h = getHandle(d)
			if !getPostAttr(d, a) {
				d.Fail() // the protocol allows it, but our server always returns them
			}
		}
		getPostAttr(d, &dirAttr)
	})
	return h, err
}

// Access is ACCESS.
func (t *Tree) Access(c *vfs.Cred, h vfs.Handle, want uint32, a *vfs.Attr) (granted uint32, err error) {
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &h)
		e.Uint32(want)
	}
	err = t.do(4, c, args, func(d *oncrpc.Decoder, st error) {
		getPostAttr(d, a)
		if st == nil {
			granted = d.Uint32()
		}
	})
	return granted, err
}

// Readlink is READLINK.
func (t *Tree) Readlink(c *vfs.Cred, h vfs.Handle) (target string, err error) {
	var a vfs.Attr
	err = t.do(5, c, func(e *oncrpc.Encoder) { putHandle(e, &h) }, func(d *oncrpc.Decoder, st error) {
		getPostAttr(d, &a)
		if st == nil {
			target = d.String(64 << 10)
		}
	})
	return target, err
}

// Read calls READ until p is full or the file ends.
func (t *Tree) Read(c *vfs.Cred, h vfs.Handle, p []byte, off uint64) (n int, eof bool, err error) {
	for {
		m := 0
		m, eof, err = t.ReadOnce(c, h, p[n:min(len(p), n+ioMax)], off+uint64(n))
		n += m
		if err != nil || eof || n == len(p) || m == 0 {
			return n, eof, err
		}
	}
}

// ReadOnce is one READ of at most 1 MiB. It may return fewer bytes than asked for.
func (t *Tree) ReadOnce(c *vfs.Cred, h vfs.Handle, p []byte, off uint64) (n int, eof bool, err error) {
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &h)
		e.Uint64(off)
		e.Uint32(uint32(len(p)))
	}
	var a vfs.Attr
	err = t.do(6, c, args, func(d *oncrpc.Decoder, st error) {
		getPostAttr(d, &a)
		if st != nil {
			return
		}
		count := d.Uint32()
		eof = d.Bool()
		data := d.Opaque(len(p))
		n = copy(p, data)
		if int(count) != n {
			d.Fail()
		}
	})
	return n, eof, err
}

// Write calls WRITE until all of p is written. The Change has the state before the first call and after the last one.
func (t *Tree) Write(c *vfs.Cred, h vfs.Handle, p []byte, off uint64, s vfs.Stability) (ch vfs.Change, err error) {
	for first := true; first || len(p) > 0; first = false {
		next, n, err := t.writeOnce(c, h, chunk{p[:min(len(p), ioMax)], off, s})
		if !first {
			next.Before = ch.Before
		}
		ch = next
		if err != nil {
			return ch, err
		}
		p = p[n:]
		off += uint64(n)
	}
	return ch, nil
}

// chunk is the data of one WRITE.
type chunk struct {
	p   []byte
	off uint64
	s   vfs.Stability
}

func (t *Tree) writeOnce(c *vfs.Cred, h vfs.Handle, w chunk) (ch vfs.Change, n int, err error) {
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &h)
		e.Uint64(w.off)
		e.Uint32(uint32(len(w.p)))
		e.Uint32(uint32(w.s))
		e.Opaque(w.p)
	}
	err = t.do(7, c, args, func(d *oncrpc.Decoder, st error) {
		ch = getChange(d)
		if st != nil {
			return
		}
		n = int(d.Uint32())
		committed := d.Uint32()
		t.verifier.Store(d.Uint64())
		if n > len(w.p) || n == 0 && len(w.p) > 0 || committed < uint32(w.s) {
			d.Fail()
		}
	})
	return ch, n, err
}

// Commit is COMMIT of the whole file.
func (t *Tree) Commit(c *vfs.Cred, h vfs.Handle) (ch vfs.Change, err error) {
	args := func(e *oncrpc.Encoder) {
		putHandle(e, &h)
		e.Uint64(0)
		e.Uint32(0)
	}
	err = t.do(21, c, args, func(d *oncrpc.Decoder, st error) {
		ch = getChange(d)
		if st == nil {
			t.verifier.Store(d.Uint64())
		}
	})
	return ch, err
}

// Verifier returns the verifier of the last WRITE or COMMIT, or zeros before the first.
func (t *Tree) Verifier() [8]byte {
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], t.verifier.Load())
	return v
}

// StatFS is FSSTAT and PATHCONF.
func (t *Tree) StatFS(h vfs.Handle) (s vfs.StatFS, err error) {
	var a vfs.Attr
	args := func(e *oncrpc.Encoder) { putHandle(e, &h) }
	err = t.do(18, &vfs.Cred{}, args, func(d *oncrpc.Decoder, st error) {
		getPostAttr(d, &a)
		if st != nil {
			return
		}
		for _, v := range []*uint64{&s.Bytes, &s.BytesFree, &s.BytesAvail, &s.Files, &s.FilesFree, &s.FilesAvail} {
			*v = d.Uint64()
		}
		d.Uint32() // invarsec
	})
	if err != nil {
		return s, err
	}
	err = t.do(20, &vfs.Cred{}, args, func(d *oncrpc.Decoder, st error) {
		getPostAttr(d, &a)
		if st != nil {
			return
		}
		d.Uint32() // linkmax
		s.NameMax = d.Uint32()
		d.Fixed(16) // four booleans
	})
	return s, err
}
