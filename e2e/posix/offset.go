package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// offsetCases are about large offsets, holes and sizes.
func offsetCases() []testCase { return slices.Concat(holeCases(), truncateCases()) }

// holeCases are about offsets and holes.
func holeCases() []testCase {
	return []testCase{
		{"data lies where it was written, at every power of two", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			for i := 12; i <= 43; i++ { // ext4 ends at 2^44
				word := fmt.Sprintf("<%02d>", i)
				_, err := f.WriteAt([]byte(word), 1<<i-2)
				t.ok(err)
				same(t, "size", t.lstat("f").Size, int64(1<<i+2))
			}
			t.ok(f.Sync())
			b := make([]byte, 8)
			for i := 12; i <= 42; i++ {
				_, err := f.ReadAt(b, 1<<i-4)
				t.ok(err)
				same(t, "around a power", string(b), fmt.Sprintf("\x00\x00<%02d>\x00\x00", i))
			}
			t.ok(f.Truncate(1<<32 - 1))
			same(t, "size", t.lstat("f").Size, int64(1<<32-1))
			t.ok(f.Truncate(1 << 33))
			_, err := f.ReadAt(b, 1<<32-4)
			t.ok(err)
			same(t, "around the cut", string(b), "\x00\x00<"+strings.Repeat("\x00", 5))
		}},
		{"a sparse file stays sparse when something is written into it", "", func(t *testRun) {
			const size = 64 << 20
			t.sparse("f", size, "end")
			f := t.rdwr("f")
			defer f.Close()
			_, err := f.WriteAt([]byte("middle"), size/2)
			t.ok(err)
			t.ok(f.Sync())
			st := t.lstat("f")
			same(t, "size", st.Size, int64(size))
			if st.Blocks*512 > size/4 {
				t.errorf("%d blocks used", st.Blocks)
			}
			for off, want := range map[int64]string{0: "\x00\x00\x00", size/2 - 1: "\x00mi", size/2 + 4: "le\x00",
				size - 3: "end"} {
				b := make([]byte, 3)
				_, err := f.ReadAt(b, off)
				t.ok(err)
				same(t, "bytes", string(b), want)
			}
		}},
		{"a search for holes and data passes over no data", "", func(t *testRun) {
			const size = 1 << 20
			t.sparse("f", size, "end")
			f := t.rdwr("f")
			defer f.Close()
			_, err := f.WriteAt([]byte("middle"), size/2)
			t.ok(err)
			t.ok(f.Sync())
			for _, at := range []int64{size / 2, size - 3} {
				off, err := f.Seek(at, unix.SEEK_DATA)
				t.ok(err)
				same(t, "data", off, at)
			}
			off, err := f.Seek(0, unix.SEEK_DATA)
			t.ok(err)
			same(t, "data at or before the first", off <= size/2, true)
			off, err = f.Seek(size-1, unix.SEEK_HOLE)
			t.ok(err)
			same(t, "the hole at the end", off, int64(size))
			_, err = f.Seek(size, unix.SEEK_DATA)
			t.fails(err, unix.ENXIO)
		}},
	}
}

// truncateCases are about sizes.
func truncateCases() []testCase {
	return []testCase{
		{"what a cut took does not come back, whatever the place of the cut", "", func(t *testRun) {
			full := strings.Repeat("data", 5000)
			sizes := []int{0, 1, 511, 512, 4095, 4096, 4097, 8191, 12288, 19999}
			for _, n := range sizes {
				t.file(fmt.Sprint("f", n), full, perm{0o644, 0, 0})
			}
			for _, n := range sizes {
				name := fmt.Sprint("f", n)
				t.ok(unix.Truncate(t.p(name), int64(n)))
				t.ok(unix.Truncate(t.p(name), int64(len(full))))
				t.holds(name, full[:n]+strings.Repeat("\x00", len(full)-n))
			}
		}},
		{"an open file is cut and grown by others", "", func(t *testRun) {
			t.file("f", strings.Repeat("x", 10_000), perm{0o644, 0, 0})
			f, err := os.Open(t.p("f"))
			t.ok(err)
			defer f.Close()
			b := make([]byte, 10)
			_, err = f.ReadAt(b, 9_000)
			t.ok(err)
			t.ok(unix.Truncate(t.p("f"), 5_000))
			n, err := unix.Pread(int(f.Fd()), b, 9_000)
			t.ok(err)
			same(t, "bytes beyond the cut", n, 0)
			t.ok(unix.Truncate(t.p("f"), 9_005))
			n, err = unix.Pread(int(f.Fd()), b, 9_000)
			t.ok(err)
			same(t, "bytes after growth", string(b[:n]), "\x00\x00\x00\x00\x00")
		}},
	}
}
