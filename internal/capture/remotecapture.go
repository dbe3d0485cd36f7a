package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dim/internal/capture/archive"
	"dim/internal/capture/draft"
	"dim/internal/capture/remote"
	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/store"
)

// captureSSH captures a directory of another machine.
func (o *Options) captureSSH(ctx context.Context, s *store.Store, text string) (r Result, err error) {
	location, err := remote.ParseLocation(text)
	if err != nil {
		return Result{}, err
	}
	batch, err := s.Begin()
	if err != nil {
		return Result{}, err
	}
	defer batch.Abort()
	peer, err := remote.Open(ctx, location, o.SSHConfig)
	if err != nil {
		return Result{}, err
	}
	defer peer.Close()
	old := o.loadRemoteNotes(ctx, s)
	c := &remoteCapture{
		o: o, peer: peer, batch: batch, old: old,
		entries: map[string]image.Entry{}, gone: map[string]bool{}, unstable: map[string]bool{},
	}
	c.meter.total = Progress{TotalFiles: old.files, TotalBytes: old.bytes}
	stop := reportOften(o.Progress, c.meter.progress)
	out, err := c.capture(ctx)
	stop()
	if err != nil {
		return Result{Problems: c.problems}, err
	}
	r, err = o.conclude(ctx, s, batch, out)
	if err == nil && !o.DryRun {
		if err := o.saveRemoteNotes(c.notes(out.digest)); err != nil {
			o.Log.Warn("notes for the next capture cannot be kept", "image", o.Image, "error", err)
		}
	}
	return r, err
}

// remoteCapture is one capture of a master on another machine.
type remoteCapture struct {
	o     *Options
	peer  *remote.Session
	batch *store.Batch
	old   *remoteNotes
	meter meter

	list     *remote.Listing
	kept     []remote.Record        // the part of the listing that is captured, in walk order
	entries  map[string]image.Entry // entries that were read by this capture
	gone     map[string]bool
	unstable map[string]bool // paths that changed each time they were read
	problems []Problem
	result   Result
}

func (c *remoteCapture) capture(ctx context.Context) (outcome, error) {
	var err error
	if c.list, err = c.peer.List(ctx, prunable(c.o.Exclude)); err != nil {
		return outcome{}, err
	}
	if err := c.filter(); err != nil {
		return outcome{}, err
	}
	if err := c.read(ctx); err != nil {
		return outcome{}, err
	}
	if bad := unreadable(c.problems); len(bad) > 0 {
		return outcome{}, &unreadableError{bad}
	}
	tree, err := c.draft()
	if err != nil {
		return outcome{}, err
	}
	unreadable(c.problems)
	c.result.Problems = c.problems
	out, err := storeDraft(ctx, c.batch, tree, c.result)
	out.systems = &fileSystems{Format: fileSystemsFormat, Disk: c.list.Disk, Mounts: c.list.Mounts}
	return out, err
}

