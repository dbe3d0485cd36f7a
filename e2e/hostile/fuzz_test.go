package hostile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dim/internal/nfs/nfsclient"
	"dim/internal/vfs"
)

// FuzzCalls makes sequences of calls by several users on objects that earlier calls found, made or removed,
// with switches between them. The server must answer each call with a defined status. Afterwards its tree must
// be consistent.
func FuzzCalls(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13"))
	f.Add([]byte{2, 0, 0, 0, 6, 0, 1, 9, 9, 2, 16, 2, 0, 0, 3, 5, 0, 2, 1, 16, 11, 0, 0, 1})
	f.Add([]byte{8, 0, 0, 4, 13, 0, 0, 0, 1, 5, 16, 12, 0, 0, 0, 16, 7, 0, 1, 0, 0, 14, 0, 2, 1, 6})
	s := newSite(f)
	tree := s.tree(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		c := &calls{site: s, tree: tree, handles: []vfs.Handle{tree.Root()}, left: program[:min(len(program), 300)]}
		for len(c.left) > 0 {
			var known vfs.Errno
			if err := c.step(); err != nil && !errors.As(err, &known) {
				t.Fatalf("after %x: %v", program[:len(program)-len(c.left)], err)
			}
		}
		checkTree(t, tree, tree.Root(), "", 0)
		s.checkOutside(t)
	})
}

// calls decodes calls from bytes.
type calls struct {
	site    *site
	tree    *nfsclient.Tree
	handles []vfs.Handle
	left    []byte
}

func (c *calls) next() int {
	if len(c.left) == 0 {
		return 0
	}
	b := c.left[0]
	c.left = c.left[1:]
	return int(b)
}

func (c *calls) handle() vfs.Handle { return c.handles[c.next()%len(c.handles)] }

func (c *calls) name() string {
	names := []string{"d", "f", "l", "h", "e", "a", "only0", "only1", "new", ".", "..", "é", "x\n", "", "a/b"}
	return names[c.next()%len(names)]
}

func (c *calls) keep(h vfs.Handle, err error) error {
	if err == nil && len(c.handles) < 64 {
		c.handles = append(c.handles, h)
	}
	return err
}

func (c *calls) step() error {
	who := &vfs.Cred{UID: uint32(c.next() % 3), GID: 1}
	set := vfs.SetAttr{Valid: uint32(c.next()) &^ (vfs.SetAtime | vfs.SetMtime), Mode: uint32(c.next()) * 2,
		Size: uint64(c.next())}
	op, h := c.next()%17, c.handle()
	if op < 9 {
		return c.look(op, who, h, &set)
	}
	return c.change(op, who, h, &set)
}

func (c *calls) look(op int, who *vfs.Cred, h vfs.Handle, set *vfs.SetAttr) (err error) {
	var a vfs.Attr
	switch op {
	case 0:
		return c.tree.Attr(h, &a)
	case 1:
		_, err = c.tree.SetAttr(who, h, set)
	case 2:
		found, err := c.tree.Lookup(who, h, c.name(), &a)
		return c.keep(found, err)
	case 3:
		_, err = c.tree.Access(who, h, uint32(c.next()), &a)
	case 4:
		_, err = c.tree.Readlink(who, h)
	case 5:
		_, _, err = c.tree.Read(who, h, make([]byte, c.next()), uint64(c.next()))
	case 6:
		_, err = c.tree.Write(who, h, make([]byte, c.next()), uint64(c.next())*1000, vfs.Stability(c.next()%3))
	case 7:
		_, err = c.tree.Commit(who, h)
	case 8:
		_, err = c.tree.ReadDir(who, h, uint64(c.next()), vfs.Plus(c.next()%2),
			func(*vfs.DirEntry) bool { return true })
	}
	return err
}

func (c *calls) change(op int, who *vfs.Cred, h vfs.Handle, set *vfs.SetAttr) (err error) {
	var m vfs.Made
	switch op {
	case 9:
		m, err = c.tree.Create(who, h, c.name(), &vfs.Create{Mode: vfs.CreateMode(c.next() % 3), Attr: *set})
		return c.keep(m.Handle, err)
	case 10:
		m, err = c.tree.Mkdir(who, h, c.name(), set)
		return c.keep(m.Handle, err)
	case 11:
		m, err = c.tree.Symlink(who, h, c.name(), c.name(), set)
		return c.keep(m.Handle, err)
	case 12:
		m, err = c.tree.Mknod(who, h, c.name(), &vfs.Node{Type: vfs.Type(c.next() % 9)}, set)
		return c.keep(m.Handle, err)
	case 13:
		_, err = c.tree.Remove(who, h, c.name())
	case 14:
		_, err = c.tree.Rmdir(who, h, c.name())
	case 15:
		_, err = c.tree.Rename(who, h, c.name(), c.handle(), c.name())
	case 16:
		if c.next()%2 == 0 {
			_, err = c.tree.Link(who, h, c.handle(), c.name())
			return err
		}
		err = c.site.flip()
	}
	return err
}

// checkTree checks that every name in a listing exists, with the attributes of the listing.
func checkTree(t *testing.T, tree *nfsclient.Tree, dir vfs.Handle, path string, depth int) {
	t.Helper()
	var below []vfs.DirEntry
	if _, err := tree.ReadDir(root, dir, 0, vfs.WithAttr, func(de *vfs.DirEntry) bool {
		if de.Name != "." && de.Name != ".." {
			below = append(below, vfs.DirEntry{Name: strings.Clone(de.Name), ID: de.ID, Handle: de.Handle})
		}
		return true
	}); err != nil {
		t.Fatalf("list /%s: %v", path, err)
	}
	for _, de := range below {
		var a vfs.Attr
		h, err := tree.Lookup(root, dir, de.Name, &a)
		if err != nil || a.ID != de.ID {
			t.Fatalf("/%s%s is listed with id %x, and is found with %x, %v", path, de.Name, de.ID, a.ID, err)
		}
		if a.Type == vfs.Directory && depth < 50 {
			checkTree(t, tree, h, fmt.Sprint(path, de.Name, "/"), depth+1)
		}
	}
}
