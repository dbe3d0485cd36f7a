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
	place, err := remote.ParsePlace(text)
	if err != nil {
		return Result{}, err
	}
	batch, err := s.Begin()
	if err != nil {
		return Result{}, err
	}
	defer batch.Abort()
	peer, err := remote.Open(ctx, place, o.SSHConfig)
	if err != nil {
		return Result{}, err
	}
	defer peer.Close()
	old := o.loadFarNotes(ctx, s)
	c := &far{o: o, peer: peer, batch: batch, old: old, entries: map[string]image.Entry{}, gone: map[string]bool{}, unsure: map[string]bool{}}
	c.meter.total = Progress{TotalFiles: old.files, TotalBytes: old.bytes}
	stop := everyNowAndThen(func() { c.meter.report(o.Progress) }, o.Progress != nil)
	out, err := c.capture(ctx)
	stop()
	if err != nil {
		return Result{Problems: c.problems}, err
	}
	r, err = o.conclude(ctx, s, batch, out)
	if err == nil && !o.DryRun {
		if err := o.saveFarNotes(c.notes(out.digest)); err != nil {
			o.Log.Warn("notes for the next capture cannot be kept", "image", o.Image, "err", err)
		}
	}
	return r, err
}

// far is one look at a master on another machine.
type far struct {
	o     *Options
	peer  *remote.Session
	batch *store.Batch
	old   *farNotes
	meter meter

	list     *remote.Listing
	kept     []remote.Record        // what of the listing is captured, directories before what is in them
	entries  map[string]image.Entry // what was read now
	gone     map[string]bool
	unsure   map[string]bool // captured as they were read last
	problems []Problem
	result   Result
}

func (c *far) capture(ctx context.Context) (outcome, error) {
	var err error
	if c.list, err = c.peer.List(ctx, prunable(c.o.Exclude)); err != nil {
		return outcome{}, err
	}
	if err := c.sift(); err != nil {
		return outcome{}, err
	}
	if err := c.read(ctx); err != nil {
		return outcome{}, err
	}
	if bad := unreadable(c.problems); len(bad) > 0 {
		return outcome{}, &UnreadableError{bad}
	}
	tree, err := c.draft()
	if err != nil {
		return outcome{}, err
	}
	unreadable(c.problems)
	c.result.Problems = c.problems
	return stored(ctx, c.batch, tree, c.result)
}

// prunable returns the paths that nothing needs to be listed below. Rules with patterns in the middle are left to this side.
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

// sift keeps what is to be captured.
func (c *far) sift() error {
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
		if r.Path != "" && c.o.Exclude.Cover(r.Path) || c.insideEmptied(r.Path) {
			continue
		}
		switch r.Kind {
		case 'f', 'd', 'l', 'c', 'b', 'p':
			c.kept = append(c.kept, r)
			c.meter.add(1, 0)
		case 's':
		default:
			c.problems = append(c.problems, Problem{Path: r.Path, Kind: Unreadable, Err: fmt.Errorf("kind %q is not known", r.Kind)})
		}
	}
	if len(c.kept) == 0 {
		return errors.New("it lists nothing: a master needs GNU find")
	}
	return nil
}

// insideEmptied reports whether path is in a directory that is captured without its content.
func (c *far) insideEmptied(path string) bool {
	for i := range path {
		if path[i] == '/' && c.emptied(path[:i]) {
			return true
		}
	}
	return false
}

func (c *far) emptied(path string) bool {
	switch path {
	case "proc", "sys", "dev":
		return true
	}
	return c.list.Mounts[path]
}

// wanted is an object to be read, by the first of its names that is still there.
type wanted struct{ names []remote.Record }

type farID struct{ dev, ino uint64 }

// read fetches what is not as noted, until it holds still.
func (c *far) read(ctx context.Context) error {
	open := c.differing()
	for try := 1; len(open) > 0; try++ {
		complaint, err := c.fetch(ctx, open)
		if err != nil {
			return err
		}
		if open, err = c.settle(ctx, open, complaint, try == tries); err != nil {
			return err
		}
	}
	return nil
}

