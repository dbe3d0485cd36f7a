package replica

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// prepare makes the dentries of r from the view and the layer. The layer is read from the disk the first time.
func (r *Replica) prepare() error {
	if r.detached {
		return vfs.ESTALE
	}
	if !r.historyLoaded {
		r.set.loadHistory(r)
		r.historyLoaded = true
	}
	old := r.root
	r.bind()
	switch {
	case r.dir == "":
	case !r.scanned:
		if err := r.scan(); err != nil {
			return err
		}
		if err := r.scanAside(); err != nil {
			return fmt.Errorf("read saved area of %s: %w", r.dir, err)
		}
		r.scanned = true
	case old != nil:
		r.rebind(old)
	}
	r.findAliases()
	r.ready = true
	return nil
}

// bind makes the dentries that the view needs, and no others.
func (r *Replica) bind() {
	r.root = newDentry(nil, "", 0)
	r.root.low = lower.Root
	r.byLow = map[lower.Ref]*dentry{lower.Root: r.root}
	r.files = make(map[fileid.ID]*dentry)
	r.bindNodeFiles()
}

// rebind takes over what the layer has at the dentries below old, the root of an earlier view.
func (r *Replica) rebind(old *dentry) {
	r.objects = make(map[fileid.ID]*object, len(r.objects))
	var seen []*object
	var take func(p, from *dentry)
	take = func(p, from *dentry) {
		p.white = from.white
		if o := from.obj; o != nil {
			if r.objects[o.id] != o {
				r.objects[o.id] = o
				o.names = o.names[:0:0]
				seen = append(seen, o)
			}
			o.names = append(o.names, p)
			p.obj = o
		}
		if p.white || p.obj != nil && (p.obj.kind != vfs.Directory || p.obj.opaque) {
			r.hide(p)
		}
		for _, k := range from.kids {
			if k.obj != nil || k.white || len(k.kids) > 0 {
				take(r.need(p, k.name, k.hash), k)
			}
		}
		r.prune(p)
	}
	take(r.root, old)
}

// scan reads the layer: its names, their ids and attributes. It removes what a crash has left in work/, and
// completes hard-link groups that were being copied up at a crash.
func (r *Replica) scan() error {
	r.history.aside = nil
	r.used.Store(0)
	r.objects = make(map[fileid.ID]*object)
	if !r.cleaned { // later it may be what a call is making
		if err := r.cleanWork(); err != nil {
			return fmt.Errorf("clean %s/work: %w", r.dir, err)
		}
		if err := r.swap().Recover(); err != nil {
			return fmt.Errorf("complete the restore of %s: %w", r.dir, err)
		}
		r.cleaned = true
	}
	fd, err := r.set.root.OpenDir(r.dir.Upper(""))
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read layer %s: %w", r.dir, err)
	}
	s := scanner{r: r, inodes: make(map[layer.Inode]*object), buf: make([]byte, 64)}
	if err := s.root(fd); err != nil {
		return fmt.Errorf("read layer %s: %w", r.dir, err)
	}
	r.previous = nil
	if err := r.completeGroups(); err != nil {
		return fmt.Errorf("complete hard links of %s: %w", r.dir, err)
	}
	return nil
}

type scanner struct {
	r      *Replica
	inodes map[layer.Inode]*object // files with several names
	buf    []byte
}

// root reads the layer from its top. It closes the open directory fd.
func (s *scanner) root(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	o := newObject(fileid.Root, vfs.Directory)
	o.mode, o.uid, o.gid = st.Mode&0o7777, st.Uid, st.Gid
	s.r.attach(s.r.root, o)
	return s.dir(s.r.root, fd)
}

// dir reads the directory at p, then those in it. It closes fd in between, so that a deep tree needs no more
// open files than a flat one.
func (s *scanner) dir(p *dentry, fd int) error {
	below, err := s.entries(p, fd)
	unix.Close(fd)
	if err != nil {
		return err
	}
	for _, k := range below {
		path := k.path()
		fd, err := s.r.set.root.OpenDir(s.r.dir.Upper(path))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := s.dir(k, fd); err != nil {
			return err
		}
	}
	return nil
}

