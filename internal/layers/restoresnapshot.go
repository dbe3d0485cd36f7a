package layers

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/recordmerge"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// RestoreSnapshotOptions select a snapshot.
type RestoreSnapshotOptions struct {
	To  string // which snapshot, see findSnapshot
	Dry bool   // only tell what would be done
}

// RestoredSnapshot is what RestoreSnapshot has done.
type RestoredSnapshot struct {
	Snapshot Snapshot
	Undo     string // the stamp of the snapshot of the layer before; "" if there was no layer, and in a dry run
	Paths    []RestoredPath

	// Bytes that the disk must copy, for the undo too, while calls of the node wait. 0 if it can share blocks.
	Copies uint64

	// The version that the snapshot was taken over is no longer in the store: what the master has changed since is not
	// known.
	Unknown bool
}

// RestoredPath is a path at which RestoreSnapshot changes the layer, or leaves it although the snapshot has
// something there.
type RestoredPath struct {
	Path      string
	What      string // "restored", "set aside", "held back"
	Kind      layer.AsideKind
	Displaced bool // of what came back: the layer had something else there, which is set aside now

	// Conflicts are records of the file in the snapshot that did not come back: the file was merged with the master's.
	Conflicts []recordmerge.Conflict
}

// The snapshot's entry is in the layer again. The layer's entry, which the snapshot does not have, was set
// aside. The snapshot's entry is not restored, for the master has changed the path since.
const (
	wasRestored = "restored"
	wasSetAside = "set aside"
	wasHeldBack = "held back"
)

// RestoreSnapshot makes the layer what it was at a snapshot. What it has besides is set aside, as by Reset, and
// kept in a snapshot of its own first. If that cannot be taken nothing is done. Files that have not changed
// stay the same files. Others come back under new ids, so that processes that have the present ones open keep
// them. It returns ErrNoSnapshot if there is no such snapshot.
//
// If the replica follows another version than at the snapshot, the rules of a switch from that version hold.
func (l Layer) RestoreSnapshot(o RestoreSnapshotOptions) (*RestoredSnapshot, error) {
	e, err := l.r.Edit("restore")
	if err != nil {
		return nil, err
	}
	r, err := l.snapshotRestore(e, o.To)
	if err == nil {
		err = r.plan()
	}
	if err != nil || o.Dry || !r.changes() {
		if err = e.Cancel(err); err != nil {
			return nil, err
		}
		return &r.out, nil
	}
	if r.out.Undo, err = e.Snapshot(); err != nil {
		return nil, e.Cancel(fmt.Errorf("what the node has now cannot be kept: %w", err))
	}
	if err := e.End(r.apply()); err != nil {
		return nil, fmt.Errorf("restore layer %s: %w", l.home, err)
	}
	return &r.out, l.r.ThinSnapshots()
}

// changes reports whether anything is to be done.
func (r *snapshotRestore) changes() bool {
	return slices.ContainsFunc(r.out.Paths, func(p RestoredPath) bool { return p.What != wasHeldBack })
}

// snapshotRestore is one call of RestoreSnapshot.
type snapshotRestore struct {
	Layer
	e       *replica.Edit
	from    string                                                     // the snapshot, from the root
	changed func(path string) (c treediff.Change, shows, changed bool) // what the master has changed since the snapshot
	out     RestoredSnapshot
	there   map[string]bool // paths in the layer as it will be; whether they are directories
	planned bool            // out is complete

	names map[layer.Inode]int // of the files of the snapshot that have several links, in this snapshot alone
}

func (l Layer) snapshotRestore(e *replica.Edit, to string) (*snapshotRestore, error) {
	list, err := l.snapshots()
	if err != nil {
		return nil, err
	}
	one, err := findSnapshot(list, to)
	if err != nil {
		return nil, err
	}
	r := &snapshotRestore{Layer: l, e: e, from: l.home.Snapshots(one.ID()), there: make(map[string]bool),
		names: make(map[layer.Inode]int)}
	r.out.Snapshot = *one
	known := false
	if n := len(one.Over); n > 0 {
		r.changed, known = e.Changes(one.Over[n-1].Digest)
	}
	r.out.Unknown = !known
	return r, nil
}

