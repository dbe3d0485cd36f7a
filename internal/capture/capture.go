// Package capture brings a master into a store as a version of an image. A master is a local directory, a directory of another machine, a tar file, or a container image.
//
// # How
//
// A master that is not a directory is read as what it is by a package below this one, into a draft of its tree. The rest is about directories.
//
// A walk by several goroutines compares every entry with what the previous capture noted of it (its stamp: inode number, change
// time and the rest of what statx tells). Only what differs is read. Then the trees are made from the leaves up, again only
// where something differs, so an unchanged master costs little more than the walk.
//
// # What is captured
//
// Owner, mode, mtime, hard links, devices, FIFOs, symlinks, holes and xattrs of regular entries. Not captured: sockets, what the exclude
// patterns cover, what is in /proc, /sys and /dev of the master, what is mounted in it, the store itself.
// A directory whose content is left out as a whole stays, empty, with a zero mtime: its own tells of things that
// are not in the capture, and would make a new version of a master in which nothing else changes.
//
// # Invariants
//
// The master is only read, and without touching access times where the kernel allows it. Symlinks are never followed: every open
// is relative to a directory that is open already. The bytes stored are the bytes hashed, however the master changes meanwhile.
// The same tree gives the same digest, with or without what an earlier capture noted. The cache names a version of the store and is
// worth nothing without it.
//
// # Concurrency
//
// Captures of different images may run at once; a lock in the store refuses a second one of the same image.
//
// # What it must not know
//
// Where versions go from here: servers, replicas, rollouts.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/image/treediff"
	"dim/internal/store"
)

// Options says what to capture, and how.
type Options struct {
	Image    string         // the image's name
	Master   string         // as the description has it: "dir:/PATH", "tar:/PATH", "ssh://…", "oci:/PATH", "docker://…"; "": Dir
	Dir      string         // the master, if it is a directory
	Arch     string         // of the machines; of a master that comes for several, that is the one captured
	Exclude  pathmatch.List // what stays out
	CacheDir string         // where notes for the next capture are kept; "": none are
	Own      []string       // directories of DIM's own that are left out when the master holds them, beside the store

	// SSHConfig replaces ssh's own configuration file if it is not empty.
	SSHConfig string

	// DryRun makes no version: it only tells what would be in it. What is new is read into the store all the same, where it
	// waits for the capture that follows, or for a prune.
	DryRun bool

	// Reserve returns the number of the new version. It is called just before the version is written, when all that the version leads to
	// is in the store; not for a dry run, nor if nothing has changed.
	Reserve func(context.Context) (int, error)

	// Review, if set, is called with what is known of a new version just before Reserve, and in a dry run. Version has no number yet.
	Review func(context.Context, *Result)

	// Settled, when set and true as the master is read, lets a file that changes meanwhile fail the capture, with ErrChanging, where otherwise
	// it is captured as it was last read.
	Settled func() bool

	// Progress, when set, is called from one goroutine, a few times a second and once at the end.
	Progress func(Progress)
	Log      *slog.Logger     // nil: none
	Now      func() time.Time // nil: time.Now
	Workers  int              // 0: a number that suits the machine
}

// Progress tells how far a capture is.
type Progress struct {
	Files, Bytes           uint64 // names met, and the sizes of those dealt with
	TotalFiles, TotalBytes uint64 // of the previous capture; 0: not known
}

// Result is what a capture did.
type Result struct {
	Version image.Version
	Changed bool          // false: nothing differs from the newest version, which Version is
	Before  image.Version // the newest version until now; it has no number when there was none
	// Changes against the version before, in walk order; nil for an image's first version, or if the one before is damaged.
	Changes                             []treediff.Change
	Added, Modified, Removed, Unchanged uint64 // names
	FilesRead, BytesRead                uint64 // what had to be read
	BytesNew                            uint64 // what the store did not have
	Problems                            []Problem
}

// Problem is a path that was not captured as it should be.
type Problem struct {
	Path string // slash-separated, from the master's root, no leading slash
	Kind ProblemKind
	Err  error
}

// ProblemKind classifies a Problem.
type ProblemKind string

