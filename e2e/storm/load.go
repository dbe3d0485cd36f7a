package storm

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Load is the activity in a guest while its root is switched, and the receiver of the RPCs by which the test
// outside announces switches.
type Load struct {
	root  string
	bases Bases
	end   chan struct{}
	wg    sync.WaitGroup
	quiet atomic.Bool // nothing new is started

	mu       sync.Mutex
	followed []followed // versions since the start, the last one is in force
	done     map[string]int
	problems []string
}

type followed struct {
	version int
	since   time.Time
}

// None stands for no argument or no result.
type None struct{}

// stale bounds the time for which a node may see what a switch has replaced. Its cache time is much shorter.
const stale = time.Minute

// maxProblems bounds the problems in a report.
const maxProblems = 20

// Bases reads the programs that versions are made of.
func (l *Load) Bases(dir string, _ *None) (err error) {
	l.bases, err = LoadBases(dir)
	return err
}

// StartArgs has the directory of a replica, and the version that it shows.
type StartArgs struct {
	Root    string
	Version int
}

// Start starts the load.
func (l *Load) Start(a StartArgs, _ *None) error {
	l.root, l.end, l.done = filepath.Join(a.Root, Dir), make(chan struct{}), map[string]int{}
	l.followed = []followed{{a.Version, time.Now()}}
	own := filepath.Join(a.Root, "srv/own")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	for range 2 {
		l.again("files read", l.readContents)
	}
	l.again("directories listed", l.list)
	l.again("trees walked", l.walk)
	l.again("types looked at", l.turn)
	l.again("files and directories held", l.hold)
	l.again("mappings held", l.holdMapping)
	l.again("programs run", l.runPrograms)
	l.again("shared libraries run", l.runDynamic)
	l.again("own files written", newWriter(own, l.path("both")).write)
	l.again("caches dropped", l.dropCaches)
	return nil
}

// again repeats do until the end.
func (l *Load) again(what string, do func() error) {
	l.wg.Go(func() {
		for !l.ended(0) {
			if l.quiet.Load() {
				l.ended(50 * time.Millisecond)
				continue
			}
			err := do()
			l.mu.Lock()
			l.done[what]++
			l.mu.Unlock()
			if err != nil {
				l.problem("%s: %v", what, err)
			}
		}
	})
}

// ended waits for the end, at most for d, and reports whether it came.
func (l *Load) ended(d time.Duration) bool {
	select {
	case <-l.end:
		return true
	case <-time.After(d):
		return false
	}
}

func (l *Load) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < maxProblems {
		l.problems = append(l.problems,
			fmt.Sprintf("in version %d: ", l.followed[len(l.followed)-1].version)+fmt.Sprintf(format, args...))
	}
}

// InForce announces that the server shows a version.
func (l *Load) InForce(v int, _ *None) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = append(l.followed, followed{v, time.Now()})
	return nil
}

// Report is what a load did and saw.
type Report struct {
	Done     map[string]int
	Problems []string
}

// Stop ends the load.
func (l *Load) Stop(_ None, r *Report) error {
	close(l.end)
	l.wg.Wait()
	*r = Report{l.done, l.problems}
	return nil
}

// oldest returns the oldest version that a read which begins at that time may see.
func (l *Load) oldest(at time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	least := l.followed[len(l.followed)-1].version
	for i := len(l.followed) - 1; i > 0 && at.Sub(l.followed[i].since) < stale; i-- {
		least = min(least, l.followed[i-1].version)
	}
	return least
}

