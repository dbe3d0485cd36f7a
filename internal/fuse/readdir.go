package fuse

import (
	"sync"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// dirStream is an open directory. It reads ahead, for the kernel asks for a page at a time, and a tree may have to do
// the work of the whole directory for each call. A seek to anywhere but the place reached, rewinddir above all, throws
// away what was read.
type dirStream struct {
	mu    sync.Mutex
	at    uint64 // the cookie before ahead[0]
	ahead []vfs.DirEntry
	end   bool // nothing follows ahead
}

const readAhead = 256

// OpenDir opens a directory for listing.
func (a *adapter) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	if _, ok := a.table.get(in.NodeId); !ok {
		return estale
	}
	out.Fh = a.table.openDir(&dirStream{})
	return gofuse.OK
}

// ReleaseDir closes a directory.
func (a *adapter) ReleaseDir(in *gofuse.ReleaseIn) { a.table.closeDir(in.Fh) }

// ReadDir lists names.
func (a *adapter) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return a.readDir(in, func(e *vfs.DirEntry) bool { return out.AddDirEntry(dirEntry(e)) })
}

// ReadDirPlus lists names and makes their nodes known.
func (a *adapter) ReadDirPlus(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return a.readDir(in, func(e *vfs.DirEntry) bool {
		entry := out.AddDirLookupEntry(dirEntry(e))
		if entry == nil {
			return false
		}
		if e.Name != "." && e.Name != ".." && !e.Handle.IsZero() { // the kernel counts no lookup of the dots
			a.fillEntry(e.Handle, &e.Attr, entry)
		}
		return true
	})
}

func dirEntry(e *vfs.DirEntry) gofuse.DirEntry {
	return gofuse.DirEntry{Mode: e.Attr.Type.Bits(), Name: e.Name, Ino: e.ID, Off: e.Cookie}
}

// readDir hands entries after in.Offset to add until it returns false.
func (a *adapter) readDir(in *gofuse.ReadIn, add func(e *vfs.DirEntry) bool) gofuse.Status {
	n, ok := a.table.get(in.NodeId)
	if !ok {
		return estale
	}
	s, ok := a.table.dir(in.Fh)
	if !ok {
		return gofuse.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Offset == 0 || in.Offset != s.at {
		s.at, s.ahead, s.end = in.Offset, nil, false
	}
	for {
		if len(s.ahead) == 0 {
			if s.end {
				return gofuse.OK
			}
			if err := a.fill(in, n, s); err != nil {
				return a.inGoneList(n, err)
			}
			continue
		}
		e := &s.ahead[0]
		if !a.isHidden(n, e.Name) && !add(e) {
			return gofuse.OK
		}
		s.at, s.ahead = e.Cookie, s.ahead[1:]
	}
}

func (a *adapter) fill(in *gofuse.ReadIn, n *node, s *dirStream) error {
	return asCaller(&in.InHeader, func(c *vfs.Cred) (err error) {
		s.ahead = make([]vfs.DirEntry, 0, 32)
		s.end, err = a.fs.ReadDir(c, n.h, s.at, vfs.WithAttr, func(e *vfs.DirEntry) bool {
			if len(s.ahead) == readAhead {
				return false
			}
			s.ahead = append(s.ahead, *e)
			return true
		})
		return err
	})
}

// inGoneList: a directory that was removed here lists as empty.
func (a *adapter) inGoneList(n *node, err error) gofuse.Status {
	if err == vfs.ESTALE && a.table.grave(n) != nil {
		return gofuse.OK
	}
	return status(err)
}
