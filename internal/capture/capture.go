// Package capture stores a master as a version of an image. A master is a local directory, a directory of another
// machine, a tar file, or a container image.
//
// # How
//
// A master that is not a local directory is read by one of the packages below this one into a draft of its tree. The
// rest of this comment is about directories.
//
// Several goroutines walk the directory. They compare every entry with its stamp in the notes of the previous capture:
// inode number, ctime and the other results of statx. Only entries that differ are read. Then the trees are built from
// the leaves up, again only those that differ. So the capture of an unchanged master costs little more than the walk.
//
// # What is captured
//
// Owner, mode, mtime, hard links, devices, FIFOs, symlinks, holes and xattrs. These are not captured:
//
//   - sockets
//   - entries that an exclude pattern covers
//   - the content of /proc, /sys and /dev of the master
//   - the content of mount points
//   - the store itself
//
// A directory whose whole content is left out is captured empty and with a zero mtime. Its own mtime changes with
// entries that are not captured, and would make a new version although nothing else has changed.
//
// # Invariants
//
// The master is only read, without a change of access times if the kernel allows that. Symlinks are never followed:
// every open is relative to a directory that is open already. The stored bytes are those that were hashed, even if the
// master changes meanwhile. The same tree gives the same digest, with and without notes. Notes belong to a version of
// the store and have no meaning without it.
//
// # Concurrency
//
// Captures of different images may run at the same time. A lock in the store refuses a second capture of one image.
//
// # What it must not know
//
// What is done with versions: servers, replicas, rollouts.
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

	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/image/treediff"
	"dim/internal/quantity"
	"dim/internal/store"
)

// Options of a capture.
type Options struct {
	Image    string         // name of the image
	Master   string         // "dir:/PATH", "tar:/PATH", "ssh://…", "oci:/PATH" or "docker://…"; "": Dir
	Dir      string         // the master, if it is a directory
	Arch     string         // selects the image in a master that has images for several architectures
	Exclude  pathmatch.List // entries that are not captured
	CacheDir string         // directory for the notes; "": none are kept
	Own      []string       // further directories of DIM that are not captured, besides the store
	// Accept has paths, with or without a leading slash, at and below which a HeldError must not hold the capture.
	Accept []string

	// Reader reads masters that consist of archives, in a process of its own. It must run unpack.Task.
	Reader confine.Program

	// SSHConfig is the configuration file of ssh, if it is not empty.
	SSHConfig string

	// DryRun makes no version. New content is stored nevertheless. The next capture uses it, or a prune removes it.
	DryRun bool

	// Reread reads everything, also what has not changed since the last capture. So all that the store has of the
	// master is compared with it, and replaced where it is damaged.
	Reread bool

	// Reserve returns the number of the new version. It is called just before the version is written, when everything
	// that the version leads to is in the store. It is not called in a dry run, nor if nothing has changed.
	Reserve func(context.Context) (int, error)

	// Review, if not nil, is called with the result so far just before Reserve, also in a dry run. The version has no
	// number yet.
	Review func(context.Context, *Result)

	// Settled decides what happens to a file that changes while it is read. If Settled is not nil and returns true, the
	// capture fails with ErrChanging. Otherwise the file is captured as it was read last.
	Settled func() bool

	// Progress, if not nil, is called by one goroutine, a few times a second and once at the end.
	Progress func(Progress)
	Log      *slog.Logger     // nil: no logs
	Now      func() time.Time // nil: time.Now
	Workers  int              // number of goroutines that read; 0: it depends on the machine
}

// Progress counts what a capture has done.
type Progress struct {
	Files, Bytes           uint64 // names found, and bytes of files that were read or are unchanged
	TotalFiles, TotalBytes uint64 // of the previous capture; 0: not known
}

// Result describes a capture.
type Result struct {
	Version image.Version // the new version; if nothing has changed, the newest one
	Changed bool
	Before  image.Version // the newest version before the capture; without a number if there was none
	// Changes since Before, in walk order. It is nil for the first version of an image, or if Before is damaged.
	Changes                             []treediff.Change
	Added, Modified, Removed, Unchanged uint64 // names
	FilesRead, BytesRead                uint64
	BytesNew                            uint64 // bytes that the store did not have
	Problems                            []Problem
}

// Problem is an entry that was not captured, or not exactly.
type Problem struct {
	Path string // slash-separated, from the master's root, no leading slash
	Kind ProblemKind
	Err  error
}

