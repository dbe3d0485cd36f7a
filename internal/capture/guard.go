package capture

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/capture/mounts"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/quantity"
	"dim/internal/store"
)

// fileSystems says which file systems a master consists of. Those of the last capture are kept in a file beside the
// notes. The file is used only on this machine and can be deleted: then the next capture does not recognize what was a
// mount point at this one.
type fileSystems struct {
	Format int               `json:"format"`
	Disk   string            `json:"disk"`   // identifies the file system of the root
	Mounts map[string]string `json:"mounts"` // kinds of file systems by mount point
}

const fileSystemsFormat = 1

func (o *Options) fileSystemsPath() string {
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%s.mounts", o.Image, image.Sum([]byte(o.Master)).Short()))
}

// loadFileSystems returns the file systems at the last capture, or none.
func (o *Options) loadFileSystems() *fileSystems {
	found := &fileSystems{}
	if o.CacheDir == "" {
		return found
	}
	b, err := os.ReadFile(o.fileSystemsPath())
	if err == nil {
		err = json.Unmarshal(b, found)
	}
	if err == nil && found.Format == fileSystemsFormat {
		return found
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("mount points of the previous capture are not known", "file", o.fileSystemsPath(), "error", err)
	}
	return &fileSystems{}
}

// saveFileSystems keeps found for the next capture, unless last is the same.
func (o *Options) saveFileSystems(found, last *fileSystems) {
	if found == nil || o.CacheDir == "" || o.DryRun {
		return
	}
	if found.Disk == last.Disk && maps.Equal(found.Mounts, last.Mounts) {
		return
	}
	b, err := json.Marshal(found)
	if err == nil {
		err = durable.WriteFile(o.fileSystemsPath(), append(b, '\n'), 0o600)
	}
	if err != nil {
		o.Log.Warn("mount points cannot be kept for the next capture", "image", o.Image, "error", err)
	}
}

// fileSystems returns the file systems of the master that was scanned.
func (c *scan) fileSystems(made *notes) *fileSystems {
	found := &fileSystems{Format: fileSystemsFormat, Disk: fmt.Sprintf("%x", c.fsid), Mounts: map[string]string{}}
	points := made.root.mountPoints("", nil)
	if len(points) == 0 {
		return found
	}
	var kinds map[string]string
	root, err := filepath.EvalSymlinks(c.o.Dir)
	if err == nil {
		var text []byte
		if text, err = os.ReadFile("/proc/self/mountinfo"); err == nil {
			kinds, err = mounts.Parse(string(text), root)
		}
	}
	if err != nil {
		c.o.Log.Warn("kinds of mounted file systems are not known", "image", c.o.Image, "error", err)
	}
	for _, path := range points {
		found.Mounts[path] = cmp.Or(kinds[path], c.kindOutsideTable(path))
	}
	return found
}

// unmountedKind is the kind of a file system of which nothing is known: it is not in the table of mounts any more.
const unmountedKind = "something"

// kindOutsideTable returns what was found at a path instead of a directory of the master, if the table of mounts does
// not have it.
func (c *scan) kindOutsideTable(path string) string {
	var x unix.Statx_t
	name := filepath.Join(c.o.Dir, path)
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statxMask, &x)
	if err == nil && c.dev.btrfs && x.Ino == emptySubvolume && !c.dev.otherMount(&x) {
		return emptySubvolumeKind
	}
	return unmountedKind
}

// mountText says what is at a mount point, of which the kind is given.
func mountText(kind string) string {
	switch kind {
	case emptySubvolumeKind:
		return "in the place of a btrfs subvolume a snapshot has an empty directory"
	case unmountedKind:
		return "something was mounted there when the capture began"
	}
	return kind + " is mounted there"
}

