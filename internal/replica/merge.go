package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/recordmerge"
	"dim/internal/replica/fds"
	"dim/internal/replica/lower"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// file treats what the layer has at p, where no directory is: it is merged with the master's, or moved to the saved
// area.
func (a *setAsideOp) file(c *change, p *dentry) error {
	path := p.path()
	if !a.own && a.t.rules.isBackup(path) {
		return nil
	}
	format := a.t.rules.Merge[path]
	if a.own || format == "" || c.old == nil && c.new == nil {
		return a.move(p, layer.AsideEntry)
	}
	dir, err := a.r.layerDir(p.up)
	if err != nil {
		return err
	}
	defer dir.Release()
	at := layer.At(dir.FD, p.name)
	if at.MergedAt() == stampName(a.at) {
		return a.noteAgain(c, p)
	}
	m, err := a.t.mergedFile(format, c, at)
	var refused *notMergedError
	if errors.As(err, &refused) {
		return a.moveUnmerged(p, at, refused)
	}
	if err != nil {
		return fmt.Errorf("merge %s: %w", path, err)
	}
	switch {
	case a.dry:
		a.note(path, layer.AsideEntry)
		a.noteMerged(m.result.Conflicts)
		return nil
	case m.sameAs(c.new):
		return a.moveMerged(p, at, m.result.Conflicts)
	}
	if err := a.replace(p, m); err != nil {
		return err
	}
	return a.markMerged(path, m.result.Conflicts)
}

// moveMerged moves the file at p, of which the merge leaves nothing, to the saved area.
func (a *setAsideOp) moveMerged(p *dentry, at layer.Entry, conflicts []recordmerge.Conflict) error {
	if err := at.SetConflicts(conflicts); err != nil {
		return err
	}
	if err := a.move(p, layer.AsideEntry); err != nil {
		return err
	}
	a.others = true
	a.noteMerged(conflicts)
	return nil
}

// moveUnmerged moves the file at p, which could not be merged, to the saved area.
func (a *setAsideOp) moveUnmerged(p *dentry, at layer.Entry, why *notMergedError) error {
	if !a.dry {
		if err := at.DropConflicts(); err != nil { // of an attempt that was given up
			return err
		}
	}
	if err := a.move(p, layer.AsideEntry); err != nil {
		return err
	}
	a.list[len(a.list)-1].Conflicts = []recordmerge.Conflict{{Kind: recordmerge.NotMerged, Reason: why.Error()}}
	return nil
}

// noteAgain notes the merge at p, which was done before the switch was interrupted.
func (a *setAsideOp) noteAgain(c *change, p *dentry) error {
	path := p.path()
	dir, err := a.saved(parentPath(path))
	if err != nil {
		return err
	}
	a.note(path, layer.AsideEntry)
	m, err := a.t.mergedFile(a.t.rules.Merge[path], c, layer.At(dir, p.name))
	if err != nil {
		a.noteMerged(nil)
		return nil // the conflicts are not known any more
	}
	return a.markMerged(path, m.result.Conflicts)
}

// markMerged marks the file in the saved area, which was noted last, as one whose records were merged.
func (a *setAsideOp) markMerged(path string, conflicts []recordmerge.Conflict) error {
	a.noteMerged(conflicts)
	dir, err := a.saved(parentPath(path))
	if err != nil {
		return err
	}
	if err := a.r.set.failAt("in merge"); err != nil {
		return err
	}
	a.others = true
	return layer.At(dir, path[strings.LastIndexByte(path, '/')+1:]).SetConflicts(conflicts)
}

// noteMerged completes what was noted last.
func (a *setAsideOp) noteMerged(conflicts []recordmerge.Conflict) {
	noted := &a.list[len(a.list)-1]
	noted.Merged, noted.Conflicts = true, conflicts
}

// replace puts the merged file in the place of the node's, which goes to the saved area. The node's file gets its name
// there first. Then one rename replaces it in the layer, so that a crash leaves either the node's file or the merged
// one.
func (a *setAsideOp) replace(p *dentry, m *mergedFile) error {
	path := p.path()
	to, err := a.saved(parentPath(path))
	if err != nil {
		return err
	}
	from, err := a.r.layerDir(p.up)
	if err != nil {
		return err
	}
	a.sync(from)
	n := a.takePending(path, m)
	if n == nil {
		if n, err = a.pendingMerge(m); err != nil {
			return fmt.Errorf("merge %s: %w", path, err)
		}
		if a.r.durability() != Relaxed {
			err = a.r.set.commit.Stage(n.fd)
		}
	}
	if err == nil {
		err = a.quietly(from.FD, func() error { return a.swap(from.FD, p.name, to, layer.At(n.work, n.tmp)) })
	}
	if err != nil {
		n.discard()
		return fmt.Errorf("merge %s: %w", path, err)
	}
	defer unix.Close(n.fd)
	a.note(path, layer.AsideEntry)
	up, name := p.up, p.name
	a.r.moved(p, a.dir)
	obj := n.spec.object()
	a.r.attach(a.r.need(up, name, lower.Hash(name)), obj)
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return err
	}
	a.r.count(obj, layer.Occupied(&st))
	return a.syncObject(obj)
}