// The kinds of problems.
const (
	Vanished   ProblemKind = "vanished"           // left out
	Changing   ProblemKind = "changing"           // changed each time it was read; captured as it was last read
	MountPoint ProblemKind = "file is mounted on" // captured as an empty file
	Unreadable ProblemKind = "cannot be read"     // the capture fails
)

// String returns the problem in a line.
func (p Problem) String() string {
	if p.Err == nil {
		return fmt.Sprintf("/%s: %s", p.Path, p.Kind)
	}
	return fmt.Sprintf("/%s: %s: %v", p.Path, p.Kind, p.Err)
}

// ErrEmpty tells that a master that had something has nothing any more: more likely a disk that is not mounted than what anybody wants on
// every node.
var ErrEmpty = errors.New("the master is empty, and was not before: is its disk mounted?")

// ErrChanging tells that a file changed while it was read; see Options.Settled.
var ErrChanging = errors.New("a file changed while it was read")

// UnreadableError lists everything that could not be read; nothing was captured.
type UnreadableError struct{ Problems []Problem }

// Error implements error; it has a line for each path.
func (e *UnreadableError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = fmt.Sprintf("/%s: %v", p.Path, p.Err)
	}
	return fmt.Sprintf("%d entries cannot be read:\n%s", len(lines), strings.Join(lines, "\n"))
}

// Run captures. Errors may be a *store.LockedError, an *UnreadableError or the context's.
func Run(ctx context.Context, s *store.Store, o Options) (Result, error) {
	r, err := run(ctx, s, o)
	if err != nil {
		return r, fmt.Errorf("capture %s: %w", o.place(), err)
	}
	return r, nil
}

func run(ctx context.Context, s *store.Store, o Options) (Result, error) {
	o, err := o.complete()
	if err != nil {
		return Result{}, err
	}
	lock, err := s.Lock("capture-" + o.Image)
	if err != nil {
		return Result{}, err
	}
	defer lock.Unlock()
	if o.Dir == "" {
		return o.captureElsewhere(ctx, s)
	}
	r, _, err := o.capture(ctx, s, loadNotes(s, &o), nil)
	return r, err
}

// capture captures with what an earlier capture noted, if anything, and returns what is to be noted for the next. Where touched is not nil, it
// looks at nothing else, unless it must.
func (o *Options) capture(ctx context.Context, s *store.Store, old *notes, touched *touch) (Result, *notes, error) {
	r, made, err := o.attempt(ctx, s, old, touched)
	if errors.Is(err, errLinks) {
		r, made, err = o.attempt(ctx, s, old, nil)
	}
	if errors.Is(err, errStaleNotes) {
		o.Log.Warn("notes of the previous capture do not fit the store", "image", o.Image, "err", err)
		r, made, err = o.attempt(ctx, s, nil, nil)
	}
	return r, made, err
}

func (o Options) complete() (Options, error) {
	if !image.ValidName(o.Image) {
		return o, fmt.Errorf("%q is not an image name", o.Image)
	}
	if o.Reserve == nil && !o.DryRun {
		return o, errors.New("nothing gives the version its number")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Workers <= 0 {
		o.Workers = max(8, 2*runtime.GOMAXPROCS(0))
	}
	if dir, ok := strings.CutPrefix(o.Master, "dir:"); ok {
		o.Dir = dir
	}
	if o.Dir != "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return o, err
		}
		o.Dir, o.Master = dir, "dir:"+dir
	}
	if o.CacheDir != "" {
		return o, os.MkdirAll(o.CacheDir, 0o700)
	}
	return o, nil
}

func (o *Options) settled() bool { return o.Settled != nil && o.Settled() }