func (l *Load) dropCaches() error {
	if l.ended(3 * time.Second) {
		return nil
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

func (l *Load) path(name string) string { return filepath.Join(l.root, name) }

// read reads a file that is there in every version, and returns the version whose content it is.
func (l *Load) read(name string) (int, error) {
	begin := time.Now()
	data, err := os.ReadFile(l.path(name))
	if err != nil {
		return 0, err
	}
	v, err := VersionOf(data)
	if oldest := l.oldest(begin); err == nil && v < oldest {
		err = fmt.Errorf("%s is that of version %d, but none before %d was to be seen any more", name, v, oldest)
	}
	return v, err
}

func (l *Load) readContents() error {
	var errs []error
	for i := range contents {
		_, err := l.read(fmt.Sprintf("content/f%d", i))
		errs = append(errs, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		_, err := l.read("hard/" + name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// list lists directories. Each listing must be that of one version; in a long one, no name that all versions
// have may be missing or appear twice.
func (l *Load) list() error {
	return errors.Join(
		l.listing("list", func(names []string, v int) bool { return slices.Equal(names, listOf(v)) }),
		l.listing("renamed", func(names []string, v int) bool {
			return slices.Equal(names, []string{fmt.Sprintf("n-%06d", v)})
		}),
		l.listing("dirs", func(names []string, v int) bool {
			return slices.Equal(names, []string{dirName(v - 1), dirName(v)})
		}),
		l.listMany(),
	)
}

func (l *Load) listing(dir string, is func(names []string, v int) bool) error {
	oldest := l.oldest(time.Now())
	names, err := namesOf(l.path(dir))
	if err != nil {
		return err
	}
	l.mu.Lock()
	newest := l.followed[0].version
	for _, f := range l.followed {
		newest = max(newest, f.version)
	}
	l.mu.Unlock()
	for v := oldest; v <= newest+1; v++ { // the server may be one version ahead of the announcement
		if is(names, v) {
			return nil
		}
	}
	return fmt.Errorf("%s is the listing of no version from %d to %d: %q", dir, oldest, newest+1, names)
}

func namesOf(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (l *Load) listMany() error {
	names, err := namesOf(l.path("many"))
	if err != nil {
		return err
	}
	if twice := len(names) - len(slices.Compact(slices.Clone(names))); twice > 0 {
		return fmt.Errorf("many: %d names are there twice", twice)
	}
	for i := range many {
		if !slices.Contains(names, manyName(i)) {
			return fmt.Errorf("many: %s is missing among %d", manyName(i), len(names))
		}
	}
	return nil
}

// walk visits everything. Names that only some versions have may be missing.
func (l *Load) walk() error {
	return filepath.WalkDir(l.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		if comesAndGoes(err) {
			return nil
		}
		return err
	})
}

func comesAndGoes(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR)
}

// turn checks the path that is a file, a directory or a symbolic link by turns: it must always exist.
func (l *Load) turn() error {
	var errs []error
	for range 20 {
		fi, err := os.Lstat(l.path("turn"))
		if err != nil {
			return err
		}
		name := l.path("turn")
		if fi.IsDir() {
			name += "/d"
		}
		data, err := os.ReadFile(name)
		if err == nil {
			_, err = VersionOf(data)
		}
		if !comesAndGoes(err) {
			errs = append(errs, err)
		}
		fi, err = os.Lstat(l.path("mode"))
		if err == nil && (fi.Mode()&^7 != 0o600 || fi.Size() != 5) {
			err = fmt.Errorf("mode is %v, %d bytes", fi.Mode(), fi.Size())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Settle returns when everything shows version v exactly, or an error when it does not within a minute.
func (l *Load) Settle(v int, _ *None) error {
	l.quiet.Store(true) // the guest has one processor, and there is much to look at
	defer l.quiet.Store(false)
	want := At(v, l.bases)
	delete(want, "both") // the node has its own, too
	var err error
	for end := time.Now().Add(stale); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = l.compare(want); err == nil {
			return nil
		}
	}
	return fmt.Errorf("version %d does not show: %w", v, err)
}

func (l *Load) compare(want Tree) error {
	left := maps.Clone(want)
	err := filepath.WalkDir(l.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(l.root, path)
		e, known := want[rel]
		if rel == "." || rel == "both" {
			return nil
		}
		if !known {
			return fmt.Errorf("%s is there still", rel)
		}
		delete(left, rel)
		return l.same(rel, &e)
	})
	for path := range left {
		err = errors.Join(err, fmt.Errorf("%s is missing", path))
		break
	}
	return err
}

func (l *Load) same(path string, e *Entry) error {
	if e.Link != "" {
		return l.linked(path, e.Link)
	}
	fi, err := os.Lstat(l.path(path))
	if err != nil {
		return err
	}
	if fi.Mode() != e.Mode {
		return fmt.Errorf("%s: mode %v, want %v", path, fi.Mode(), e.Mode)
	}
	if !fi.Mode().IsRegular() || len(e.Data) == 0 && fi.Size() == 0 {
		return nil
	}
	if data, err := os.ReadFile(l.path(path)); err != nil || string(data) != string(e.Data) {
		return fmt.Errorf("%s: %d bytes that begin with %.40q (%v)", path, len(data), data[:min(40, len(data))], err)
	}
	return nil
}

func (l *Load) linked(a, b string) error {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Lstat(l.path(a), &x), unix.Lstat(l.path(b), &y)); err != nil {
		return err
	}
	if x.Ino != y.Ino || x.Nlink != 2 || y.Nlink != 2 {
		return fmt.Errorf("%s and %s are not one file: ids %x and %x, links %d and %d", a, b, x.Ino, y.Ino, x.Nlink,
			y.Nlink)
	}
	return nil
}
