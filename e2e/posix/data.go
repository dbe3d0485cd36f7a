package main

import (
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

func dataCases() []testCase { return slices.Concat(readWriteCases(), sizeCases(), mappingCases()) }

func readWriteCases() []testCase {
	return []testCase{
		{"what is written is read", "", func(t *testRun) {
			want := strings.Repeat("0123456789abcdef", 20_000)
			t.ok(os.WriteFile(t.p("f"), []byte(want), 0o644))
			t.holds("f", want)
			same(t, "size", t.lstat("f").Size, int64(len(want)))
		}},
		{"pwrite inside, over and beyond the end", "", func(t *testRun) {
			t.file("f", "0123456789", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			for _, c := range []struct {
				off  int64
				data string
			}{{3, "abc"}, {9, "xyz"}, {5000, "end"}} {
				_, err := f.WriteAt([]byte(c.data), c.off)
				t.ok(err)
			}
			t.holds("f", "012abc678xyz"+strings.Repeat("\x00", 4988)+"end")
		}},
		{"O_APPEND writes at the end whatever the offset", "", func(t *testRun) {
			t.file("f", "start", perm{0o644, 0, 0})
			f, err := os.OpenFile(t.p("f"), os.O_RDWR|os.O_APPEND, 0)
			t.ok(err)
			defer f.Close()
			_, err = f.Seek(0, 0)
			t.ok(err)
			_, err = f.WriteString("+1")
			t.ok(err)
			_, err = f.WriteString("+2")
			t.ok(err)
			t.holds("f", "start+1+2")
		}},
		{"appends of several threads are all there", "", func(t *testRun) {
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					f, err := os.OpenFile(t.p("f"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
					if err != nil {
						t.errorf("open: %v", err)
						return
					}
					defer f.Close()
					for range 25 {
						if _, err := f.WriteString(strings.Repeat(string(rune('a'+i)), 10)); err != nil {
							t.errorf("append: %v", err)
						}
					}
				})
			}
			wg.Wait()
			same(t, "size", t.lstat("f").Size, int64(1000))
			b, err := os.ReadFile(t.p("f"))
			t.ok(err)
			for i := range 4 {
				same(t, "bytes of one", strings.Count(string(b), strings.Repeat(string(rune('a'+i)), 10)) >= 1, true)
				same(t, "bytes of one", strings.Count(string(b), string(rune('a'+i))), 250)
			}
		}},
	}
}

func sizeCases() []testCase {
	return []testCase{
		{"truncate cuts, and grows with zeros", "", func(t *testRun) {
			t.file("f", strings.Repeat("secret", 3000), perm{0o644, 0, 0})
			t.ok(unix.Truncate(t.p("f"), 5))
			t.ok(unix.Truncate(t.p("f"), 9000))
			t.holds("f", "secre"+strings.Repeat("\x00", 8995))
			t.ok(unix.Truncate(t.p("f"), 0))
			t.holds("f", "")
		}},
		{"ftruncate works through an open file", "", func(t *testRun) {
			t.file("f", "0123456789", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			t.ok(f.Truncate(4))
			_, err := f.WriteAt([]byte("z"), 6)
			t.ok(err)
			t.holds("f", "0123\x00\x00z")
		}},
		{"truncate of other kinds is refused", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			t.fifo("fifo", 0o644)
			t.fails(unix.Truncate(t.p("d"), 0), unix.EISDIR)
			t.fails(unix.Truncate(t.p("fifo"), 0), unix.EINVAL)
			t.fails(unix.Truncate(t.p("none"), 0), unix.ENOENT)
			t.file("f", "", perm{0o644, 0, 0})
			t.fails(unix.Truncate(t.p("f"), -1), unix.EINVAL)
		}},
		{"offsets beyond 4 GiB work and leave a hole", "", func(t *testRun) {
			t.file("f", "start", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			const off = 5<<30 + 123
			_, err := f.WriteAt([]byte("far"), off)
			t.ok(err)
			t.ok(f.Sync())
			st := t.lstat("f")
			same(t, "size", st.Size, off+3)
			if st.Blocks*512 > 1<<30 {
				t.errorf("%d blocks used", st.Blocks)
			}
			b := make([]byte, 5)
			_, err = f.ReadAt(b, off-2)
			t.ok(err)
			same(t, "data", string(b), "\x00\x00far")
			_, err = f.ReadAt(b, 1<<32-2)
			t.ok(err)
			same(t, "hole", string(b), "\x00\x00\x00\x00\x00")
		}},
	}
}

func mappingCases() []testCase {
	return []testCase{
		{"a shared mapping shows writes and its writes are read", "", func(t *testRun) {
			t.file("f", strings.Repeat("a", 8192), perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			t.ok(err)
			same(t, "byte", m[4096], byte('a'))
			_, err = f.WriteAt([]byte("W"), 4096)
			t.ok(err)
			same(t, "byte in the map after write", m[4096], byte('W'))
			m[1] = 'M'
			t.ok(unix.Msync(m, unix.MS_SYNC))
			b := make([]byte, 3)
			_, err = f.ReadAt(b, 0)
			t.ok(err)
			same(t, "read after a write to the map", string(b), "aMa")
			t.ok(unix.Munmap(m))
			t.holds("f", "aM"+strings.Repeat("a", 4094)+"W"+strings.Repeat("a", 4095))
		}},
		{"a private mapping keeps its writes to itself", "", func(t *testRun) {
			t.file("f", "original", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			t.ok(err)
			m[0] = 'X'
			t.ok(unix.Munmap(m))
			t.holds("f", "original")
		}},
		{"fsync and fdatasync work on files, fsync on directories", "", func(t *testRun) {
			t.file("f", "x", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			t.ok(unix.Fsync(int(f.Fd())))
			t.ok(unix.Fdatasync(int(f.Fd())))
			d, err := os.Open(t.p("."))
			t.ok(err)
			defer d.Close()
			t.ok(d.Sync())
		}},
		{"a file opened for reading is not written, nor the other way round", "", func(t *testRun) {
			t.file("f", "x", perm{0o644, 0, 0})
			fd, err := unix.Open(t.p("f"), unix.O_RDONLY, 0)
			t.ok(err)
			_, err = unix.Write(fd, []byte("y"))
			t.fails(err, unix.EBADF)
			t.fails(unix.Ftruncate(fd, 0), unix.EINVAL, unix.EBADF)
			unix.Close(fd)
			fd, err = unix.Open(t.p("f"), unix.O_WRONLY, 0)
			t.ok(err)
			_, err = unix.Read(fd, make([]byte, 1))
			t.fails(err, unix.EBADF)
			unix.Close(fd)
		}},
		{"random input and output, mapped or not, agrees with a model", "", fsx},
	}
}

func (t *testRun) rdwr(name string) *os.File {
	f, err := os.OpenFile(t.p(name), os.O_RDWR, 0)
	t.ok(err)
	return f
}