// plan walks over the snapshot and then over the layer, and changes nothing.
func (r *snapshotRestore) plan() error {
	if err := r.countNames(); err != nil {
		return err
	}
	c := layer.Copy{Root: r.root, From: r.from, Choose: r.choose, Fault: r.r.Fault}
	if err := c.Run(); err != nil {
		return err
	}
	if err := r.surplus(r.e.Root()); err != nil {
		return err
	}
	if r.changes() && !r.e.SharesBlocks() {
		undo, err := r.e.SnapshotCost()
		if err != nil {
			return err
		}
		r.out.Copies = c.Copied + undo
	}
	slices.SortFunc(r.out.Paths, func(a, b RestoredPath) int { return image.ComparePaths(a.Path, b.Path) })
	r.planned = true
	return nil
}

// countNames finds the files that have several names in the snapshot. Their links say nothing about that, because
// snapshots share the files that are the same in them.
func (r *snapshotRestore) countNames() error {
	c := layer.Copy{Root: r.root, From: r.from, Fault: r.r.Fault}
	c.Choose = func(e *layer.CopyEntry) (how layer.Choice, err error) {
		if vfs.TypeOf(e.Stat.Mode) != vfs.Directory && e.Stat.Nlink > 1 {
			r.names[inodeOf(&e.Stat)]++
		}
		return how, nil
	}
	return c.Run()
}

func inodeOf(st *unix.Stat_t) layer.Inode { return layer.Inode{Dev: st.Dev, Ino: st.Ino} }

func (r *snapshotRestore) note(p RestoredPath) {
	if !r.planned {
		r.out.Paths = append(r.out.Paths, p)
	}
}

// choose decides about an entry of the snapshot.
func (r *snapshotRestore) choose(e *layer.CopyEntry) (layer.Choice, error) {
	how, held, merged, err := r.rule(e)
	if merged || err != nil {
		return how, err
	}
	for _, kind := range held {
		r.note(RestoredPath{Path: e.At, What: wasHeldBack, Kind: kind})
	}
	if how.Leave {
		return how, nil
	}
	isDir := vfs.TypeOf(e.Stat.Mode) == vfs.Directory
	r.there[e.At] = isDir
	now, ok := r.e.At(e.At)
	if isDir {
		return how, r.directory(e, held)
	}
	if layer.IsWhiteout(&e.Stat) {
		if !ok || !now.Whiteout() {
			displaced := ok && now.Kind() != 0
			r.note(RestoredPath{Path: e.At, What: wasRestored, Kind: layer.AsideRemoval, Displaced: displaced})
		}
		return how, nil
	}
	same, err := r.same(e)
	if err != nil {
		return how, err
	}
	if same {
		how.Link = func(dir int, name string) error { return link(now, dir, name) }
		return how, nil
	}
	displaced := ok && (now.Kind() != 0 || now.Whiteout())
	r.note(RestoredPath{Path: e.At, What: wasRestored, Kind: layer.AsideEntry, Displaced: displaced})
	how.Adapt = giveNewID
	return how, nil
}

// giveNewID gives a file that comes back an id that it never had: a process may have other content open under
// the old one.
func giveNewID(e layer.Entry) error {
	if err := e.DropPartOfGroup(); err != nil {
		return err
	}
	return e.SetID(layer.NewID(), nil)
}

func link(now replica.LayerEntry, dir int, name string) error {
	at, release, err := now.Open()
	if err != nil {
		return err
	}
	defer release()
	return unix.Linkat(at.FD, at.Name, dir, name, 0)
}