// ProblemKind classifies a Problem.
type ProblemKind string

// The kinds of problems.
const (
	Vanished   ProblemKind = "vanished"        // not captured
	Changing   ProblemKind = "changing"        // changed each time it was read; captured as it was read last
	LeftOut    ProblemKind = "is left out"     // a mount point, which is captured empty
	Unreadable ProblemKind = "cannot be read"  // the capture fails
	Replaced   ProblemKind = "replaces a link" // a directory in the place of a link to one, in an archive or a layer
	Odd        ProblemKind = "is odd"          // in an archive; Err says what
	Nothing    ProblemKind = "is empty"        // the whole master, at its first capture
	Damaged    ProblemKind = "was damaged"     // an object of the store, which Err names; it has been replaced

	// The kinds of a HeldError. A dry run has them in Result.Problems.
	Covered   ProblemKind = "is a mount point now"
	Uncovered ProblemKind = "is no mount point any more"
	Emptied   ProblemKind = "is empty now"
	OtherDisk ProblemKind = "is on another file system than at the last capture"
	Shrunk    ProblemKind = "has lost most of its names"
)

// String returns the problem as one line.
func (p Problem) String() string {
	if p.Err == nil {
		return fmt.Sprintf("/%s: %s", p.Path, p.Kind)
	}
	return fmt.Sprintf("/%s: %s: %v", p.Path, p.Kind, p.Err)
}

// errEmpty is returned for a master that is empty and was not before. Its disk is probably not mounted.
var errEmpty = errors.New("the master is empty, and was not before: is its disk mounted?")

// errNothing is the error of a first capture of nothing. An empty directory makes a version with a warning.
var errNothing = errors.New("there is nothing in the master: is it the right one, and is its disk mounted?")

// ErrChanging is returned if a file has changed while it was read; see Options.Settled.
var ErrChanging = errors.New("a file changed while it was read")

// unreadableError lists all entries that could not be read. Nothing was captured.
type unreadableError struct{ Problems []Problem }

// Error returns a line for each path.
func (e *unreadableError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = fmt.Sprintf("/%s: %v", p.Path, p.Err)
	}
	return fmt.Sprintf("%d entries cannot be read:\n%s", len(lines), strings.Join(lines, "\n"))
}

// Run captures a master. Errors may be a *store.LockedError, a *remote.Error, a *HeldError, ErrChanging, or that of
// ctx.
func Run(ctx context.Context, s *store.Store, o Options) (Result, error) {
	r, err := run(ctx, s, o)
	if err != nil {
		return r, fmt.Errorf("capture %s: %w", o.masterName(), err)
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
		return o.captureByKind(ctx, s)
	}
	r, _, err := o.capture(ctx, s, loadNotes(s, &o), nil)
	return r, err
}

// capture captures a directory. Old has the notes of the previous capture, or is nil. If touched is not nil, only that
// is read, unless more is necessary. It returns the notes for the next capture.
func (o *Options) capture(ctx context.Context, s *store.Store, old *notes, touched *touch) (Result, *notes, error) {
	r, made, err := o.attempt(ctx, s, old, touched)
	if errors.Is(err, errLinks) {
		r, made, err = o.attempt(ctx, s, old, nil)
	}
	if errors.Is(err, errStaleNotes) {
		o.Log.Warn("notes of the previous capture do not fit the store", "image", o.Image, "error", err)
		r, made, err = o.attempt(ctx, s, nil, nil)
	}
	return r, made, err
}

