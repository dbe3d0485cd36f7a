package fuse

import (
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// Create makes a file and opens it.
func (a *adapter) Create(_ <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	d, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	how := vfs.Create{Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: in.Mode & 0o7777}}
	if in.Flags&syscall.O_EXCL != 0 {
		how.Mode = vfs.Guarded
	}
	if in.Flags&syscall.O_TRUNC != 0 {
		how.Attr.Valid |= vfs.SetSize
	}
	c := caller(&in.InHeader)
	a.names.RLock()
	defer a.names.RUnlock()
	m, err := a.fs.Create(c, d.h, name, &how)
	if err != nil {
		return a.nameStatus(d, err)
	}
	n := a.fillEntry(m.Handle, &m.Attr, &out.EntryOut)
	a.opened(n, &out.OpenOut)
	return gofuse.OK
}

// Open checks only what the kernel cannot: whether this part of the tree is writable.
func (a *adapter) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	want := uint32(vfs.AccessRead)
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		want = vfs.AccessModify
	}
	a.names.RLock()
	defer a.names.RUnlock()
	var at vfs.Attr
	granted, err := a.fs.Access(root(), n.h, want, &at)
	if err != nil {
		return status(err)
	}
	if want == vfs.AccessModify && granted == 0 {
		return gofuse.EROFS
	}
	a.opened(n, out)
	return gofuse.OK
}

func (a *adapter) opened(n *node, out *gofuse.OpenOut) {
	out.Fh = a.table.openFile(n)
	out.OpenFlags = gofuse.FOPEN_NOFLUSH // the tree has every write already
	if a.opt.Caching {
		out.OpenFlags |= gofuse.FOPEN_KEEP_CACHE
	}
}

// Release closes a file.
func (a *adapter) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	a.unhide(a.table.closeFile(in.Fh))
}

// Read reads from an open file.
func (a *adapter) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return nil, estale
	}
	buf = buf[:min(len(buf), int(in.Size))]
	got, _, err := a.fs.Read(root(), n.h, buf, in.Offset)
	if err != nil {
		return nil, status(err)
	}
	return gofuse.ReadResultData(buf[:got]), gofuse.OK
}

// Write writes as the caller, so that the tree clears setuid and setgid.
func (a *adapter) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return 0, estale
	}
	err := retryWithGroups(&in.InHeader, func(c *vfs.Cred) error {
		_, err := a.fs.Write(c, n.h, data, in.Offset, vfs.Unstable)
		return err
	})
	if err == vfs.EACCES {
		_, err = a.fs.Write(root(), n.h, data, in.Offset, vfs.Unstable)
	}
	if err != nil {
		return 0, status(err)
	}
	return uint32(len(data)), gofuse.OK
}

// Writev is for data in several pieces, which is rare.
func (a *adapter) Writev(<-chan struct{}, *gofuse.WriteIn, [][]byte) (uint32, gofuse.Status) {
	return 0, gofuse.ENOSYS
}

// Fsync makes writes durable.
func (a *adapter) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	_, err := a.fs.Commit(root(), n.h)
	if err == vfs.EROFS {
		return gofuse.OK // nothing was written
	}
	return status(err)
}

// FsyncDir does nothing: names are durable when the call that made them has returned.
func (a *adapter) FsyncDir(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status { return gofuse.OK }

// Flush does nothing.
func (a *adapter) Flush(<-chan struct{}, *gofuse.FlushIn) gofuse.Status { return gofuse.OK }