// differing returns what has to be read; a file of several names once.
func (c *far) differing() []*wanted {
	var list []*wanted
	groups := map[farID]*wanted{}
	for _, r := range c.kept {
		if c.noted(&r) != nil || c.list.Mounts[r.Path] && r.Kind != 'd' {
			continue
		}
		id := farID{r.Dev, r.Ino}
		if w := groups[id]; w != nil && r.Kind != 'd' && r.Links > 1 {
			w.names = append(w.names, r)
			continue
		}
		w := &wanted{names: []remote.Record{r}}
		groups[id] = w
		list = append(list, w)
	}
	return list
}

// noted returns what the version before has of r, if r is certainly what it was.
func (c *far) noted(r *remote.Record) *image.Entry {
	n, ok := c.old.entries[r.Path]
	if !ok || n.stamp != r.Stamp || r.Changed >= c.old.Started-int64(clockGrain.Seconds()) || c.old.Disk != c.list.Disk || c.emptied(r.Path) {
		return nil
	}
	return n.entry
}

// fetch reads the first name of each.
func (c *far) fetch(ctx context.Context, open []*wanted) (complaint string, err error) {
	asked := make(map[string]bool, len(open))
	var paths []string
	for _, w := range open {
		path := w.names[0].Path
		paths = append(paths, path)
		asked[path] = true
	}
	return c.peer.Fetch(ctx, paths, func(m *archive.Member) error {
		if !asked[m.Path] || m.Linked {
			return fmt.Errorf("/%s came without being asked for", m.Path)
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

// settle looks again at what was read, and returns what has to be read once more.
func (c *far) settle(ctx context.Context, open []*wanted, complaint string, final bool) (again []*wanted, err error) {
	var paths []string
	for _, w := range open {
		paths = append(paths, w.names[0].Path)
	}
	now, err := c.peer.Look(ctx, paths)
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
			c.problems = append(c.problems, Problem{Path: r.Path, Kind: Unreadable, Err: errors.New(complaintAbout(r.Path, complaint))})
		case after.Kind != r.Kind:
			c.problems = append(c.problems, Problem{Path: r.Path, Kind: Changing, Err: errOtherKind})
			c.gone[r.Path] = true
		case after.Stamp == r.Stamp || c.emptied(r.Path):
		case final:
			c.problems = append(c.problems, Problem{Path: r.Path, Kind: Changing})
			c.unsure[r.Path] = true
		default:
			*r = after
			again = append(again, w)
		}
	}
	if !final {
		return again, nil
	}
	for _, w := range again { // names that go one after the other
		for _, r := range w.names {
			c.vanished(r.Path)
		}
	}
	return nil, nil
}

func (c *far) vanished(path string) {
	c.gone[path] = true
	c.problems = append(c.problems, Problem{Path: path, Kind: Vanished})
}

// complaintAbout finds what was said about a path.
func complaintAbout(path, complaint string) string {
	for line := range strings.Lines(complaint) {
		if strings.Contains(line, path) {
			return strings.TrimSpace(line)
		}
	}
	return "it does not come"
}

// draft puts together what was read and what is as noted.
func (c *far) draft() (*draft.Tree, error) {
	tree := draft.New(draft.Options{Exclude: c.o.Exclude})
	groups := map[farID]string{}
	for _, r := range c.kept {
		if c.gone[r.Path] || below(r.Path, c.gone) {
			continue
		}
		id := farID{r.Dev, r.Ino}
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

// entry returns what is captured of r. A file on which another is mounted is empty.
func (c *far) entry(r *remote.Record) (image.Entry, bool) {
	e, read := c.entries[r.Path]
	switch n := c.noted(r); {
	case read:
	case n != nil:
		e = *n
	case c.list.Mounts[r.Path]:
		c.problems = append(c.problems, Problem{Path: r.Path, Kind: MountPoint})
		e = image.Entry{Type: image.Regular, Mode: r.Mode, UID: r.UID, GID: r.GID}
	default:
		return e, false
	}
	if c.list.Mounts[r.Path] {
		e.Mtime = image.Time{}
	}
	return e, true
}

// below reports whether a directory above path is in set.
func below(path string, set map[string]bool) bool {
	for i := range path {
		if path[i] == '/' && set[path[:i]] {
			return true
		}
	}
	return false
}
