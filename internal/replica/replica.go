package replica

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/image/pathmatch"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Replica is one node's root, or a version served read-only. It implements vfs.FS and vfs.XattrReader.
type Replica struct {
	set    *Set
	node   string
	image  string
	dir    layer.Home // its directory, from the set's; "" for a version served read-only
	tree   Tree
	keep   pathmatch.List
	shared pathmatch.List
	rules  Rules

	used     atomic.Int64 // bytes that the layer's files take in a quota
	reserved atomic.Int64 // bytes reserved for writes that are being done

	promise atomic.Uint32 // its Durability

	sweeping sync.Mutex // held while old snapshots and forgotten entries are removed

	mu            sync.RWMutex
	view          *view
	state         *state
	attached      bool // the view is that of state
	detached      bool // no call may use it any more
	recorded      bool // state is in the journal
	historyLoaded bool // history has that of state
	ready         bool // the dentries are those of the view and the layer
	scanned       bool // the layer has been read
	root          *dentry
	byLow         map[lower.Ref]*dentry // dentries by the version's entry there
	files         map[fileid.ID]*dentry // node files, and directories that exist for them
	objects       map[fileid.ID]*object // of the layer
	previous      map[fileid.ID]*object // of the layer when it was read before
	cleaned       bool                  // what a crash left in work/ was removed
	history       history
	renewed       int64 // stamp of the last Edit
	snaps         snapshotState
}

// view is what a replica shows below its layer.
type view struct {
	index *lower.Index
	files NodeFiles
}

var (
	_ vfs.FS          = (*Replica)(nil)
	_ vfs.XattrReader = (*Replica)(nil)
	_ vfs.Pather      = (*Replica)(nil)
)

// Root names the top directory.
func (r *Replica) Root() vfs.Handle { return makeHandle(r.tree, fileid.Root, nil) }

// Tree returns the part that all handles of r share.
func (r *Replica) Tree() Tree { return r.tree }

// Version returns the version that r follows.
func (r *Replica) Version() image.Version {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view.index.Version
}

// Verifier is the same for all replicas of a set. It changes when the set is opened again, and when a flush has
// failed.
func (r *Replica) Verifier() [8]byte { return *r.set.verifier.Load() }

// durability returns what r's replies promise.
func (r *Replica) durability() Durability { return max(r.set.least, Durability(r.promise.Load())) }

// rlock locks r for reading. The dentries are ready.
func (r *Replica) rlock() error {
	for {
		r.mu.RLock()
		if r.ready {
			return nil
		}
		r.mu.RUnlock()
		if err := r.lock(); err != nil {
			return r.edge(err)
		}
		r.mu.Unlock()
	}
}

// lock locks r for writing. The dentries are ready.
func (r *Replica) lock() error {
	r.mu.Lock()
	if r.ready {
		return nil
	}
	if err := r.prepare(); err != nil {
		r.mu.Unlock()
		return err
	}
	return nil
}

// edge translates an error to a vfs.Errno. It logs errors that a node cannot interpret.
func (r *Replica) edge(err error) error {
	if err == nil {
		return nil
	}
	var own vfs.Errno
	if errors.As(err, &own) {
		return own
	}
	e := vfs.ErrnoOf(err)
	if e == vfs.ENOENT || e == vfs.ENOTDIR || e == vfs.ESTALE || e == vfs.EEXIST || e == vfs.EINVAL {
		e = vfs.EIO // of the disk: the layer is not what the dentries say
	}
	if e == vfs.EIO {
		r.set.log.Error("replica call ended in an error", "replica", r.dir, "error", err)
	}
	return e
}

// resolve returns the vnode that h names, in the order of docs/formats/handle.md.
func (r *Replica) resolve(h vfs.Handle) (vnode, error) {
	t, ok := TreeOf(h)
	if !ok {
		return vnode{}, vfs.EBADHANDLE
	}
	if t != r.tree {
		return vnode{}, vfs.ESTALE
	}
	id, origin := parseHandle(&h)
	s, ok := r.byID(id)
	if !ok && r.view.index.Damage() != nil { // it may be in a directory that is lost
		return vnode{}, vfs.EIO
	}
	if !ok {
		return vnode{}, vfs.ESTALE
	}
	want := r.origin(s)
	if want == nil && len(origin) != 0 || want != nil && string(want[:]) != string(origin) {
		return vnode{}, vfs.ESTALE
	}
	return s, nil
}

