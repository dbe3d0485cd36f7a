package commit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/replica/fds"
)

// open opens the group of a disk, and its top directory.
func open(t *testing.T, d *disktest.Disk) (*Group, int) {
	t.Helper()
	fd, err := unix.Open(d.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	return g, fd
}

var fileSystems = []struct {
	name    string
	mkfs    []string
	ordered bool
}{
	{"ext4", []string{"mkfs.ext4", "-q", "-F"}, true},
	{"ext4 with small inodes", []string{"mkfs.ext4", "-q", "-F", "-I", "128"}, true},
	{"ext4 without a journal", []string{"mkfs.ext4", "-q", "-F", "-O", "^has_journal"}, false},
	{"xfs", []string{"mkfs.xfs", "-q", "-f"}, true},
}

func TestFileSystemsAreRecognized(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			g, fd := open(t, disktest.New(t, fs.mkfs...))
			defer unix.Close(fd)
			defer g.Close()
			if g.Ordered() != fs.ordered {
				t.Errorf("ordered: %v", g.Ordered())
			}
		})
	}
}

func TestLazyTimesAreFound(t *testing.T) {
	const plain = "29 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
	for _, c := range []struct {
		mounts string
		want   bool
	}{
		{plain, true},
		{"", false},
		{strings.Replace(plain, "253:0", "253:1", 1), false},
		{strings.Replace(plain, "ext4", "ext3", 1), false},
		{plain + strings.Replace(plain, "discard", "lazytime", 1), false},
		{strings.Replace(plain, "relatime", "lazytime", 1), false},
	} {
		if got := plainIn(strings.NewReader(c.mounts), "253:0", "ext4"); got != c.want {
			t.Errorf("%q: %v", c.mounts, got)
		}
	}
}

// A power cut: the file system stops while many callers work, and nothing more reaches the disk. What was
// acknowledged must be there afterwards, and nothing may be acknowledged after the cut.
func TestAcknowledgedChangesSurviveACut(t *testing.T) {
	for _, fs := range fileSystems {
		if strings.Contains(fs.name, "without") {
			continue // it cannot be cut: nothing would mend it
		}
		t.Run(fs.name, func(t *testing.T) {
			d := disktest.New(t, fs.mkfs...)
			done := workUntilCut(t, d)
			d.Remount()
			for _, w := range done {
				w.check(t)
			}
		})
	}
}

// worker makes, writes, renames and removes files in a directory of its own; n is how many rounds were acknowledged.
type worker struct {
	dir string
	n   int
}

func workUntilCut(t *testing.T, d *disktest.Disk) []*worker {
	g, fd := open(t, d)
	defer unix.Close(fd)
	defer g.Close()
	var workers []*worker
	var acknowledged atomic.Int64
	var cutting, cut atomic.Bool
	var wg sync.WaitGroup
	for i := range 16 {
		w := &worker{dir: filepath.Join(d.Dir, fmt.Sprint("dir-", i))}
		if err := os.Mkdir(w.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		workers = append(workers, w)
		wg.Go(func() {
			for {
				late := cut.Load()
				if err := w.round(g); err != nil {
					return
				}
				if late {
					t.Error("a change was acknowledged after the cut")
					return
				}
				if cutting.Load() {
					// fsync of XFS may return nil for what it discards now (fs/xfs/xfs_file.c: xfs_fsync_seq).
					return
				}
				w.n++
				if acknowledged.Add(1) == 400 {
					cutting.Store(true)
					const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
					if err := unix.IoctlSetPointerInt(fd, shutdown, noLogFlush); err != nil {
						t.Errorf("stop the file system: %v", err)
					}
					cut.Store(true)
				}
			}
		})
	}
	wg.Wait()
	if acknowledged.Load() < 400 {
		t.Fatalf("only %d rounds were acknowledged", acknowledged.Load())
	}
	return workers
}

func (w *worker) content() []byte { return []byte(strings.Repeat(fmt.Sprintln(w.dir, w.n), 400)) }

// round does what a CREATE with a WRITE and COMMIT, a RENAME and a REMOVE do, each synced before the next.
func (w *worker) round(g *Group) error {
	name := filepath.Join(w.dir, fmt.Sprint("new-", w.n))
	dir, err := unix.Open(w.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	content := w.content()
	if _, err := unix.Pwrite(fd, content, 0); err != nil {
		return err
	}
	f := &fds.File{FD: fd}
	names := Changes{Names: []*fds.File{f, {FD: dir}}}
	if err := errors.Join(g.Sync(Changes{Data: []*fds.File{f}}), g.Sync(names)); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(name, w.file(w.n)), g.Sync(names)); err != nil {
		return err
	}
	if w.n < 3 {
		return nil
	}
	return errors.Join(os.Remove(w.file(w.n-3)), g.Sync(Changes{Names: []*fds.File{{FD: dir}}}))
}

func (w *worker) file(n int) string { return filepath.Join(w.dir, fmt.Sprint("file-", n)) }

// check finds what the acknowledged rounds left, and the rest of at most one more.
func (w *worker) check(t *testing.T) {
	last := w.n
	for n := range last {
		b, err := os.ReadFile(w.file(n))
		w.n = n
		switch {
		case n < last-3 && err == nil:
			t.Errorf("%s is there again", w.file(n))
		case n == last-3: // the round that was cut may have removed it
		case n > last-3 && (err != nil || string(b) != string(w.content())):
			t.Errorf("%s: %d bytes, %v", w.file(n), len(b), err)
		}
	}
}
