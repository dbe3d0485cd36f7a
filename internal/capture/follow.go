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

// Touched says where a master may differ from what it was at the capture before. Paths are slash-separated, from the master's root;
// "" is the root. To name more than changed costs time; what is not named is not looked at.
type Touched struct {
	Dirs   []string // in which names came, went, or are of something that changed; or which changed themselves
	Trees  []string // of which everything below may have changed
	Inodes []uint64 // of what changed by a name that is not known
}

// Follower captures one master again and again. It keeps in memory what the last capture noted, so that one that is told
// where the master was touched costs what it finds there, and not a walk. One goroutine may use it.
type Follower struct {
	store   *store.Store
	o       Options
	notes   *notes // nil: none yet
	unsaved bool
}

// NewFollower returns a Follower of the master that o names. It does no I/O.
func NewFollower(s *store.Store, o Options) *Follower { return &Follower{store: s, o: o} }

// Capture is Run, but looks only at what was touched; nil is everything. The version is the one that Run would make, as long
// as what was not named did not change; the errors are those of Run. A file with several names that changed costs a walk.
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
		touched = f.plant(t)
	}
	r, made, err := o.capture(ctx, f.store, f.notes, touched)
	if err != nil || o.DryRun {
		return r, err
	}
	f.notes, f.unsaved = made, t != nil
	return r, nil
}

// Close keeps on disk what was noted, for the next Follower or Run. The Follower can be used again.
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

// LeavesOut reports whether nothing that happens in dir, a path below the master, shows in a capture but for its owner and mode. The
// store is to be in one of o.Own.
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

// within reports whether path is dir or below it, whatever links lead to either.
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

// errLinks tells that a file with several names changed: where its other names are, only a walk tells.
var errLinks = errors.New("a file with several names changed")

// touch is what was touched at and below a directory.
type touch struct {
	what  touched
	below map[string]*touch
}

type touched uint8

const (
	touchedBelow touched = iota // only something further down
	touchedDir
	touchedTree
)

// at returns what was touched at and below the directory called name; nil is nothing.
func (t *touch) at(name string) *touch {
	if t == nil {
		return nil
	}
	return t.below[name]
}

func (t *touch) is(what touched) bool { return t != nil && t.what == what }

// plant turns t into the way to what was touched.
func (f *Follower) plant(t *Touched) *touch {
	root := &touch{}
	for _, path := range t.Dirs {
		root.grow(path, touchedDir)
	}
	for _, path := range t.Trees {
		root.grow(path, touchedTree)
	}
	if len(t.Inodes) > 0 {
		inodes := make(map[uint64]bool, len(t.Inodes))
		for _, ino := range t.Inodes {
			inodes[ino] = true
		}
		f.notes.root.growInodes(root, "", inodes)
	}
	return root
}

func (t *touch) grow(path string, what touched) {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue // of the root's path
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

// growInodes touches every directory, d at path and below, in which one of inodes was noted.
func (d *dirNote) growInodes(root *touch, path string, inodes map[uint64]bool) {
	for i := range d.entries {
		e := &d.entries[i]
		if inodes[e.stamp.ino] {
			root.grow(path, touchedDir)
		}
		if e.child != nil {
			e.child.growInodes(root, image.JoinPath(path, e.name), inodes)
		}
	}
}

// enters reports whether the directory noted as o, which is itself as noted, has to be looked into.
func (l *lister) enters(o *note) bool { return l.d.deep || l.d.touch.at(o.name) != nil }

// pass looks only at those directories that lead to what was touched, and takes the rest for what was noted. It reports
// false when something is in the way: then the whole directory must be listed.
func (l *lister) pass() bool {
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
	l.d.same, l.d.passed = true, true
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
	l.child(at, name, &s, o, s == o.stamp && l.trusted(&s))
	return true
}