func (r *Replica) byID(id fileid.ID) (vnode, bool) {
	if len(r.objects) > 0 {
		if o := r.objects[id]; o != nil {
			return vnode{at: o.names[0], obj: o, low: lower.None}, true
		}
	}
	if low, ok := r.byLowID(id); ok {
		return r.lowVnode(low), true
	}
	if p := r.files[id]; p != nil {
		if s, ok := p.vnode(); ok && s.obj == nil && (s.file != nil) == (p.file != nil) {
			return s, true
		}
	}
	if s, ok := r.history.byID(id); ok {
		return s, true
	}
	return r.set.lingering.find(r.tree, id)
}

// byLowID finds the version's entry that shows under id.
func (r *Replica) byLowID(id fileid.ID) (lower.Ref, bool) {
	id, ok := r.history.origin(id)
	if !ok {
		return lower.None, false
	}
	low, ok := r.view.index.ByID(id)
	if !ok {
		return lower.None, false
	}
	if r.visible(low) {
		return low, true
	}
	for _, other := range r.view.index.Names(low) {
		if r.visible(other) {
			return other, true
		}
	}
	return lower.None, false
}

// id returns the file id of s.
func (r *Replica) id(s vnode) fileid.ID {
	switch {
	case s.obj != nil:
		return s.obj.id
	case s.file != nil:
		return s.file.id
	case s.gone != nil:
		return s.gone.id
	case s.low != lower.None:
		return r.history.alias(r.view.index.ID(s.low))
	}
	return fileid.OfDir(s.at.path())
}

// origin returns the digest in the handle of s; nil if it has none.
func (r *Replica) origin(s vnode) *image.Digest {
	switch {
	case s.obj != nil:
		return s.obj.origin
	case s.file != nil:
		return &s.file.Digest
	case s.gone != nil:
		return s.gone.origin
	case s.low != lower.None && r.view.index.Type(s.low) == image.Regular:
		return r.view.index.Digest(s.low)
	}
	return nil
}

func (r *Replica) handle(s vnode) vfs.Handle { return makeHandle(r.tree, r.id(s), r.origin(s)) }

// path returns the path of s from the root, without a leading slash.
func (r *Replica) path(s vnode) string {
	switch {
	case s.at != nil:
		return s.at.path()
	case s.gone != nil:
		return s.gone.path
	}
	return r.view.index.Path(s.low)
}

// Path returns the path at which h shows, or showed last. It implements vfs.Pather.
func (r *Replica) Path(h vfs.Handle) (string, bool) {
	if r.rlock() != nil {
		return "", false
	}
	defer r.mu.RUnlock()
	s, err := r.resolve(h)
	if err != nil {
		return "", false
	}
	if s.at == nil && s.obj != nil && len(s.obj.names) == 0 {
		return "/" + s.obj.aside, true
	}
	return "/" + r.path(s), true
}

// Attr fills a with the attributes of h.
func (r *Replica) Attr(h vfs.Handle, a *vfs.Attr) error {
	if err := r.rlock(); err != nil {
		return err
	}
	defer r.mu.RUnlock()
	s, err := r.resolve(h)
	if err != nil {
		return err
	}
	return r.edge(r.attr(s, a))
}

// attr fills a with the attributes of s.
func (r *Replica) attr(s vnode, a *vfs.Attr) error {
	switch {
	case s.obj != nil:
		return r.objectAttr(s.obj, a)
	case s.file != nil:
		mtime := vfs.Time(s.file.Mtime)
		*a = vfs.Attr{
			Type: vfs.Regular, Mode: s.file.Mode & 0o7777, Nlink: 1, UID: s.file.UID, GID: s.file.GID,
			Size: s.file.Size, Used: (s.file.Size + 4095) &^ 4095, ID: uint64(s.file.id), Atime: mtime, Mtime: mtime,
		}
	case s.gone != nil:
		s.gone.attr(a)
	case s.low != lower.None:
		r.view.index.Attr(s.low, a)
		a.ID = uint64(r.history.alias(fileid.ID(a.ID)))
		r.countLinks(s, a)
	default:
		made := timeOf(r.history.made)
		*a = vfs.Attr{
			Type: vfs.Directory, Mode: 0o755, Nlink: 2 + r.countSubdirs(s.at), Size: lower.DirSize, Used: lower.DirSize,
			ID: uint64(fileid.OfDir(s.at.path())), Atime: made, Mtime: made,
		}
	}
	a.FSID = r.fsid()
	a.Ctime = timeOf(r.history.stamp(fileid.ID(a.ID)))
	return nil
}

