package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	fsxLimit = 256 << 10 // largest file
	fsxPiece = 48 << 10  // largest read or write
)

// fsxRun is a file and its expected content.
type fsxRun struct {
	t     *testRun
	f     *os.File
	model []byte
	rng   *rand.Rand
	log   []string // the last steps
}

// fsx performs random operations on one file and compares each read with a model in memory. The seed determines
// the steps, so a failure can be repeated.
func fsx(t *testRun) {
	start := strings.Repeat("0123456789abcde", 8<<10)
	t.file("f", start, perm{0o644, 0, 0})
	x := &fsxRun{t: t, f: t.rdwr("f"), model: []byte(start), rng: rand.New(rand.NewPCG(t.seed, 0))}
	defer func() { x.f.Close() }()
	steps := []func() (string, error){x.read, x.read, x.write, x.write, x.write, x.truncate, x.mapRead, x.mapWrite,
		x.reopen, x.sync}
	for i := range t.ops {
		what, err := steps[x.rng.IntN(len(steps))]()
		x.log = append(x.log, what)
		if err != nil {
			tail := x.log[max(0, len(x.log)-8):]
			t.fatalf("seed %d, step %d: %v; last steps: %s", t.seed, i, err, strings.Join(tail, ", "))
		}
	}
	if what, err := x.readAt(0, len(x.model)); err != nil {
		t.fatalf("seed %d, at the end, %s: %v", t.seed, what, err)
	}
}

// span picks a range that begins in the file, or anywhere below the limit.
func (x *fsxRun) span(inside bool) (off, n int) {
	end := fsxLimit - fsxPiece
	if inside {
		end = len(x.model)
	}
	off = x.rng.IntN(end)
	n = 1 + x.rng.IntN(fsxPiece)
	if inside {
		n = min(n, len(x.model)-off)
	}
	return off, n
}

func (x *fsxRun) read() (string, error) {
	off, n := x.span(false)
	return x.readAt(off, n)
}

func (x *fsxRun) readAt(off, n int) (string, error) {
	what := fmt.Sprintf("read %d at %d", n, off)
	p := make([]byte, n)
	got, err := x.f.ReadAt(p, int64(off))
	want := x.model[min(off, len(x.model)):min(off+n, len(x.model))]
	if got != n && err.Error() != "EOF" {
		return what, err
	}
	return what, differ(p[:got], want, off)
}

func differ(got, want []byte, off int) error {
	if len(got) != len(want) {
		return fmt.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d is %#x, want %#x", off+i, got[i], want[i])
		}
	}
	return nil
}

func (x *fsxRun) fill(n int) []byte {
	return bytes.Repeat([]byte{byte(1 + x.rng.IntN(255)), byte(x.rng.IntN(256)), byte(x.rng.IntN(256))}, n/3+1)[:n]
}

func (x *fsxRun) write() (string, error) {
	off, n := x.span(false)
	p := x.fill(n)
	if len(x.model) < off+n {
		x.resize(off + n)
	}
	copy(x.model[off:], p)
	_, err := x.f.WriteAt(p, int64(off))
	return fmt.Sprintf("write %d at %d", n, off), err
}

func (x *fsxRun) resize(size int) {
	if size < len(x.model) {
		x.model = x.model[:size:size]
		return
	}
	x.model = append(x.model, make([]byte, size-len(x.model))...)
}

func (x *fsxRun) truncate() (string, error) {
	size := x.rng.IntN(fsxLimit)
	x.resize(size)
	err := x.f.Truncate(int64(size))
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(int(x.f.Fd()), &st); err == nil && st.Size != int64(size) {
			err = fmt.Errorf("size is %d", st.Size)
		}
	}
	return fmt.Sprintf("truncate to %d", size), err
}

// mapped runs do on a shared mapping of a range inside the file.
func (x *fsxRun) mapped(prot int, do func(m []byte, off int) error) (string, error) {
	if len(x.model) == 0 {
		return "map nothing", nil
	}
	off, n := x.span(true)
	what := fmt.Sprintf("map %d at %d (%d)", n, off, prot)
	start := off &^ (os.Getpagesize() - 1)
	m, err := unix.Mmap(int(x.f.Fd()), int64(start), off-start+n, prot, unix.MAP_SHARED)
	if err != nil {
		return what, err
	}
	err = do(m[off-start:], off)
	if e := unix.Munmap(m); err == nil {
		err = e
	}
	return what, err
}

func (x *fsxRun) mapRead() (string, error) {
	return x.mapped(unix.PROT_READ, func(m []byte, off int) error { return differ(m, x.model[off:off+len(m)], off) })
}

func (x *fsxRun) mapWrite() (string, error) {
	return x.mapped(unix.PROT_READ|unix.PROT_WRITE, func(m []byte, off int) error {
		p := x.fill(len(m))
		copy(m, p)
		copy(x.model[off:], p)
		return nil // writing back is left to the kernel: reads must see it at once
	})
}

func (x *fsxRun) reopen() (string, error) {
	if err := x.f.Close(); err != nil {
		return "close", err
	}
	f, err := os.OpenFile(x.t.p("f"), os.O_RDWR, 0)
	if err == nil {
		x.f = f
	}
	return "reopen", err
}

func (x *fsxRun) sync() (string, error) { return "fsync", x.f.Sync() }