// entries reads the open directory at p and returns the directories in it.
func (s *scanner) entries(p *dentry, fd int) (below []*dentry, err error) {
	names, err := layer.Dir(fd).Names()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.path(), err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", p.path(), name, err)
		}
		k := s.r.need(p, name, lower.Hash(name))
		if err := s.entry(k, fd, name, &st); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", p.path(), name, err)
		}
		if vfs.TypeOf(st.Mode) == vfs.Directory {
			below = append(below, k)
		}
	}
	return below, nil
}

func (s *scanner) entry(p *dentry, dir int, name string, st *unix.Stat_t) error {
	if layer.IsWhiteout(st) {
		s.r.change(p, func() { p.white = true })
		s.r.hide(p)
		return nil
	}
	o, err := s.object(p, dir, name, st)
	if err != nil {
		return err
	}
	s.r.attach(p, o)
	return nil
}

// object returns the object of an entry: a new one, or that of another name of the same inode.
func (s *scanner) object(p *dentry, dir int, name string, st *unix.Stat_t) (*object, error) {
	ino := layer.Inode{Dev: st.Dev, Ino: st.Ino}
	kind := vfs.TypeOf(st.Mode)
	several := kind != vfs.Directory && st.Nlink > 1
	if several {
		if o := s.inodes[ino]; o != nil {
			return o, nil
		}
	}
	o := newObject(0, kind)
	o.mode, o.uid, o.gid = st.Mode&0o7777, st.Uid, st.Gid
	if kind == vfs.Directory {
		o.opaque = layer.At(dir, name).OpaqueValue(s.buf) == "y"
	}
	if err := s.identify(o, p, dir, name); err != nil {
		return nil, err
	}
	if old := s.r.previous[o.id]; old != nil {
		o.shownCtime.Store(old.shownCtime.Load())
	}
	s.r.count(o, layer.Occupied(st))
	if several {
		s.inodes[ino] = o
	}
	return o, nil
}

// identify sets the id of o. An entry without an id, or with one that is taken, was made by hand and gets a new
// one. A directory that merges has the id of its path.
func (s *scanner) identify(o *object, p *dentry, dir int, name string) error {
	id, origin, ok, err := layer.At(dir, name).ID(s.buf)
	if err != nil && err != unix.ENODATA && err != unix.ERANGE {
		return err
	}
	if err == nil && ok && id > 15 && s.r.objects[id] == nil {
		o.id, o.origin = id, origin
		return nil
	}
	if o.kind == vfs.Directory && !o.opaque && p.low != lower.None && s.r.view.index.IsDir(p.low) {
		o.id, o.named = fileid.OfDir(p.path()), false
		if s.r.objects[o.id] == nil {
			return nil
		}
	}
	o.id, o.named = layer.NewID(), true
	return layer.At(dir, name).SetID(o.id, nil)
}

// attach makes o the layer's object at p.
func (r *Replica) attach(p *dentry, o *object) {
	r.change(p, func() {
		p.white = false
		p.obj = o
	})
	o.names = append(o.names, p)
	r.objects[o.id] = o
	if o.kind != vfs.Directory || o.opaque {
		r.hide(p)
	}
}

// cleanWork removes what a crash has left in work/.
func (r *Replica) cleanWork() error {
	w, err := r.workDir()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Release()
	names, err := layer.Dir(w.FD).Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := layer.Dir(w.FD).RemoveAll(n); err != nil {
			return err
		}
	}
	return nil
}

// completeGroups gives the copied-up files of hard-link groups their missing names.
func (r *Replica) completeGroups() error {
	for id, o := range r.objects {
		if id&fileid.InLayer != 0 {
			continue
		}
		low, ok := r.view.index.ByID(id)
		if !ok || r.view.index.Names(low) == nil {
			continue
		}
		if err := r.completeGroup(o, low); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) completeGroup(o *object, low lower.Ref) error {
	d, name, err := r.where(o)
	if err != nil {
		return err
	}
	incomplete := layer.At(d.FD, name).PartOfGroup()
	d.Release()
	if !incomplete {
		return nil
	}
	op := op{r: r}
	defer op.release()
	return op.linkGroup(o, low)
}
