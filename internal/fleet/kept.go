package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/durable"
)

const (
	// keptFormat is the version of the form of the files, docs/formats/data.md.
	keptFormat = 1
	keptSuffix = ".json"
	// leastKept is the least time between two writes of a server's report, and mostKept the most, while it reports.
	leastKept = 30 * time.Second
	mostKept  = 5 * time.Minute
)

// keptFile is the form of a file.
type keptFile struct {
	Format  int       `json:"format"`
	Arrived time.Time `json:"arrived"`
	Report  *Report   `json:"report"`
}

// Open returns a Fleet that keeps the last reports in a directory, which is made when the first one is saved. Last
// returns those that it finds there. The error lists the files that cannot be used; the Fleet can be used all the same.
func Open(dir string) (*Fleet, error) {
	f := newFleet()
	f.dir = dir
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	errs := []error{err}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), keptSuffix)
		if !ok {
			continue
		}
		h, err := readKept(filepath.Join(dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.kept[cluster.ServerName(name)], f.saved[cluster.ServerName(name)] = h, h
	}
	return f, errors.Join(errs...)
}

func readKept(path string) (h Heard, err error) {
	file, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer file.Close()
	h, err = decodeKept(file)
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return h, err
}

func decodeKept(r io.Reader) (h Heard, err error) {
	var in keptFile
	if err := json.NewDecoder(io.LimitReader(r, maxReport+1024)).Decode(&in); err != nil {
		return h, err
	}
	if in.Format != keptFormat {
		return h, fmt.Errorf("format %d is not known, this program reads format %d", in.Format, keptFormat)
	}
	if in.Report == nil {
		return h, errors.New("it has no report")
	}
	in.Report.check()
	h = newHeard(in.Report, in.Arrived)
	h.FromDisk = true
	return h, nil
}

// Save writes the reports of other servers than this one, as far as what asks for it, and removes those of servers that
// Keep has dropped.
func (f *Fleet) Save(this cluster.ServerName, what Extent) error {
	f.saving.Lock()
	defer f.saving.Unlock()
	due, gone := f.unsaved(this, what)
	var errs []error
	for _, name := range gone {
		if err := os.Remove(f.keptPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(due) > 0 {
		errs = append(errs, os.MkdirAll(f.dir, 0o700))
	}
	for name, h := range due {
		b, err := json.Marshal(keptFile{keptFormat, h.At, h.Report})
		if err == nil {
			err = durable.WriteFile(f.keptPath(name), b, 0o600)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.saved[name] = h
	}
	return errors.Join(errs...)
}

// Extent says which reports Save writes.
type Extent int

// What Save writes.
const (
	Due Extent = iota // those that have changed, each at most twice a minute
	All               // all that are not on disk as they are
)

// unsaved returns the reports to write, and the servers whose files are to be removed. It is called with saving held.
func (f *Fleet) unsaved(
	this cluster.ServerName, what Extent,
) (due map[cluster.ServerName]Heard, gone []cluster.ServerName) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	due = map[cluster.ServerName]Heard{}
	for name, h := range f.servers {
		saved, known := f.saved[name]
		passed := h.At.Sub(saved.At)
		if name == this || !filepath.IsLocal(string(name)) || known && saved.Report == h.Report {
			continue
		}
		if what == All || !known || passed > mostKept || passed > leastKept && !h.Same(saved.Report) {
			due[name] = h
		}
	}
	for name := range f.saved {
		_, heard := f.servers[name]
		if _, kept := f.kept[name]; !heard && !kept {
			gone = append(gone, name)
		}
	}
	for _, name := range gone {
		delete(f.saved, name)
	}
	return due, gone
}

func (f *Fleet) keptPath(name cluster.ServerName) string {
	return filepath.Join(f.dir, string(name)+keptSuffix)
}

// Last returns the last report of a server: since this one was started, or else the one that was kept on disk.
func (f *Fleet) Last(name cluster.ServerName) (h Heard, ok bool) {
	if h, ok = f.Server(name); ok {
		return h, ok
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	h, ok = f.kept[name]
	return h, ok
}

// LastNode returns what Node does, also by a report that was kept on disk.
func (f *Fleet) LastNode(n *cluster.Node) (node Node, at time.Time, ok bool) {
	h, ok := f.Last(n.Server().Name)
	if !ok {
		return node, at, false
	}
	return h.node(n.Name)
}

// Same reports whether two reports say the same but for the times of calls.
func (r *Report) Same(b *Report) bool {
	return r.Store == b.Store && r.Revision == b.Revision && r.Renaming == b.Renaming &&
		r.Mark == b.Mark && r.MarkBefore == b.MarkBefore &&
		slices.Equal(r.Versions, b.Versions) && slices.Equal(r.Problems, b.Problems) &&
		slices.EqualFunc(r.Nodes, b.Nodes, func(a, b Node) bool {
			a.LastCall, a.LastSeen = b.LastCall, b.LastSeen
			a.Resident.Reported, a.Resident.Memory = b.Resident.Reported, b.Resident.Memory
			return a == b
		})
}
