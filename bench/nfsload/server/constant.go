package main

import "dim/internal/vfs"

// constant is a tree in which every name exists and is a file of 1 GiB of zeros, except that names without a dot are
// directories. It does nothing but answer.
type constant struct{ vfs.FS }

const constantSize = 1 << 30

func (constant) Root() vfs.Handle {
	h, _ := vfs.MakeHandle(make([]byte, 32))
	return h
}

func (constant) Attr(_ vfs.Handle, a *vfs.Attr) error {
	*a = vfs.Attr{Type: vfs.Regular, Mode: 0o644, Nlink: 1, Size: constantSize, ID: 2, FSID: 1}
	return nil
}

func (f constant) Access(_ *vfs.Cred, h vfs.Handle, want uint32, a *vfs.Attr) (uint32, error) {
	return want, f.Attr(h, a)
}

func (f constant) Lookup(_ *vfs.Cred, dir vfs.Handle, _ string, a *vfs.Attr) (vfs.Handle, error) {
	return dir, f.Attr(dir, a)
}

func (constant) Read(_ *vfs.Cred, _ vfs.Handle, p []byte, off uint64) (int, bool, error) {
	clear(p)
	return len(p), off+uint64(len(p)) >= constantSize, nil
}
