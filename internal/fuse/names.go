package fuse

import (
	"strings"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// isHidden reports whether name in the directory n is one that users do not see.
func (a *adapter) isHidden(n *node, name string) bool {
	return n == a.table.root && strings.HasPrefix(name, hiddenPrefix)
}

// Lookup finds a name.
func (a *adapter) Lookup(_ <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	if a.isHidden(d, name) {
		return gofuse.ENOENT
	}
	var h vfs.Handle
	var at vfs.Attr
	err := asCaller(in, func(c *vfs.Cred) (err error) {
		h, err = a.fs.Lookup(c, d.h, name, &at)
		return err
	})
	if err != nil {
		return a.inGone(d, err)
	}
	a.fillEntry(h, &at, out)
	return gofuse.OK
}

// inGone turns a stale handle of a directory that was removed here into what POSIX says of one: it is empty.
func (a *adapter) inGone(d *node, err error) gofuse.Status {
	if err == vfs.ESTALE && a.table.grave(d) != nil {
		return gofuse.ENOENT
	}
	return status(err)
}

// made answers a call that made an object.
func (a *adapter) made(d *node, m vfs.Made, err error, out *gofuse.EntryOut) gofuse.Status {
	if err != nil {
		return a.inGone(d, err)
	}
	a.fillEntry(m.Handle, &m.Attr, out)
	return gofuse.OK
}

// Mkdir makes a directory; the kernel has applied the umask.
func (a *adapter) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	m, err := a.fs.Mkdir(caller(&in.InHeader), d.h, name, &vfs.SetAttr{Valid: vfs.SetMode, Mode: in.Mode & 0o7777})
	return a.made(d, m, err, out)
}

// Mknod makes anything but directories and links, regular files too.
func (a *adapter) Mknod(_ <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	c, s := caller(&in.InHeader), vfs.SetAttr{Valid: vfs.SetMode, Mode: in.Mode & 0o7777}
	n := vfs.Node{}
	switch in.Mode &^ 0o7777 {
	case 0, vfs.Regular.Bits():
		m, err := a.fs.Create(c, d.h, name, &vfs.Create{Mode: vfs.Guarded, Attr: s})
		return a.made(d, m, err, out)
	case vfs.FIFO.Bits():
		n.Type = vfs.FIFO
	case vfs.Socket.Bits():
		n.Type = vfs.Socket
	case vfs.CharDevice.Bits():
		n.Type = vfs.CharDevice
	case vfs.BlockDevice.Bits():
		n.Type = vfs.BlockDevice
	default:
		return gofuse.EINVAL
	}
	if n.Type == vfs.CharDevice || n.Type == vfs.BlockDevice {
		n.Major, n.Minor = splitDev(in.Rdev)
	}
	m, err := a.fs.Mknod(c, d.h, name, &n, &s)
	return a.made(d, m, err, out)
}

// Symlink makes a symbolic link.
func (a *adapter) Symlink(_ <-chan struct{}, in *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	m, err := a.fs.Symlink(caller(in), d.h, name, target, &vfs.SetAttr{})
	return a.made(d, m, err, out)
}

// Link makes a further name.
func (a *adapter) Link(_ <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	n, ok := a.table.get(in.Oldnodeid)
	if !ok {
		return estale
	}
	lc, err := a.fs.Link(caller(&in.InHeader), n.h, d.h, name)
	return a.made(d, vfs.Made{Handle: n.h, Attr: lc.Attr}, err, out)
}

// Unlink removes a name, or hides it when it is the last one of an open file.
func (a *adapter) Unlink(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	c := caller(in)
	a.names.Lock()
	defer a.names.Unlock()
	v := a.victim(d, name)
	if v.last && v.open && a.hide(d, name, v.h) {
		return gofuse.OK
	}
	_, err := a.fs.Remove(c, d.h, name)
	if err == nil {
		a.lost(v)
	}
	return a.inGone(d, err)
}

