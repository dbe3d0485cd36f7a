package fuse

import (
	"sync"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// dirStream is an open directory. It reads ahead, because the kernel requests a page at a time, and for each call a
// tree may have to read the whole directory. A seek, such as rewinddir, discards the entries that were read ahead.
type dirStream struct {
	mu    sync.Mutex
	at    uint64 // the cookie that precedes ahead[0]
	ahead []vfs.DirEntry
	end   bool // no entry follows those in ahead
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

// ReadDirPlus lists names, and counts a lookup of each.
func (a *adapter) ReadDirPlus(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return a.readDir(in, func(e *vfs.DirEntry) bool {
		entry := out.AddDirLookupEntry(dirEntry(e))
		if entry == nil {
			return false
		}
		if e.Name != "." && e.Name != ".." && !e.Handle.IsZero() { // the kernel counts no lookup of these two
			a.fillEntry(e.Handle, &e.Attr, entry)
		}
		return true
	})
}

func dirEntry(e *vfs.DirEntry) gofuse.DirEntry {
	return gofuse.DirEntry{Mode: e.Attr.Type.Bits(), Name: e.Name, Ino: e.ID, Off: e.Cookie}
}

// readDir calls add for the entries after in.Offset until it returns false.
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
				return a.listStatus(n, err)
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
	return retryWithGroups(&in.InHeader, func(c *vfs.Cred) (err error) {
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

// listStatus returns the status of a listing. A directory that was removed here is empty.
func (a *adapter) listStatus(n *node, err error) gofuse.Status {
	if err == vfs.ESTALE && a.table.removedAttr(n) != nil {
		return gofuse.OK
	}
	return status(err)
}
