package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// makeTree makes a tree with the proportions of an installed Debian: of 100 names 8 are directories and 4
// symlinks; the sizes of files are log-normal, with a median of a tenth of the mean; 1 in 200 files is a hard
// link.
func makeTree(root string, names int, bytes int64) error {
	r := rand.New(rand.NewPCG(1, 2))
	dirs := []string{root}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for i := range names * 8 / 100 {
		parent := dirs[int(float64(len(dirs))*r.Float64()*r.Float64())] // older directories have more entries
		dir := fmt.Sprintf("%s/directory-%d", parent, i)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		dirs = append(dirs, dir)
	}
	files := names * 88 / 100
	mean := float64(bytes) / float64(files)
	sigma := math.Sqrt(2 * math.Log(10))
	noise := make([]byte, 32<<20)
	for i := 0; i < len(noise); i += 8 {
		*(*uint64)(unsafe.Pointer(&noise[i])) = r.Uint64()
	}
	last := ""
	for i := range files {
		name := fmt.Sprintf("%s/some-file-%d.so", dirs[r.IntN(len(dirs))], i)
		if i%200 == 199 {
			if err := os.Link(last, name); err != nil {
				return err
			}
			continue
		}
		size := min(int(mean/10*math.Exp(sigma*r.NormFloat64())), 24<<20)
		from := r.IntN(len(noise) - size)
		if err := os.WriteFile(name, noise[from:from+size], 0o644); err != nil {
			return err
		}
		last = name
	}
	for i := range names * 4 / 100 {
		if err := os.Symlink(filepath.Base(last), fmt.Sprintf("%s/link-%d", dirs[r.IntN(len(dirs))], i)); err != nil {
			return err
		}
	}
	return nil
}

const workers = 8

// hash reads and hashes every file, and does nothing else.
func (b *bench) hash() error {
	names := make(chan string, 1024)
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			h, buf := sha256.New(), make([]byte, 1<<20)
			var sum [sha256.Size]byte
			for name := range names {
				f, err := os.Open(name)
				if err != nil {
					return err
				}
				h.Reset()
				_, err = io.CopyBuffer(h, struct{ io.Reader }{f}, buf)
				f.Close()
				if err != nil {
					return err
				}
				h.Sum(sum[:0])
			}
			return nil
		})
	}
	err := filepath.WalkDir(b.tree, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names <- path
		}
		return err
	})
	close(names)
	return errors.Join(err, g.Wait())
}

// walk lists every directory and stats every name, with as many goroutines as make it faster, and does nothing else.
func walk(root string) (names uint64, err error) {
	w := walker{stack: []string{root}, active: 0}
	w.wake.L = &w.mu
	var wg sync.WaitGroup
	for range workers {
		wg.Go(w.work)
	}
	wg.Wait()
	return w.names, w.err
}

type walker struct {
	mu     sync.Mutex
	wake   sync.Cond
	stack  []string
	active int
	names  uint64
	err    error
}

func (w *walker) work() {
	buf := make([]byte, 64<<10)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.stack) == 0 && w.active > 0 {
			w.wake.Wait()
		}
		if len(w.stack) == 0 {
			w.wake.Broadcast()
			return
		}
		dir := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		w.active++
		w.mu.Unlock()
		below, n, err := list(dir, buf)
		w.mu.Lock()
		w.active--
		w.names += n
		w.err = errors.Join(w.err, err)
		w.stack = append(w.stack, below...)
		if len(below) > 0 {
			w.wake.Broadcast()
		}
	}
}

func list(dir string, buf []byte) (below []string, names uint64, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return below, names, err
		}
		for at := 0; at < n; {
			reclen := int(*(*uint16)(unsafe.Pointer(&buf[at+16])))
			name := unix.BytePtrToString(&buf[at+19])
			if name != "." && name != ".." {
				var x unix.Statx_t
				_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&buf[at+19])),
					unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&x)), 0)
				if errno != 0 {
					return below, names, errno
				}
				names++
				if x.Mode&unix.S_IFMT == unix.S_IFDIR {
					below = append(below, dir+"/"+name)
				}
			}
			at += reclen
		}
	}
}
