package fuse

import (
	"strings"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// isHidden reports whether name in the directory n is hidden.
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
	err := retryWithGroups(in, func(c *vfs.Cred) (err error) {
		h, err = a.fs.Lookup(c, d.h, name, &at)
		return err
	})
	if err != nil {
		return a.nameStatus(d, err)
	}
	a.fillEntry(h, &at, out)
	return gofuse.OK
}

// nameStatus returns the status of a call on a name in d. In a directory that was removed here there are no names
// (POSIX).
func (a *adapter) nameStatus(d *node, err error) gofuse.Status {
	if err == vfs.ESTALE && a.table.removedAttr(d) != nil {
		return gofuse.ENOENT
	}
	return status(err)
}

// made fills out after a call that made an object.
func (a *adapter) made(d *node, m vfs.Made, err error, out *gofuse.EntryOut) gofuse.Status {
	if err != nil {
		return a.nameStatus(d, err)
	}
	a.fillEntry(m.Handle, &m.Attr, out)
	return gofuse.OK
}

// Mkdir makes a directory. The kernel has applied the umask.
func (a *adapter) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	m, err := a.fs.Mkdir(caller(&in.InHeader), d.h, name, &vfs.SetAttr{Valid: vfs.SetMode, Mode: in.Mode & 0o7777})
	return a.made(d, m, err, out)
}

// Mknod makes a device, FIFO, socket or regular file.
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
func (a *adapter) Symlink(
	_ <-chan struct{}, in *gofuse.InHeader, target, name string, out *gofuse.EntryOut,
) gofuse.Status {
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

// Unlink removes a name, or hides it if it is the last one of an open file.
func (a *adapter) Unlink(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	c := caller(in)
	a.names.Lock()
	defer a.names.Unlock()
	v := a.removal(d, name)
	if v.last && v.open && a.hide(d, name, v.h) {
		return gofuse.OK
	}
	_, err := a.fs.Remove(c, d.h, name)
	if err == nil {
		a.markRemoved(v)
	}
	return a.nameStatus(d, err)
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
	v := a.removal(d, name)
	_, err := a.fs.Rmdir(c, d.h, name)
	if err == nil {
		a.markRemoved(v)
	}
	return a.nameStatus(d, err)
}

// removal is an object with a name that is about to be removed.
type removal struct {
	h     vfs.Handle
	at    vfs.Attr
	ok    bool // there is one
	last  bool // it is no directory, and has no other name
	known bool // the kernel refers to it
	open  bool // it is open as a file
}

func (a *adapter) removal(d *node, name string) (v removal) {
	h, err := a.fs.Lookup(root(), d.h, name, &v.at)
	if err != nil {
		return v
	}
	v.h, v.ok = h, true
	v.last = v.at.Type != vfs.Directory && v.at.Nlink == 1
	v.known, v.open = a.table.inUse(h)
	return v
}

// markRemoved keeps the attributes of v if that was its last name.
func (a *adapter) markRemoved(v removal) {
	if v.ok && (v.at.Type == vfs.Directory || v.last) {
		a.table.setRemoved(v.h, v.at)
	}
}

// hide moves the last name of an open file to a hidden one. The kernel has checked that the caller may remove the
// name. The move is made as root, because the caller may have no permission to write to the root directory.
func (a *adapter) hide(d *node, name string, h vfs.Handle) bool {
	hidden := a.table.newHidden()
	if _, err := a.fs.Rename(root(), d.h, name, a.table.root.h, hidden); err != nil {
		return false
	}
	a.table.hide(h, hidden)
	return true
}

// unhide removes the hidden name of a file that is no longer in use. A name that cannot be removed remains.
func (a *adapter) unhide(hidden string) {
	if hidden == "" {
		return
	}
	a.names.Lock()
	defer a.names.Unlock()
	a.fs.Remove(root(), a.table.root.h, hidden)
}

// OnUnmount removes the hidden names of files that the kernel did not forget.
func (a *adapter) OnUnmount() {
	for _, hidden := range a.table.allHidden() {
		a.unhide(hidden)
	}
}

const renameNoReplace = 1 // RENAME_NOREPLACE: the kernel has checked that the new name does not exist

// Rename moves a name. If the kernel refers to a file that it replaces, the file first gets a hidden name, also
// when it is not open: a process may have looked the name up and be about to open it, and would get ESTALE although
// the name existed all the time. The hidden name is made by a link, so that the new name exists at every moment.
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
	v := a.removal(td, to)
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
		a.markRemoved(v)
	}
	return a.nameStatus(td, err)
}

// replaced reports whether name is now the name of another object than h. It is not after a rename of a file to itself.
func (a *adapter) replaced(d *node, name string, h vfs.Handle) bool {
	var at vfs.Attr
	now, err := a.fs.Lookup(root(), d.h, name, &at)
	return err == nil && now != h
}