func (r *Replica) fsid() uint64 {
	var n uint64
	for _, b := range r.tree {
		n = n<<8 | uint64(b)
	}
	return n
}

// countLinks corrects the link count of a version's entry: names that the replica hides do not count.
func (r *Replica) countLinks(s vnode, a *vfs.Attr) {
	switch {
	case a.Type == vfs.Directory && s.at != nil:
		a.Nlink = 2 + r.countSubdirs(s.at)
	case a.Type != vfs.Directory && a.Nlink > 1 && len(r.byLow) > 1:
		a.Nlink = 0
		for _, low := range r.view.index.Names(s.low) {
			if r.visible(low) {
				a.Nlink++
			}
		}
	}
}

func (r *Replica) objectAttr(o *object, a *vfs.Attr) error {
	var st unix.Stat_t
	if err := r.stat(o, &st); err != nil {
		return err
	}
	r.fillAttr(o, &st, a)
	return nil
}

// fillAttr fills a with the attributes of o, whose file has the status st.
func (r *Replica) fillAttr(o *object, st *unix.Stat_t, a *vfs.Attr) {
	*a = vfs.Attr{
		Type: o.kind, Mode: st.Mode & 0o7777, Nlink: uint32(len(o.names)), UID: st.Uid, GID: st.Gid,
		Size: uint64(st.Size), Used: uint64(st.Blocks) * 512, FSID: r.fsid(), ID: uint64(o.id),
		Atime: timeOf(nanos(st.Atim)), Mtime: timeOf(nanos(st.Mtim)),
	}
	if o.aside != "" {
		a.Nlink = 1 // see goneEntry.attr
	}
	switch o.kind {
	case vfs.Directory:
		a.Size, a.Used = lower.DirSize, lower.DirSize
		if a.Nlink = 2; len(o.names) > 0 {
			a.Nlink += r.countSubdirs(o.names[0])
		}
	case vfs.BlockDevice, vfs.CharDevice:
		a.Major, a.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	ctime := max(nanos(st.Ctim), o.shownCtime.Load())
	if o.id&fileid.InLayer == 0 {
		ctime = max(ctime, r.history.stamp(o.id))
	}
	a.Ctime = timeOf(ctime)
}

// brief returns the attributes of a that a Change has from before the change.
func brief(a *vfs.Attr) vfs.Brief { return vfs.Brief{Size: a.Size, Mtime: a.Mtime, Ctime: a.Ctime} }

// changed returns the Change of s. before are the attributes before the change.
func (r *Replica) changed(s vnode, before *vfs.Attr) vfs.Change {
	c := vfs.Change{Valid: true, Before: brief(before)}
	if err := r.attr(s, &c.After); err != nil {
		return vfs.Change{}
	}
	if s.obj != nil {
		r.growCtime(s.obj, &c)
	}
	return c
}

// growCtime makes sure that the ctime of o, which was changed, has grown. Kernels before 6.13 stamp two changes
// within one clock tick alike, and a client would miss the second.
func (r *Replica) growCtime(o *object, c *vfs.Change) {
	if c.Before.Ctime.Before(c.After.Ctime) {
		return
	}
	next := c.Before.Ctime.Sec*1e9 + int64(c.Before.Ctime.Nsec) + 1
	o.shownCtime.Store(next)
	c.After.Ctime = timeOf(next)
}

// unchanged returns the Change of an object that a call has not changed.
func unchanged(a *vfs.Attr) vfs.Change { return vfs.Change{Valid: true, Before: brief(a), After: *a} }