var (
	// runningDirs are the directories of a running system. They are left out from every master.
	runningDirs = []string{"proc", "sys", "dev", "run"}
	// mountingDirs are those on which programs mount something while somebody works in the master.
	mountingDirs = []string{"tmp", "proc", "sys", "dev", "run"}
	// emptiedDirs are those that programs empty.
	emptiedDirs = []string{"tmp", "run", "var/tmp", "var/run", "var/cache", "var/lib/apt/lists"}
)

// leftOut returns a Problem for each mount point outside of runningDirs.
func (f *fileSystems) leftOut() (list []Problem) {
	for _, path := range slices.Sorted(maps.Keys(f.Mounts)) {
		if !coveredBy(path, runningDirs...) {
			err := errors.New(mountText(f.Mounts[path]))
			list = append(list, Problem{Path: path, Kind: LeftOut, Err: err})
		}
	}
	return list
}

// coveredBy reports whether path is one of dirs or below one.
func coveredBy(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// HeldError is returned if directories of the master look as if a file system had been mounted or unmounted by
// accident. No version was made. Options.Accept with the paths makes it.
type HeldError struct{ Problems []Problem }

// Error names the paths.
func (e *HeldError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "no version is made: " + strings.Join(lines, "; ")
}

// guard finds directories that look as if a file system had been mounted or unmounted by accident.
type guard struct {
	ctx    context.Context
	store  *store.Store
	o      *Options
	r      *Result
	last   *fileSystems // of the capture before
	now    *fileSystems
	before string // the version before, for people
	held   []Problem
}

// guard returns what a person must confirm before the version of r is made. It cannot find everything if the version
// before is damaged.
func (o *Options) guard(
	ctx context.Context, s *store.Store, r *Result, systems [2]*fileSystems,
) []Problem {
	last, now := systems[0], systems[1]
	if now == nil || r.Before.Number == 0 || slices.Contains(o.accepted(), "") {
		return nil
	}
	g := &guard{ctx: ctx, store: s, o: o, r: r, last: last, now: now, before: r.Before.Ref().String()}
	if last.Disk != "" && last.Disk != now.Disk && 2*r.Removed > r.Before.Files {
		g.hold("", OtherDisk, fmt.Errorf("%s of the %s names of %s are gone",
			quantity.Count(r.Removed), quantity.Count(r.Before.Files), g.before))
	}
	for _, check := range []func() error{g.covered, g.uncovered, g.emptied} {
		if err := check(); err != nil {
			o.Log.Warn("mount points cannot be checked", "version", g.before, "error", err)
		}
	}
	// What is held, or was accepted, explains the loss.
	if len(g.held)+len(o.Accept) == 0 && r.Before.Files >= largeNames && 2*r.Version.Files < r.Before.Files {
		g.hold("", Shrunk, fmt.Errorf("%s has %s, and now there are %d",
			g.before, quantity.Plural(int(r.Before.Files), "name"), r.Version.Files))
	}
	return g.held
}

// accepted returns the paths of Options.Accept from the root of the master; "" is the root.
func (o *Options) accepted() (list []string) {
	for _, path := range o.Accept {
		list = append(list, strings.Trim(path, "/"))
	}
	return list
}

func (g *guard) hold(path string, kind ProblemKind, err error) {
	if !coveredBy(path, g.o.accepted()...) {
		g.held = append(g.held, Problem{Path: path, Kind: kind, Err: err})
	}
}

// covered finds directories with content in the version before that are mount points now. A mount on one of
// mountingDirs is no accident.
func (g *guard) covered() error {
	for _, path := range slices.Sorted(maps.Keys(g.now.Mounts)) {
		old, err := g.find(g.r.Before.Root, path)
		if err != nil {
			return err
		}
		if old == nil || coveredBy(path, mountingDirs...) {
			continue
		}
		names, bytes, err := g.count(old)
		if err != nil {
			return err
		}
		if names > 0 || bytes > 0 {
			g.hold(path, Covered, fmt.Errorf("%s, so nodes would lose what %s has there: %s",
				mountText(g.now.Mounts[path]), g.before, sizeText(names, bytes)))
		}
	}
	return nil
}

// uncovered finds directories that were mount points at the last capture and now have content of their own.
func (g *guard) uncovered() error {
	for _, path := range slices.Sorted(maps.Keys(g.last.Mounts)) {
		if _, still := g.now.Mounts[path]; still || coveredBy(path, mountingDirs...) {
			continue
		}
		now, err := g.find(g.r.Version.Root, path)
		if err != nil {
			return err
		}
		old, err := g.find(g.r.Before.Root, path)
		if err != nil {
			return err
		}
		if now == nil || old != nil && old.Digest == now.Digest {
			continue
		}
		names, bytes, err := g.count(now)
		if err != nil {
			return err
		}
		if names > 0 || bytes > 0 {
			g.hold(path, Uncovered, fmt.Errorf("%s was mounted there at the last capture; nodes would get what was "+
				"under it: %s", g.last.Mounts[path], sizeText(names, bytes)))
		}
	}
	return nil
}

// emptied finds large directories that have lost everything.
func (g *guard) emptied() error { return g.emptiedIn("", &g.r.Before.Root, &g.r.Version.Root) }

func (g *guard) emptiedIn(path string, old, now *image.Entry) error {
	if old.Digest == now.Digest || coveredBy(path, emptiedDirs...) {
		return nil
	}
	if _, mounted := g.now.Mounts[path]; mounted {
		return nil // see covered
	}
	before, err := g.store.Tree(old.Digest)
	if err != nil {
		return err
	}
	after, err := g.store.Tree(now.Digest)
	if err != nil {
		return err
	}
	if len(after) == 0 {
		return g.emptiedDir(path, old, before)
	}
	for i := range after {
		e, ok := before.Lookup(after[i].Name)
		if ok && e.Type == image.Directory && after[i].Type == image.Directory {
			if err := g.emptiedIn(image.JoinPath(path, e.Name), e, &after[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sizes from which a directory is not expected to become empty. Below the second level, where nobody mounts disks but
// people remove what they have built, they are larger.
const (
	largeNames     = 64
	largeBytes     = 8 << 20
	deepLargeNames = 1000
	deepLargeBytes = 256 << 20
)

// emptiedDir holds the directory old, which had the names of before and is empty now, if it was large. A directory that
// an exclude rule has emptied is not held.
func (g *guard) emptiedDir(path string, old *image.Entry, before image.Tree) error {
	if !slices.ContainsFunc(before, func(e image.Entry) bool {
		return !g.o.Exclude.Cover(image.JoinPath(path, e.Name))
	}) {
		return nil
	}
	names, bytes, err := g.count(old)
	if err != nil {
		return err
	}
	large := names >= largeNames || bytes >= largeBytes
	if strings.Count(path, "/") > 1 {
		large = names >= deepLargeNames || bytes >= deepLargeBytes
	}
	if large {
		g.hold(path, Emptied, fmt.Errorf("%s has there %s", g.before, sizeText(names, bytes)))
	}
	return nil
}

func sizeText(names, bytes uint64) string {
	return quantity.Plural(int(names), "name") + ", " + quantity.Size(bytes)
}

// count returns how much is at and below e.
func (g *guard) count(e *image.Entry) (names, bytes uint64, err error) {
	err = treediff.Walk(g.ctx, g.store.Tree, e, func(path string, e *image.Entry) error {
		if path != "" {
			names++
		}
		bytes += e.Size
		return nil
	})
	return names, bytes, err
}

// find returns the entry at path below root, or nil. It does not follow symlinks.
func (g *guard) find(root image.Entry, path string) (*image.Entry, error) {
	e := &root
	for name := range strings.SplitSeq(path, "/") {
		if e.Type != image.Directory {
			return nil, nil
		}
		t, err := g.store.Tree(e.Digest)
		if err != nil {
			return nil, err
		}
		next, ok := t.Lookup(name)
		if !ok {
			return nil, nil
		}
		e = next
	}
	return e, nil
}