// swap links name, in the open directory from, into the open directory of the saved area, and renames the merged file
// to it.
func (a *setAsideOp) swap(from int, name string, saved int, merged layer.Entry) error {
	err := unix.Linkat(from, name, saved, name, 0)
	if err == unix.EEXIST { // of an attempt that was interrupted
		if err = layer.Dir(saved).RemoveAll(name); err == nil {
			err = unix.Linkat(from, name, saved, name, 0)
		}
	}
	if err == nil {
		err = a.r.set.failAt("in merge")
	}
	if err != nil {
		return err
	}
	if err = unix.Renameat(merged.FD, merged.Name, from, name); err != nil {
		unix.Unlinkat(saved, name, 0) // else the file would be in the layer and set aside
	}
	return err
}

// mergeAhead does the merges of a switch before the replica is locked, so that the switch finds their results. What the
// node writes in between is merged anew.
func (t *transition) mergeAhead() {
	if t.changes == nil {
		return
	}
	for path, format := range t.rules.Merge {
		c := t.changes.tree.find(path)
		if c == nil || c.old == nil && c.new == nil || t.hidden[path] || t.keep.Cover(path) {
			continue
		}
		dir, err := t.r.set.root.OpenDir(t.r.dir.Upper(parentPath(path)))
		if err != nil {
			continue // the layer has nothing there, or the switch reports the error
		}
		_, _ = t.mergedFile(format, c, layer.At(dir, c.name)) // an error is found again by the switch
		unix.Close(dir)
	}
}

// notMergedError tells why a file is not merged.
type notMergedError struct{ reason string }

func (e *notMergedError) Error() string { return "not merged, because " + e.reason }

// mergedFile is the node's file and the new version's as one.
type mergedFile struct {
	result *recordmerge.Result
	layer.Attrs
	xattrs []image.Xattr
}

// sameAs reports whether the merged file is the version's file e: the layer needs none. A merged file without records
// of which the version has no file is none either.
func (m *mergedFile) sameAs(e *image.Entry) bool {
	if e == nil {
		return len(m.result.Content) == 0
	}
	return m.Attrs == attrsOf(e) && e.Digest == image.Sum(m.result.Content)
}

// spec describes the merged file, as one of the layer's own.
func (m *mergedFile) spec(at int64) *objectSpec {
	now := timeOf(at)
	return &objectSpec{
		kind: vfs.Regular, mode: m.Mode, uid: m.UID, gid: m.GID, id: layer.NewID(), xattrs: m.xattrs,
		mtime: &now, atime: &now,
		fill: func(fd int) error { return sysfile.WriteAt(fd, m.result.Content, 0) },
	}
}

// mergedFile is Set.mergedFile with the records that stay the node's.
func (t *transition) mergedFile(f recordmerge.Format, c *change, own layer.Entry) (*mergedFile, error) {
	var mine []string
	if f == recordmerge.Dpkg {
		mine = t.stay.packages()
	}
	return t.r.set.mergedFile(f, c, own, mine)
}

// mergedFile merges the layer's file own with what c changes. The records with the keys in mine stay the node's. A
// *notMergedError tells that this is not possible.
func (s *Set) mergedFile(f recordmerge.Format, c *change, own layer.Entry, mine []string) (*mergedFile, error) {
	for _, e := range []*image.Entry{c.old, c.new} {
		if e != nil && e.Type != image.Regular {
			return nil, &notMergedError{"the master has no regular file there"}
		}
	}
	var st unix.Stat_t
	content, err := readOwn(own, &st)
	if err != nil {
		return nil, err
	}
	m := &mergedFile{Attrs: layer.AttrsOf(&st)}
	if m.result, err = s.mergedRecords(f, c, content, mine); err != nil {
		return nil, err
	}
	if c.new != nil {
		m.mergeAttrs(c)
	}
	return m, nil
}