// prunable returns paths whose content need not be listed. Rules with wildcards in the middle are applied to the
// listing.
func prunable(rules pathmatch.List) []string {
	list := []string{"proc", "sys", "dev"}
	for _, p := range rules {
		text := strings.TrimPrefix(p.String(), "/")
		text = strings.TrimSuffix(strings.TrimSuffix(text, "/**"), "/*")
		if text != "" && !strings.ContainsAny(text, `*?[\`) {
			list = append(list, text)
		}
	}
	return list
}

// filter sets c.kept.
func (c *remoteCapture) filter() error {
	slices.SortFunc(c.list.Records, func(a, b remote.Record) int { return image.ComparePaths(a.Path, b.Path) })
	var last string
	for i, r := range c.list.Records {
		switch {
		case i == 0 && (r.Path != "" || r.Kind != 'd'):
			return errors.New("its listing does not begin with a directory")
		case i > 0 && r.Path == last:
			return fmt.Errorf("its listing has /%s twice", r.Path)
		}
		last = r.Path
		if r.Kind == 'd' && r.Ino == emptySubvolume && strings.HasSuffix(c.list.Disk, " btrfs") {
			c.list.Mounts[r.Path] = emptySubvolumeKind
		}
		if r.Path != "" && c.o.Exclude.Cover(r.Path) || c.insideOmitted(r.Path) {
			continue
		}
		switch r.Kind {
		case 'f', 'd', 'l', 'c', 'b', 'p':
			c.kept = append(c.kept, r)
			c.meter.add(1, 0)
		case 's':
		default:
			c.report(r.Path, Unreadable, fmt.Errorf("kind %q is not known", r.Kind))
		}
	}
	if len(c.kept) == 0 {
		return errors.New("the listing is empty: a master needs GNU find")
	}
	return nil
}

// insideOmitted reports whether path is in a directory that is captured without its content.
func (c *remoteCapture) insideOmitted(path string) bool {
	for i := range path {
		if path[i] == '/' && c.contentOmitted(path[:i]) {
			return true
		}
	}
	return false
}

func (c *remoteCapture) contentOmitted(path string) bool {
	switch path {
	case "proc", "sys", "dev":
		return true
	}
	return c.mountPoint(path)
}

func (c *remoteCapture) mountPoint(path string) bool {
	_, ok := c.list.Mounts[path]
	return ok
}

// pendingRead is an object that has to be read. It is read under the first of its names that still exists.
type pendingRead struct{ names []remote.Record }

type remoteID struct{ dev, ino uint64 }

// read reads the entries that differ from the notes, again if they change meanwhile.
func (c *remoteCapture) read(ctx context.Context) error {
	open := c.differing()
	for try := 1; len(open) > 0; try++ {
		messages, err := c.fetch(ctx, open)
		if err != nil {
			return err
		}
		if open, err = c.recheck(ctx, open, messages, try == tries); err != nil {
			return err
		}
	}
	return nil
}

// differing returns the objects that have to be read, each once even if it has several names.
func (c *remoteCapture) differing() []*pendingRead {
	var list []*pendingRead
	groups := map[remoteID]*pendingRead{}
	for _, r := range c.kept {
		if c.noted(&r) != nil || c.mountPoint(r.Path) && r.Kind != 'd' {
			continue
		}
		id := remoteID{r.Dev, r.Ino}
		if w := groups[id]; w != nil && r.Kind != 'd' && r.Links > 1 {
			w.names = append(w.names, r)
			continue
		}
		w := &pendingRead{names: []remote.Record{r}}
		groups[id] = w
		list = append(list, w)
	}
	return list
}

// noted returns the entry of r in the version before, if r is unchanged for certain.
func (c *remoteCapture) noted(r *remote.Record) *image.Entry {
	n, ok := c.old.entries[r.Path]
	settled := r.Changed < c.old.Started-int64(clockGrain.Seconds())
	if !ok || n.stamp != r.Stamp || !settled || c.old.Disk != c.list.Disk || c.contentOmitted(r.Path) {
		return nil
	}
	return n.entry
}

// fetch reads the first name of each object. It returns the error messages of the other machine.
func (c *remoteCapture) fetch(ctx context.Context, open []*pendingRead) (messages string, err error) {
	requested := make(map[string]bool, len(open))
	var paths []string
	for _, w := range open {
		path := w.names[0].Path
		paths = append(paths, path)
		requested[path] = true
	}
	return c.peer.Fetch(ctx, paths, func(m *archive.Member) error {
		if !requested[m.Path] || m.Linked {
			return fmt.Errorf("/%s was sent and not requested", m.Path)
		}
		if m.Entry.Type == image.Regular {
			if err := m.Store(ctx, c.batch); err != nil {
				return fmt.Errorf("/%s: %w", m.Path, err)
			}
			c.result.FilesRead++
			c.result.BytesRead += m.Entry.Size
			c.meter.add(0, m.Entry.Size)
		}
		c.entries[m.Path] = m.Entry
		return nil
	})
}

// recheck finds the objects that have changed while they were read. It returns those that have to be read once more. In
// the final try it reports them instead.
func (c *remoteCapture) recheck(
	ctx context.Context, open []*pendingRead, messages string, final bool,
) (again []*pendingRead, err error) {
	var paths []string
	for _, w := range open {
		paths = append(paths, w.names[0].Path)
	}
	now, err := c.peer.Stat(ctx, paths)
	if err != nil {
		return nil, err
	}
	for _, w := range open {
		r := &w.names[0]
		after, there := now[r.Path]
		_, read := c.entries[r.Path]
		switch {
		case !there:
			c.vanished(r.Path)
			delete(c.entries, r.Path)
			if w.names = w.names[1:]; len(w.names) > 0 {
				again = append(again, w)
			}
		case !read:
			c.report(r.Path, Unreadable, errors.New(messageAbout(r.Path, messages)))
		case after.Kind != r.Kind:
			c.report(r.Path, Changing, errOtherKind)
			c.gone[r.Path] = true
		case after.Stamp == r.Stamp || c.contentOmitted(r.Path):
		case final:
			c.report(r.Path, Changing, nil)
			c.unstable[r.Path] = true
		default:
			*r = after
			again = append(again, w)
		}
	}
	if !final {
		return again, nil
	}
	for _, w := range again { // objects whose names vanish one after the other
		for _, r := range w.names {
			c.vanished(r.Path)
		}
	}
	return nil, nil
}

func (c *remoteCapture) vanished(path string) {
	c.gone[path] = true
	c.report(path, Vanished, nil)
}

func (c *remoteCapture) report(path string, kind ProblemKind, err error) {
	c.problems = append(c.problems, Problem{Path: path, Kind: kind, Err: err})
}

// messageAbout returns the line of messages that is about a path.
func messageAbout(path, messages string) string {
	for line := range strings.Lines(messages) {
		if strings.Contains(line, path) {
			return strings.TrimSpace(line)
		}
	}
	return "it was not sent"
}

// draft builds the tree from the entries that were read and those that are unchanged.
func (c *remoteCapture) draft() (*draft.Tree, error) {
	tree := draft.New(draft.Options{Exclude: c.o.Exclude})
	groups := map[remoteID]string{}
	for _, r := range c.kept {
		if c.gone[r.Path] || below(r.Path, c.gone) {
			continue
		}
		id := remoteID{r.Dev, r.Ino}
		if first, ok := groups[id]; ok && r.Links > 1 && r.Kind != 'd' {
			if err := tree.Link(r.Path, first); err != nil {
				return nil, fmt.Errorf("/%s: %w", r.Path, err)
			}
			continue
		}
		e, ok := c.entry(&r)
		if !ok {
			continue
		}
		if err := tree.Put(r.Path, e); err != nil {
			return nil, fmt.Errorf("/%s: %w", r.Path, err)
		}
		groups[id] = r.Path
	}
	return tree, nil
}

// entry returns the captured entry of r. A file that is a mount point is captured empty.
func (c *remoteCapture) entry(r *remote.Record) (image.Entry, bool) {
	e, read := c.entries[r.Path]
	switch n := c.noted(r); {
	case read:
	case n != nil:
		e = *n
	case c.mountPoint(r.Path):
		e = image.Entry{Type: image.Regular, Mode: r.Mode, UID: r.UID, GID: r.GID}
	default:
		return e, false
	}
	if c.mountPoint(r.Path) {
		e.Mtime = image.Time{}
	}
	return e, true
}

// below reports whether set has a directory above path.
func below(path string, set map[string]bool) bool {
	for i := range path {
		if path[i] == '/' && set[path[:i]] {
			return true
		}
	}
	return false
}

// storeDraft adds the trees of a draft to a batch.
func storeDraft(ctx context.Context, batch *store.Batch, tree *draft.Tree, r Result) (outcome, error) {
	sum, err := tree.Store(ctx, batch)
	if err != nil {
		return outcome{}, err
	}
	digest, err := batch.PutRoot(sum.Root)
	return outcome{Result: r, root: sum.Root, digest: digest, files: sum.Files, bytes: sum.Bytes}, err
}
