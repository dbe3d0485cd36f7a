package storm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// holdFor is how long a file is held open or a program runs: longer than several switches take.
const holdFor = 6 * time.Second

// hold keeps a file and a directory open for a while. The file must keep its bytes, and the directory must stay
// readable.
func (l *Load) hold() error {
	f, err := os.Open(l.path(fmt.Sprintf("content/f%d", rand.IntN(contents))))
	if err != nil {
		return err
	}
	defer f.Close()
	l.mu.Lock()
	v := l.followed[len(l.followed)-1].version
	l.mu.Unlock()
	dir, err := os.Open(l.path("dirs/" + dirName(v) + "/deep"))
	if err != nil && !comesAndGoes(err) {
		return err
	}
	defer dir.Close()
	first, err := held(f)
	for end := time.Now().Add(holdFor); err == nil && time.Now().Before(end) && !l.ended(200*time.Millisecond); {
		err = errors.Join(holds(f, first), standing(dir))
	}
	return err
}

// held reads an open file, and stats it as newer C libraries do in fstat(3).
func held(f *os.File) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("fstat %s: %w", f.Name(), err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err == nil {
		_, err = VersionOf(data)
	}
	return data, err
}

func holds(f *os.File, first []byte) error {
	data, err := held(f)
	if err == nil && !bytes.Equal(data, first) {
		err = fmt.Errorf("%s: what was held open became other bytes: %.40q, then %.40q", f.Name(), first, data)
	}
	return err
}

// standing uses an open directory that may have been removed.
func standing(dir *os.File) error {
	if dir == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("fstat %s: %w", dir.Name(), err)
	}
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := dir.Readdirnames(-1); err != nil && !comesAndGoes(err) {
		return err
	}
	fd, err := unix.Openat(int(dir.Fd()), "x", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), dir.Name()+"/x")
		defer f.Close()
		_, err = held(f)
	}
	if comesAndGoes(err) {
		return nil
	}
	return err
}

// holdMapping maps a file and reads it for a while.
func (l *Load) holdMapping() error {
	f, err := os.Open(l.path("lib/data"))
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 256<<10, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for end := time.Now().Add(holdFor); err == nil && time.Now().Before(end) && !l.ended(100*time.Millisecond); {
		err = CheckLibrary(m)
	}
	return errors.Join(err, unix.Munmap(m))
}

// runPrograms starts the program, lets it run for a while, and stops it. It must end with exit code 0.
func (l *Load) runPrograms() error {
	cmd := exec.Command(l.path("bin/runner"), l.path("lib/data"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = out.Read(make([]byte, 8)) // it runs, and handles the signal
	l.ended(holdFor)
	_ = cmd.Process.Signal(unix.SIGTERM)
	if ended := cmd.Wait(); err != nil || ended != nil {
		return fmt.Errorf("%w: %s", errors.Join(err, ended), said.Bytes())
	}
	return nil
}

// runDynamic runs a program of the distribution with its loader and its library, each of which may be of
// another version.
func (l *Load) runDynamic() error {
	out, err := exec.Command(l.path("bin/ld.so"), "--library-path", l.path("bin"), l.path("bin/sleep"),
		"0.3").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// writer writes files of the node, and sometimes overwrites one that the master changes.
type writer struct {
	dir, both string
	wrote     map[string]int
	round     int
}

func newWriter(dir, both string) *writer {
	return &writer{dir: dir, both: both, wrote: map[string]int{}}
}

// ownFiles is the number of names that a writer uses in turn.
const ownFiles = 20

func (w *writer) write() error {
	w.round++
	name := fmt.Sprint("w", w.round%ownFiles)
	if was, there := w.wrote[name]; there {
		if err := w.check(name, was); err != nil {
			return err
		}
	}
	at := filepath.Join(w.dir, name)
	if err := writeSynced(at+".new", Content("own", w.round)); err != nil {
		return err
	}
	if err := os.Rename(at+".new", at); err != nil {
		return err
	}
	w.wrote[name] = w.round
	if w.round%10 > 0 {
		return nil
	}
	return writeSynced(w.both, Content("both", 0))
}

func (w *writer) check(name string, round int) error {
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	if err == nil && !bytes.Equal(data, Content("own", round)) {
		err = fmt.Errorf("the node's own %s, written in round %d, holds %.40q", name, round, data)
	}
	return err
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