// directory adds a directory to the plan if it comes back, or had other attributes, or hid something else.
func (r *snapshotRestore) directory(e *layer.CopyEntry, held []layer.AsideKind) error {
	then := layer.AttrsOf(&e.Stat)
	now, ok := r.e.At(e.At)
	if !ok || now.Kind() != vfs.Directory {
		version, isDir := r.versionDir(e.At)
		switch {
		case e.At != "" && !e.Merged(e.At):
			displaced := ok && (now.Kind() != 0 || now.Whiteout())
			r.note(RestoredPath{Path: e.At, What: wasRestored, Kind: layer.AsideEntry, Displaced: displaced})
		case isDir && then != version && !slices.Contains(held, layer.AsideAttributes):
			r.note(RestoredPath{Path: e.At, What: wasRestored, Kind: layer.AsideAttributes})
		}
		return nil
	}
	if e.Opaque() && !now.Opaque() && !slices.Contains(held, layer.AsideOpaque) {
		r.note(RestoredPath{Path: e.At, What: wasRestored, Kind: layer.AsideOpaque})
	}
	var st unix.Stat_t
	if err := now.Stat(&st); err != nil {
		return err
	}
	if then != layer.AttrsOf(&st) && !slices.Contains(held, layer.AsideAttributes) {
		r.note(RestoredPath{Path: e.At, What: wasRestored, Kind: layer.AsideAttributes})
	}
	return nil
}

// versionDir returns the attributes of the version's directory at path.
func (r *snapshotRestore) versionDir(path string) (attrs layer.Attrs, ok bool) {
	var a vfs.Attr
	if !r.e.VersionEntry(path, &a) || a.Type != vfs.Directory {
		return attrs, false
	}
	return layer.Attrs{Mode: a.Mode, UID: a.UID, GID: a.GID}, true
}

// surplus adds what the layer has at entry and below, and the snapshot does not have, to the plan.
func (r *snapshotRestore) surplus(entry replica.LayerEntry) error {
	path := entry.Path()
	isDir, there := r.there[path]
	switch kind := entry.Kind(); {
	case there && !isDir:
		return nil // it is replaced
	case there || kind == 0 && !entry.Whiteout():
	case entry.Whiteout():
		r.note(RestoredPath{Path: path, What: wasSetAside, Kind: layer.AsideRemoval})
		return nil
	case kind != vfs.Directory || entry.Opaque() || entry.ID() != fileid.OfDir(path):
		r.note(RestoredPath{Path: path, What: wasSetAside, Kind: layer.AsideEntry})
		return nil
	default:
		differs, err := attrsDiffer(entry)
		if err != nil {
			return err
		}
		if differs {
			r.note(RestoredPath{Path: path, What: wasSetAside, Kind: layer.AsideAttributes})
		}
	}
	for below := range entry.Entries() {
		if err := r.surplus(below); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether the layer's file at the path of e is the same as in the snapshot. It can stay then.
func (r *snapshotRestore) same(e *layer.CopyEntry) (bool, error) {
	now, ok := r.e.At(e.At)
	if !ok || now.Kind() != vfs.TypeOf(e.Stat.Mode) {
		return false, nil
	}
	id, _, hasID, _ := e.ID(make([]byte, 64))
	at, release, err := now.Open()
	if err != nil {
		return false, err
	}
	defer release()
	var st unix.Stat_t
	if err := unix.Fstatat(at.FD, at.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	was := &e.Stat
	if (!hasID || id != now.ID()) && (st.Nlink > 1 || r.names[inodeOf(was)] > 1) {
		return false, nil // which names are one file could change
	}
	if e.CopyOf(&st) {
		return true, nil
	}
	if st.Mode != was.Mode || st.Uid != was.Uid || st.Gid != was.Gid || st.Size != was.Size || st.Mtim != was.Mtim ||
		st.Rdev != was.Rdev {
		return false, nil
	}
	if same, err := e.SameXattrs(at); !same {
		return false, err
	}
	return e.SameContent(at)
}

// apply builds the layer anew beside the present one and puts it in its place.
func (r *snapshotRestore) apply() error {
	stamp, swap := layer.StampName(r.e.Stamp()), r.e.Swap()
	built, err := swap.Begin(stamp)
	if err != nil {
		return err
	}
	clear(r.there)
	c := layer.Copy{Root: r.root, From: r.from, To: built, Choose: r.choose, Fault: r.r.Fault}
	if err = c.Run(); err == nil {
		err = r.e.SyncCopies(c.Copied)
	}
	if err == nil {
		err = r.e.Renew()
	}
	if err != nil {
		return errors.Join(err, swap.Abandon(stamp))
	}
	return swap.Do(stamp, "restore")
}