// mergeAttrs decides owner, mode and extended attributes. A node cannot set extended attributes, and has lost them if
// one of its programs has written the file anew. So they are the master's, but for an ACL that does not fit the mode.
func (m *mergedFile) mergeAttrs(c *change) {
	next := attrsOf(c.new)
	if c.old == nil {
		m.Attrs = next
	} else {
		before := attrsOf(c.old)
		for _, a := range []struct {
			mine         *uint32
			before, next uint32
		}{{&m.Mode, before.Mode, next.Mode}, {&m.UID, before.UID, next.UID}, {&m.GID, before.GID, next.GID}} {
			if *a.mine == a.before || a.before != a.next {
				*a.mine = a.next
			}
		}
	}
	for _, x := range c.new.Xattrs {
		if x.Name != xattrACL || m.Mode == next.Mode {
			m.xattrs = append(m.xattrs, x)
		}
	}
}

// xattrACL is the access ACL. To set it sets the permissions of the group too.
const xattrACL = "system.posix_acl_access"

// readOwn reads the layer's file.
func readOwn(own layer.Entry, st *unix.Stat_t) ([]byte, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	if err := unix.Fstatat(own.FD, own.Name, st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if vfs.TypeOf(st.Mode) != vfs.Regular {
		return nil, &notMergedError{"the node has no regular file there"}
	}
	if st.Size > recordmerge.MaxSize {
		return nil, &notMergedError{"the node's file is " + recordmerge.ErrTooLarge.Error()}
	}
	fd, err := unix.Openat(own.FD, own.Name, flags, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), own.Name)
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, recordmerge.MaxSize+1))
}

// mergeKey identifies the merge of some bytes.
type mergeKey struct {
	format        recordmerge.Format
	old, own, new image.Digest
	mine          string
}

// mergeResult is a merge that was done, or refused.
type mergeResult struct {
	*recordmerge.Result
	err error
}

// merges has the results of merges, so that nodes that have changed a file alike cost one merge.
type merges struct {
	mu    sync.Mutex
	known map[mergeKey]mergeResult
	size  int
}

// mergesMax bounds the bytes of the results that are kept until the end of a switch.
const mergesMax = 64 << 20

func (m *merges) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known, m.size = nil, 0
}

// mergedRecords merges the records of the node's file. Those with the keys in mine stay the node's.
func (s *Set) mergedRecords(f recordmerge.Format, c *change, own []byte, mine []string) (*recordmerge.Result, error) {
	key := mergeKey{
		format: f, own: image.Sum(own), old: digestOf(c.old), new: digestOf(c.new), mine: strings.Join(mine, "\n"),
	}
	s.merges.mu.Lock()
	defer s.merges.mu.Unlock()
	r, ok := s.merges.known[key]
	if ok {
		return r.Result, r.err
	}
	old, err := s.readFile(c.old)
	if err != nil {
		return nil, err
	}
	next, err := s.readFile(c.new)
	if err != nil {
		return nil, err
	}
	size := 256
	if r.Result, err = recordmerge.Merge(f, recordmerge.Files{Old: old, Own: own, New: next, Mine: mine}); err != nil {
		r.err = &notMergedError{err.Error()}
	} else {
		size += len(r.Content) + 256*len(r.Conflicts)
	}
	if s.merges.size += size; s.merges.size > mergesMax || s.merges.known == nil {
		s.merges.known, s.merges.size = make(map[mergeKey]mergeResult), size
	}
	s.merges.known[key] = r
	return r.Result, r.err
}

func digestOf(e *image.Entry) image.Digest {
	if e == nil {
		return image.Digest{}
	}
	return e.Digest
}

// readFile reads the file of a version; nil if it has none.
func (s *Set) readFile(e *image.Entry) ([]byte, error) {
	if e == nil || e.Size == 0 {
		return nil, nil
	}
	if e.Size > recordmerge.MaxSize {
		return nil, &notMergedError{"the master's file is " + recordmerge.ErrTooLarge.Error()}
	}
	b, err := s.blob(&e.Digest)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	content := make([]byte, e.Size)
	_, err = io.ReadFull(io.NewSectionReader(fileReader{b}, 0, int64(e.Size)), content)
	return content, err
}

// fileReader makes an open file of the cache an io.ReaderAt.
type fileReader struct{ *fds.File }

// ReadAt implements io.ReaderAt.
func (f fileReader) ReadAt(p []byte, off int64) (n int, err error) {
	if n, err = f.File.ReadAt(p, off); err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}