func (o *Options) attempt(ctx context.Context, s *store.Store, old *notes, touched *touch) (Result, *notes, error) {
	hold, err := s.Hold() // the version is known only after the batch has ended
	if err != nil {
		return Result{}, nil, err
	}
	defer hold.Unlock()
	if old != nil && !hasVersion(s, o.Image, old.digest) { // removed since the notes were looked at
		old = nil
	}
	batch, err := s.Begin()
	if err != nil {
		return Result{}, nil, err
	}
	defer batch.Abort()
	c := newScan(s, o, batch, old)
	c.touched = touched
	stop := c.reportProgress()
	root, err := c.scan(ctx)
	stop()
	if err != nil {
		return Result{}, nil, err
	}
	if bad := c.unreadable(); len(bad) > 0 {
		return Result{Problems: c.problems}, nil, &UnreadableError{bad}
	}
	if o.settled() && slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Kind == Changing }) {
		return Result{Problems: c.problems}, nil, ErrChanging
	}
	if err := c.assemble(ctx, root); err != nil {
		return Result{}, nil, err
	}
	if err := c.stillThere(root); err != nil {
		return Result{}, nil, err
	}
	digest, err := c.batch.PutRoot(c.rootEntry(root))
	if err != nil {
		return Result{}, nil, err
	}
	made := c.notes(root, digest)
	r, err := c.conclude(ctx, root, made)
	return r, made, err
}

func (c *scan) conclude(ctx context.Context, root *dir, made *notes) (Result, error) {
	r, err := c.o.conclude(ctx, c.store, c.batch, outcome{
		root: c.rootEntry(root), digest: made.digest, files: made.files(), bytes: made.bytes(),
		Result: Result{Problems: c.problems, FilesRead: c.filesRead.Load(), BytesRead: c.bytesRead.Load()},
	})
	if err == nil && !c.o.DryRun && !c.partial && (c.old == nil || c.old.digest != made.digest || c.renote.Load()) {
		if err := c.o.saveNotes(made); err != nil {
			c.o.Log.Warn("notes for the next capture cannot be kept", "image", c.o.Image, "err", err)
		}
	}
	return r, err
}

// outcome is a capture whose trees are in a batch.
type outcome struct {
	Result
	root         image.Entry
	digest       image.Digest // of the root
	files, bytes uint64
}

// conclude makes the version, unless it is the newest already or nobody wants it made.
func (o *Options) conclude(ctx context.Context, s *store.Store, batch *store.Batch, out outcome) (Result, error) {
	r := out.Result
	before, err := s.Resolve(image.Ref{Image: o.Image})
	first := errors.Is(err, store.ErrNotFound)
	if err != nil && !first {
		return r, err
	}
	r.Before = before
	if !first && before.Digest == out.digest {
		r.Version, r.Unchanged = before, before.Files
		return r, nil
	}
	if out.files == 0 && before.Files > 0 {
		return r, ErrEmpty
	}
	_, r.BytesNew = batch.Staged()
	if err := batch.Commit(ctx); err != nil {
		return r, err
	}
	r.Changed = true
	r.Version = image.Version{
		Image: o.Image, Digest: out.digest, Root: out.root, Master: o.Master, Parent: before.Number, Files: out.files, Bytes: out.bytes,
	}
	if err := r.compare(ctx, s, o.Log); err != nil { // the version is whole without
		o.Log.Warn("changes cannot be listed", "version", before.Ref().String(), "err", err)
	}
	if o.Review != nil {
		o.Review(ctx, &r)
	}
	if !o.DryRun {
		if r.Version.Number, err = o.Reserve(ctx); err != nil {
			return r, err
		}
		if r.Version, err = s.AddVersion(r.Version); err != nil {
			return r, err
		}
	}
	return r, nil
}

// compare finds what differs from the version before. On an error Changes is nil.
func (r *Result) compare(ctx context.Context, s *store.Store, log *slog.Logger) error {
	if r.Before.Number == 0 {
		r.Added = r.Version.Files
		return nil
	}
	begin := time.Now()
	var changes []treediff.Change
	err := treediff.Diff(ctx, s.Tree, &r.Before.Root, &r.Version.Root, func(c treediff.Change) error {
		changes = append(changes, c)
		switch {
		case c.Old == nil:
			r.Added++
		case c.New == nil:
			r.Removed++
		case c.Path != "":
			r.Modified++
		}
		return nil
	})
	r.Unchanged = r.Version.Files - r.Added - r.Modified
	if err != nil {
		return err
	}
	r.Changes = changes
	log.Debug("versions compared", "from", r.Before.Ref().String(), "to", r.Version.Image, "paths", len(changes), "took", time.Since(begin))
	return nil
}
