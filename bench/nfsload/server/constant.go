package main

import (
	"fmt"

	"dim/internal/vfs"
)

// constant is a tree in which every name exists and is a file of 1 GiB of zeros, except that names without a dot are
// directories. Changes are answered as if they had been made. It does nothing but answer.
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

// constantNames is how many names a directory lists: the average of an installation.
const constantNames = 13

func (f constant) ReadDir(_ *vfs.Cred, _ vfs.Handle, cookie uint64, _ vfs.Plus,
	yield func(*vfs.DirEntry) bool) (bool, error) {
	de := vfs.DirEntry{Handle: f.Root()}
	if err := f.Attr(de.Handle, &de.Attr); err != nil {
		return false, err
	}
	for i := cookie; i < constantNames; i++ {
		de.Name, de.ID, de.Cookie = fmt.Sprintf("file-%d.bin", i), i+2, i+1
		if !yield(&de) {
			return false, nil
		}
	}
	return true, nil
}

func (f constant) change() (ch vfs.Change) {
	ch.Valid = true
	_ = f.Attr(vfs.Handle{}, &ch.After) // which never fails
	return ch
}

func (f constant) made() (vfs.Made, error) {
	ch := f.change()
	return vfs.Made{Handle: f.Root(), Attr: ch.After, Dir: ch}, nil
}

func (f constant) Create(*vfs.Cred, vfs.Handle, string, *vfs.Create) (vfs.Made, error) {
	return f.made()
}

func (f constant) Mkdir(*vfs.Cred, vfs.Handle, string, *vfs.SetAttr) (vfs.Made, error) {
	return f.made()
}

func (f constant) Write(*vfs.Cred, vfs.Handle, []byte, uint64, vfs.Stability) (vfs.Change, error) {
	return f.change(), nil
}

func (f constant) Commit(*vfs.Cred, vfs.Handle) (vfs.Change, error) { return f.change(), nil }

func (constant) Verifier() [8]byte { return [8]byte{1} }

func (f constant) Remove(*vfs.Cred, vfs.Handle, string) (vfs.Change, error) { return f.change(), nil }

func (f constant) Rename(*vfs.Cred, vfs.Handle, string, vfs.Handle, string) (vfs.RenameChange, error) {
	ch := f.change()
	return vfs.RenameChange{From: ch, To: ch}, nil
}