func (o Options) complete() (Options, error) {
	if !image.ValidName(o.Image) {
		return o, fmt.Errorf("%q is not an image name", o.Image)
	}
	if o.Reserve == nil && !o.DryRun {
		return o, errors.New("no number can be reserved for the version")
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
	hold, err := s.Hold() // the hold of the batch ends before the version is written
	if err != nil {
		return Result{}, nil, err
	}
	defer hold.Unlock()
	if old != nil && !hasVersion(s, o.Image, old.digest) { // removed since the notes were read
		old = nil
	}
	batch, err := s.Begin()
	if err != nil {
		return Result{}, nil, err
	}
	defer batch.Abort()
	c := newScan(s, o, batch, old)
	batch.OnHashed(func(bytes uint64) { c.seenBytes.Add(bytes) })
	c.touched = touched
	stop := c.reportProgress()
	root, err := c.scan(ctx)
	stop()
	if err != nil {
		return Result{}, nil, err
	}
	if bad := c.unreadable(); len(bad) > 0 {
		return Result{Problems: c.problems}, nil, &unreadableError{bad}
	}
	if o.settled() && slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Kind == Changing }) {
		return Result{Problems: c.problems}, nil, ErrChanging
	}
	if err := c.assemble(ctx, root); err != nil {
		return Result{}, nil, err
	}
	if err := c.checkRoot(root); err != nil {
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
		systems: c.fileSystems(made),
		Result:  Result{Problems: c.problems, FilesRead: c.filesRead.Load(), BytesRead: c.bytesRead.Load()},
	})
	if err == nil && !c.o.DryRun && !c.partial && (c.old == nil || c.old.digest != made.digest || c.changed.Load()) {
		if err := c.o.saveNotes(made); err != nil {
			c.o.Log.Warn("notes for the next capture cannot be kept", "image", c.o.Image, "error", err)
		}
	}
	return r, err
}

// outcome describes trees that are in a batch.
type outcome struct {
	Result
	root         image.Entry
	digest       image.Digest // of the root
	files, bytes uint64
	systems      *fileSystems // nil: the master is no directory
}

// conclude makes the version, unless it is the same as the newest or this is a dry run.
func (o *Options) conclude(ctx context.Context, s *store.Store, batch *store.Batch, out outcome) (Result, error) {
	r := out.Result
	if err := o.commit(ctx, batch, &r); err != nil {
		return r, err
	}
	before, err := s.Resolve(image.Ref{Image: o.Image})
	first := errors.Is(err, store.ErrNotFound)
	if err != nil && !first {
		return r, err
	}
	r.Before = before
	last := o.loadFileSystems()
	if out.systems != nil {
		r.Problems = append(r.Problems, out.systems.leftOut()...)
	}
	if !first && before.Digest == out.digest {
		r.Version, r.Unchanged = before, before.Files
		o.saveFileSystems(out.systems, last)
		return r, nil
	}
	if out.files == 0 && before.Files > 0 {
		return r, errEmpty
	}
	if out.files == 0 && first {
		if out.systems == nil {
			return r, errNothing
		}
		r.Problems = append(r.Problems, Problem{Kind: Nothing, Err: errNothing})
	}
	r.Changed = true
	r.Version = image.Version{
		Image: o.Image, Digest: out.digest, Root: out.root, Master: o.Master, Parent: before.Number, Files: out.files,
		Bytes: out.bytes,
	}
	if err := r.compare(ctx, s, o.Log); err != nil { // the version is complete nevertheless
		o.Log.Warn("changes cannot be listed", "version", before.Ref().String(), "error", err)
	}
	held := o.guard(ctx, s, &r, [2]*fileSystems{last, out.systems})
	if len(held) > 0 && !o.DryRun {
		return r, &HeldError{held}
	}
	r.Problems = append(r.Problems, held...)
	if o.Review != nil {
		o.Review(ctx, &r)
	}
	if o.DryRun {
		return r, nil
	}
	if r.Version.Number, err = o.Reserve(ctx); err != nil {
		return r, err
	}
	if r.Version, err = s.AddVersion(r.Version); err != nil {
		return r, err
	}
	o.saveFileSystems(out.systems, last)
	return r, nil
}

// maxDamaged bounds the damaged objects that a result names.
const maxDamaged = 20

// commit commits the batch, also if no version follows: it may have what the store had lost. It reports what it has
// replaced there.
func (o *Options) commit(ctx context.Context, batch *store.Batch, r *Result) error {
	_, r.BytesNew = batch.Staged()
	if err := batch.Commit(ctx); err != nil {
		return err
	}
	damaged := batch.Damaged()
	for _, p := range damaged[:min(len(damaged), maxDamaged)] {
		r.Problems = append(r.Problems, Problem{Kind: Damaged, Err: errors.New(p.String())})
	}
	if more := len(damaged) - maxDamaged; more > 0 {
		r.Problems = append(r.Problems, Problem{Kind: Damaged, Err: fmt.Errorf("and %s more", quantity.Count(more))})
	}
	for _, p := range damaged {
		o.Log.Error("damaged object of the store replaced", "image", o.Image, "reason", p.String())
	}
	return nil
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
	log.Debug("versions compared",
		"from", r.Before.Ref().String(), "to", r.Version.Image, "paths", len(changes), "took", time.Since(begin))
	return nil
}