// Rmdir removes a directory.
func (a *adapter) Rmdir(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	c := caller(in)
	a.names.Lock()
	defer a.names.Unlock()
	v := a.victim(d, name)
	_, err := a.fs.Rmdir(c, d.h, name)
	if err == nil {
		a.lost(v)
	}
	return a.inGone(d, err)
}

// victim is an object that is about to lose a name.
type victim struct {
	h     vfs.Handle
	at    vfs.Attr
	ok    bool // there is one
	last  bool // it is no directory and the name is its last
	known bool // the kernel knows it
	open  bool // it is open as a file
}

func (a *adapter) victim(d *node, name string) (v victim) {
	h, err := a.fs.Lookup(root(), d.h, name, &v.at)
	if err != nil {
		return v
	}
	v.h, v.ok = h, true
	v.last = v.at.Type != vfs.Directory && v.at.Nlink == 1
	v.known, v.open = a.table.inUse(h)
	return v
}

// lost notes that v has lost its name.
func (a *adapter) lost(v victim) {
	if v.ok && (v.at.Type == vfs.Directory || v.last) {
		a.table.bury(v.h, v.at)
	}
}

// hide moves the last name of an open file out of sight. The kernel has checked that the caller may remove the name; the
// move itself is made as root, for the caller need not have a right to write to the root directory.
func (a *adapter) hide(d *node, name string, h vfs.Handle) bool {
	hidden := a.table.newHidden()
	if _, err := a.fs.Rename(root(), d.h, name, a.table.root.h, hidden); err != nil {
		return false
	}
	a.table.hide(h, hidden)
	return true
}

// unhide removes a file for good once nobody uses it. A name that cannot be removed stays behind, hidden.
func (a *adapter) unhide(hidden string) {
	if hidden == "" {
		return
	}
	a.names.Lock()
	defer a.names.Unlock()
	a.fs.Remove(root(), a.table.root.h, hidden)
}

// OnUnmount removes what the kernel did not bother to forget.
func (a *adapter) OnUnmount() {
	for _, hidden := range a.table.allHidden() {
		a.unhide(hidden)
	}
}

const renameNoReplace = 1 // RENAME_NOREPLACE: the kernel has found that there is nothing to replace

// Rename moves a name. A file that it replaces gets a hidden name first when the kernel knows it, open or not: somebody
// may have looked the name up and be about to open it, and would be told that the file is stale although the name
// was there all the time. The hidden name is made by a link, so that the target's name is never missing.
func (a *adapter) Rename(_ <-chan struct{}, in *gofuse.RenameIn, from, to string) gofuse.Status {
	if in.Flags&^renameNoReplace != 0 {
		return gofuse.EINVAL
	}
	fd, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	td, ok := a.table.get(in.Newdir)
	if !ok {
		return estale
	}
	c := caller(&in.InHeader)
	a.names.Lock()
	defer a.names.Unlock()
	v := a.victim(td, to)
	hidden := ""
	if v.last && v.known {
		hidden = a.table.newHidden()
		if _, err := a.fs.Link(root(), v.h, a.table.root.h, hidden); err != nil {
			hidden = ""
		}
	}
	_, err := a.fs.Rename(c, fd.h, from, td.h, to)
	replaced := err == nil && v.ok && a.replaced(td, to, v.h)
	switch {
	case hidden != "" && replaced:
		a.table.hide(v.h, hidden)
	case hidden != "":
		a.fs.Remove(root(), a.table.root.h, hidden)
	case replaced:
		a.lost(v)
	}
	return a.inGone(td, err)
}

// replaced reports whether name leads to something else than h now. It does not after a file was renamed to itself.
func (a *adapter) replaced(d *node, name string, h vfs.Handle) bool {
	var at vfs.Attr
	now, err := a.fs.Lookup(root(), d.h, name, &at)
	return err == nil && now != h
}
