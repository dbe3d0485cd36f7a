// Package diskmark recognizes an old copy of a server's disk, with which nodes would lose what they have written since.
//
// # Concepts
//
// A mark is a random text. The disk of a server has the marks that it was given, and the shared state has the last one
// of each server. A disk on which that one is not is older than the last one that the server had, or is of another
// machine. A disk gets a new mark at each start, at intervals, and when a head finds another machine with the same
// mark, but not before the shared state has the mark before: so the disk has that one in any case, whatever was lost on
// the way.
//
// A copy is not recognized if it was made after the last mark. The marks are a list, because the shared state may be
// put back from an older copy.
//
// # What it must not know
//
// How marks get into the shared state, and what follows when a disk is old.
package diskmark

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"dim/internal/durable"
)

// Disk has the marks of a disk. Its methods may be called from any number of goroutines.
type Disk struct {
	path string

	mu       sync.Mutex
	marks    []string // the last one is the present one
	recorded string   // what the shared state has; "": nothing yet
	old      bool
}

const (
	// format is the version of the form of the file, docs/formats/data.md.
	format = 1
	// kept is how many marks are kept.
	kept = 100
	// maxMark bounds a mark, in bytes.
	maxMark = 64
)

type file struct {
	Format int      `json:"format"`
	Marks  []string `json:"marks"` // the oldest first
}

// Open reads the marks from a file. Without a file there are none.
func Open(path string) (*Disk, error) {
	d := &Disk{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		d.marks, err = parse(b)
	}
	if err != nil {
		return d, fmt.Errorf("read %s: %w", path, err)
	}
	return d, nil
}

func parse(b []byte) ([]string, error) {
	var f file
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&f); err != nil {
		return nil, err
	}
	if f.Format != format {
		return nil, fmt.Errorf("format %d is not known, this program reads format %d", f.Format, format)
	}
	bad := func(mark string) bool { return mark == "" || len(mark) > maxMark }
	if len(f.Marks) > kept || slices.ContainsFunc(f.Marks, bad) {
		return nil, errors.New("its marks are damaged")
	}
	return f.Marks, nil
}

// Compare tells what mark the shared state has of this server; "" is none. It returns whether the disk is an old one.
func (d *Disk) Compare(recorded string) (old bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.old = recorded != "" && !slices.Contains(d.marks, recorded); !d.old {
		d.recorded = recorded
	}
	return d.old
}

// Old reports what Compare returned last.
func (d *Disk) Old() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.old
}

// Renew gives the disk a new mark, if the shared state has the present one.
func (d *Disk) Renew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.old || len(d.marks) > 0 && d.recorded != d.last() {
		return nil
	}
	next := append(slices.Clone(d.marks), strings.ToLower(rand.Text()))
	next = next[max(0, len(next)-kept):]
	b, err := json.Marshal(file{format, next})
	if err == nil {
		err = durable.WriteFile(d.path, b, 0o600)
	}
	if err == nil {
		d.marks = next
	}
	return err
}

// Present returns the mark of the disk, and the one that the shared state has by what Compare was told last. Only while
// the shared state has the latter the former may take its place.
func (d *Disk) Present() (mark, before string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last(), d.recorded
}

func (d *Disk) last() string {
	if len(d.marks) == 0 {
		return ""
	}
	return d.marks[len(d.marks)-1]
}
