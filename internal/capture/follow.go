package capture

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/store"
)

// Touched says where a master may differ from the previous capture. Paths are slash-separated, from the root of the
// master; "" is the root. Other directories are not read. Unchanged directories among them only cost time.
type Touched struct {
	Dirs   []string // directories that have changed, or in which a name has come, gone or changed
	Trees  []string // directories in which anything may have changed at any depth
	Inodes []uint64 // entries that have changed and whose names are not known
}

// Follower captures one master again and again. It keeps the notes of the last capture in memory. If the caller knows
// where the master was touched, a capture reads only that and does not walk the master. One goroutine may use a
// Follower.
type Follower struct {
	store   *store.Store
	o       Options
	notes   *notes // nil: none yet
	unsaved bool
}

// NewFollower returns a Follower of the master in o. It does no I/O.
func NewFollower(s *store.Store, o Options) *Follower { return &Follower{store: s, o: o} }

// Capture is Run, but reads only what was touched; nil is everything. The version is the one that Run would make if the
// rest has not changed. The errors are those of Run. If a file with several names has changed, Capture walks the
// master.
func (f *Follower) Capture(ctx context.Context, t *Touched) (Result, error) {
	r, err := f.capture(ctx, t)
	if err != nil {
		return r, fmt.Errorf("capture %s: %w", f.o.Dir, err)
	}
	return r, nil
}

func (f *Follower) capture(ctx context.Context, t *Touched) (Result, error) {
	o, err := f.o.complete()
	if err != nil {
		return Result{}, err
	}
	lock, err := f.store.Lock("capture-" + o.Image)
	if err != nil {
		return Result{}, err
	}
	defer lock.Unlock()
	var touched *touch
	if f.notes == nil || !hasVersion(f.store, o.Image, f.notes.digest) {
		f.notes = loadNotes(f.store, &o)
	} else if t != nil {
		touched = f.touchTree(t)
	}
	r, made, err := o.capture(ctx, f.store, f.notes, touched)
	if err != nil || o.DryRun {
		return r, err
	}
	f.notes, f.unsaved = made, t != nil
	return r, nil
}

// Close writes the notes to the disk, for the next Follower or Run. The Follower can be used again.
func (f *Follower) Close() error {
	if !f.unsaved {
		return nil
	}
	lock, err := f.store.Lock("capture-" + f.o.Image)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	o, err := f.o.complete()
	if err == nil {
		err = o.saveNotes(f.notes)
	}
	f.unsaved = err != nil
	return err
}

// LeavesOut reports whether changes in dir, a path below the master, have no effect on a capture, apart from its owner
// and mode. The store must be in one of o.Own.
func (o Options) LeavesOut(dir string) bool {
	match := o.Exclude.Matcher()
	for at, name := range strings.Split(dir, "/") {
		if match.Covers(name) {
			return true
		}
		if match = match.Enter(name); match.Everything() || at == 0 && systemDir(name) {
			return true
		}
	}
	return slices.ContainsFunc(o.Own, func(own string) bool { return within(own, filepath.Join(o.Dir, dir)) })
}

// within reports whether path is dir or below it, after all symlinks are resolved.
func within(dir, path string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return false
	}
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// errLinks is returned if a file with several names has changed: its other names can only be found by a walk.
var errLinks = errors.New("a file with several names changed")

// touch says what was touched in a directory and below it.
type touch struct {
	what  touched
	below map[string]*touch
}

type touched uint8

const (
	touchedBelow touched = iota // only something in its subdirectories
	touchedDir
	touchedTree
)

// at returns the touch of a subdirectory, or nil.
func (t *touch) at(name string) *touch {
	if t == nil {
		return nil
	}
	return t.below[name]
}

func (t *touch) is(what touched) bool { return t != nil && t.what == what }

// touchTree converts t to a tree of directories.
func (f *Follower) touchTree(t *Touched) *touch {
	root := &touch{}
	for _, path := range t.Dirs {
		root.add(path, touchedDir)
	}
	for _, path := range t.Trees {
		root.add(path, touchedTree)
	}
	if len(t.Inodes) > 0 {
		inodes := make(map[uint64]bool, len(t.Inodes))
		for _, ino := range t.Inodes {
			inodes[ino] = true
		}
		f.notes.root.addInodes(root, "", inodes)
	}
	return root
}

func (t *touch) add(path string, what touched) {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue // the path of the root
		}
		next := t.below[name]
		if next == nil {
			next = &touch{}
			if t.below == nil {
				t.below = map[string]*touch{}
			}
			t.below[name] = next
		}
		t = next
	}
	t.what = max(t.what, what)
}

// addInodes touches every directory, from d at path down, with a note of one of inodes.
func (d *dirNote) addInodes(root *touch, path string, inodes map[uint64]bool) {
	for i := range d.entries {
		e := &d.entries[i]
		if inodes[e.stamp.ino] {
			root.add(path, touchedDir)
		}
		if e.child != nil {
			e.child.addInodes(root, image.JoinPath(path, e.name), inodes)
		}
	}
}

// enters reports whether the unchanged directory with the note o has to be visited.
func (l *lister) enters(o *note) bool { return l.d.deep || l.d.touch.at(o.name) != nil }

// passThrough visits only those directories that lead to touched ones, and assumes that the rest equals the notes. If
// that is not possible, it returns false, and the whole directory must be listed.
func (l *lister) passThrough() bool {
	if l.d.listed {
		return false
	}
	names := len(l.d.children)
	if l.d.touch != nil {
		for name := range l.d.touch.below {
			if !l.passTo(name) {
				l.d.children = l.d.children[:names]
				return false
			}
		}
	}
	l.d.same, l.d.unlisted = true, true
	l.n = len(l.old)
	return true
}

func (l *lister) passTo(name string) bool {
	o, at := l.find(name)
	if at < 0 || o.child == nil {
		return false
	}
	var x unix.Statx_t
	if statxName(l.d.fd, name, &x) != nil {
		return false
	}
	s := l.dev.stamp(&x)
	if !s.isDir() || s.flags != o.stamp.flags || l.omitted([]byte(name), &s) {
		return false
	}
	l.child(&dir{name: name, at: at, stamp: s, known: s == o.stamp && l.trusted(&s)}, o)
	return true
}
