package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

func stressCases() []testCase {
	return []testCase{
		{"random changes of names by several threads agree with models", "", func(t *testRun) {
			var wg sync.WaitGroup
			for i := range 4 {
				t.mkdir(fmt.Sprint("worker-", i), 0o755, 0, 0)
			}
			for i := range 4 {
				dir := fmt.Sprint("worker-", i)
				wg.Go(func() {
					w := &worker{t: t, dir: dir, rng: rand.New(rand.NewPCG(t.seed, uint64(i))),
						model: make(map[string]*stressFile)}
					w.run(t.ops / 8)
				})
			}
			wg.Wait()
		}},
	}
}

// stressFile is the file of a name of the model; several names may share one.
type stressFile struct {
	content string
	nlink   int
}

// worker changes names in its own directory and has a model of the directory.
type worker struct {
	t     *testRun
	dir   string
	rng   *rand.Rand
	model map[string]*stressFile
}

func (w *worker) run(steps int) {
	for i := range steps {
		from, to := w.pick(), w.pick()
		what := []func(from, to string) error{w.write, w.write, w.rename, w.link, w.unlink, w.check}[w.rng.IntN(6)]
		if err := what(from, to); err != nil {
			w.t.errorf("seed %d, %s, step %d, %s, %s: %v", w.t.seed, w.dir, i, from, to, err)
			return
		}
	}
	if err := w.compare(); err != nil {
		w.t.errorf("seed %d, %s at the end: %v", w.t.seed, w.dir, err)
	}
}

func (w *worker) pick() string { return fmt.Sprint("name-", w.rng.IntN(12)) }

func (w *worker) p(name string) string { return w.t.p(w.dir + "/" + name) }

// expect checks that a call failed exactly if it had to.
func expect(err error, due bool, want unix.Errno) error {
	switch {
	case due && err != want:
		return fmt.Errorf("got %v, want %v", err, want)
	case !due && err != nil:
		return err
	}
	return nil
}

func (w *worker) write(name, _ string) error {
	content := strings.Repeat(name, w.rng.IntN(500))
	if f := w.model[name]; f != nil {
		f.content = content
	} else {
		w.model[name] = &stressFile{content: content, nlink: 1}
	}
	return os.WriteFile(w.p(name), []byte(content), 0o644)
}

func (w *worker) unlink(name, _ string) error {
	f := w.model[name]
	if f != nil {
		f.nlink--
		delete(w.model, name)
	}
	return expect(unix.Unlink(w.p(name)), f == nil, unix.ENOENT)
}

func (w *worker) rename(from, to string) error {
	f, old := w.model[from], w.model[to]
	err := expect(unix.Rename(w.p(from), w.p(to)), f == nil, unix.ENOENT)
	if f == nil || f == old {
		return err
	}
	if old != nil {
		old.nlink--
	}
	w.model[to] = f
	delete(w.model, from)
	return err
}

func (w *worker) link(from, to string) error {
	f, old := w.model[from], w.model[to]
	err := unix.Link(w.p(from), w.p(to))
	if f == nil {
		return expect(err, true, unix.ENOENT)
	}
	if old != nil {
		return expect(err, true, unix.EEXIST)
	}
	f.nlink++
	w.model[to] = f
	return err
}

func (w *worker) check(name, _ string) error {
	f := w.model[name]
	var st unix.Stat_t
	err := unix.Lstat(w.p(name), &st)
	if f == nil || err != nil {
		return expect(err, f == nil, unix.ENOENT)
	}
	if int(st.Nlink) != f.nlink || int(st.Size) != len(f.content) {
		return fmt.Errorf("nlink %d, size %d; want %d, %d", st.Nlink, st.Size, f.nlink, len(f.content))
	}
	return nil
}

// compare compares the directory and all files in it with the model.
func (w *worker) compare() error {
	got, want := w.t.names(w.dir), strings.Join(slices.Sorted(maps.Keys(w.model)), " ")
	if got != want {
		return fmt.Errorf("names %s, want %s", got, want)
	}
	for name, f := range w.model {
		b, err := os.ReadFile(w.p(name))
		if err != nil {
			return err
		}
		if string(b) != f.content {
			return fmt.Errorf("%s holds %d bytes, want %d", name, len(b), len(f.content))
		}
		if err := w.check(name, ""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
