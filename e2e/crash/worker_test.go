package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"dim/internal/vfs"
)

// root has the credentials of the calls.
var root = &vfs.Cred{}

// worker changes one directory, dir.
type worker struct {
	dir  string
	rand *rand.Rand

	mu     sync.Mutex
	states []state  // what dir showed at first and after each change
	done   []change // done[i] leads from states[i] to states[i+1]
	acked  int      // changes that were acknowledged
}

// change is one call, or two: a write and its commit.
type change struct {
	text string
	path string // of the file that is written; "" if the change is atomic
	half state  // the state that a crash in the middle may leave
	do   func(fs vfs.FS, h handles) error
}

// handles finds the objects of a worker's directory.
type handles func(path string) (vfs.Handle, error)

func newWorker(dir string, seed uint64, now state) *worker {
	return &worker{dir: dir, rand: rand.New(rand.NewPCG(seed, 7)), states: []state{now}}
}

// work changes the directory until a call fails. It returns the error and the call.
func (w *worker) work(fs vfs.FS, more func() bool) error {
	h := func(path string) (vfs.Handle, error) { return find(fs, w.dir+path) }
	for more() {
		c, next := w.draw()
		w.mu.Lock()
		w.states, w.done = append(w.states, next), append(w.done, c)
		w.mu.Unlock()
		if err := c.do(fs, h); err != nil {
			return fmt.Errorf("%s: %s: %w", w.dir, c.text, err)
		}
		w.mu.Lock()
		w.acked++
		w.mu.Unlock()
	}
	return nil
}

// span returns how many changes were acknowledged and how many were begun.
func (w *worker) span() (acked, begun int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked, len(w.done)
}

// check checks that fs shows one of the states from low to high, and returns that state.
func (w *worker) check(fs vfs.FS, low, high int) (state, error) {
	is := make(state)
	top, err := find(fs, strings.TrimSuffix(w.dir, "/"))
	if err == nil {
		err = observe(fs, top, "", make(map[uint64]*entry), is)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.dir, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := low; k <= high; k++ {
		if is.equal(w.states[k]) || k < high && w.within(is, k) {
			return is, nil
		}
	}
	return nil, fmt.Errorf("%s shows\n%s\nwhich it never showed. It was\n%s\nthen came %s\nand it was to be\n%s",
		w.dir, text(is), text(w.states[low]), w.story(low, high), text(w.states[high]))
}

// within reports whether the state can be the result of change number k if that was not acknowledged.
func (w *worker) within(is state, k int) bool {
	c := &w.done[k]
	return c.half != nil && is.equal(c.half) || c.path != "" && is.torn(c.path, w.states[k], w.states[k+1])
}

func (w *worker) story(low, high int) string {
	var b strings.Builder
	for k := low; k < high; k++ {
		fmt.Fprintf(&b, "\n%s", w.done[k].text)
	}
	return b.String()
}

func text(s state) string {
	short := s.clone()
	for _, e := range short {
		e.content = runs(e.content)
	}
	var b strings.Builder
	lines := short.lines()
	for _, path := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&b, "  %s %s\n", path, lines[path])
	}
	return b.String()
}

// runs shortens runs.
func runs(s string) string {
	s = strings.ReplaceAll(s, "version ", "v")
	var b strings.Builder
	for i := 0; i < len(s); {
		n := 1
		for i+n < len(s) && s[i+n] == s[i] {
			n++
		}
		if n > 4 {
			fmt.Fprintf(&b, "%c×%d", s[i], n)
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// find looks path up.
func find(fs vfs.FS, path string) (vfs.Handle, error) {
	h := fs.Root()
	for name := range strings.SplitSeq(path, "/") {
		var a vfs.Attr
		next, err := fs.Lookup(root, h, name, &a)
		if err != nil {
			return h, fmt.Errorf("look up %s: %w", path, err)
		}
		h = next
	}
	return h, nil
}

// draw chooses a random change that must succeed.
func (w *worker) draw() (change, state) {
	now := w.states[len(w.states)-1]
	for {
		next := now.clone()
		d := drawing{w.rand, next}
		kinds := []func(drawing) (change, bool){
			drawing.create, drawing.create, drawing.write, drawing.write, drawing.write, drawing.truncate,
			drawing.chmod,
			drawing.remove, drawing.rename, drawing.rename, drawing.link, drawing.mkdir, drawing.rmdir, drawing.symlink,
		}
		if c, ok := kinds[w.rand.IntN(len(kinds))](d); ok {
			return c, next
		}
	}
}
