package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

func directoryCases() []testCase { return slices.Concat(makeDirectoryCases(), listingCases()) }

func makeDirectoryCases() []testCase {
	return []testCase{
		{"mkdir gives mode and owner, and counts in nlink above", "", func(t *testRun) {
			n := uint64(t.lstat(".").Nlink)
			t.ok(unix.Mkdir(t.p("d"), 0o751))
			t.mode("d", 0o751)
			same(t, "nlink", [2]uint64{uint64(t.lstat(".").Nlink), uint64(t.lstat("d").Nlink)}, [2]uint64{n + 1, 2})
			t.ok(unix.Rmdir(t.p("d")))
			same(t, "nlink", uint64(t.lstat(".").Nlink), n)
		}},
		{"mkdir over anything is EEXIST", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.symlink("nowhere", "l")
			for _, n := range []string{"f", "d", "l", "."} {
				t.fails(unix.Mkdir(t.p(n), 0o755), unix.EEXIST)
			}
		}},
		{"rmdir of a full directory is ENOTEMPTY, of dot EINVAL", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			t.file("d/f", "", perm{0o644, 0, 0})
			t.fails(unix.Rmdir(t.p("d")), unix.ENOTEMPTY, unix.EEXIST)
			t.fails(unix.Rmdir(t.raw("d/.")), unix.EINVAL)
			t.fails(unix.Rmdir(t.raw("d/..")), unix.ENOTEMPTY, unix.EEXIST, unix.EBUSY)
		}},
		{"dot and dot-dot lead where they should", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			var dot, up unix.Stat_t
			t.ok(unix.Stat(t.raw("d/."), &dot))
			t.ok(unix.Stat(t.raw("d/.."), &up))
			same(t, "dot", dot.Ino, t.lstat("d").Ino)
			same(t, "dot-dot", up.Ino, t.lstat(".").Ino)
		}},
		{"a listing agrees with stat in type and inode", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.symlink("f", "l")
			t.fifo("p", 0o644)
			es, err := os.ReadDir(t.p("."))
			t.ok(err)
			same(t, "entries", len(es), 4)
			for _, e := range es {
				info, err := os.Lstat(t.p(e.Name()))
				t.ok(err)
				same(t, "type of "+e.Name(), e.Type(), info.Mode().Type())
			}
		}},
		{"a directory of 1,500 names is listed whole", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			for i := range 1500 {
				t.touch(fmt.Sprintf("d/file-%04d", i))
			}
			seen := t.count("d", nil)
			same(t, "names", len(seen), 1500)
		}},
	}
}

func listingCases() []testCase {
	return []testCase{
		{"names that stay are listed once while others come and go", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			for i := range 1000 {
				t.touch(fmt.Sprintf("d/file-%04d", i))
			}
			round := 0
			seen := t.count("d", func() {
				t.ok(unix.Unlink(t.p(fmt.Sprintf("d/file-%04d", round*10))))
				t.ok(t.open(fmt.Sprintf("d/new-%04d", round), unix.O_CREAT|wr))
				round++
			})
			for i := range 1000 {
				name := fmt.Sprintf("file-%04d", i)
				if i%10 != 0 || i/10 >= round {
					same(t, "times of "+name, seen[name], 1)
				}
			}
		}},
		{"a directory is emptied while it is read", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			for i := range 1000 {
				t.touch(fmt.Sprintf("d/file-%04d", i))
			}
			d, err := os.Open(t.p("d"))
			t.ok(err)
			defer d.Close()
			for {
				names, err := d.Readdirnames(50)
				for _, n := range names {
					t.ok(unix.Unlink(t.p(filepath.Join("d", n))))
				}
				if err == io.EOF {
					break
				}
				t.ok(err)
			}
			t.ok(unix.Rmdir(t.p("d")))
		}},
		{"rewinddir shows what is new", "", func(t *testRun) {
			d, err := os.Open(t.p("."))
			t.ok(err)
			defer d.Close()
			first, err := d.Readdirnames(-1)
			t.ok(err)
			t.file("new", "", perm{0o644, 0, 0})
			_, err = d.Seek(0, 0)
			t.ok(err)
			second, err := d.Readdirnames(-1)
			t.ok(err)
			same(t, "names", len(second), len(first)+1)
		}},
		{"a tree of 40 levels is walked", "", func(t *testRun) {
			p := t.p(".")
			for range 40 {
				p = filepath.Join(p, "a-directory")
				t.ok(unix.Mkdir(p, 0o755))
			}
			t.ok(os.WriteFile(filepath.Join(p, "leaf"), []byte("x"), 0o644))
			n := 0
			t.ok(filepath.Walk(t.p("."), func(string, os.FileInfo, error) error { n++; return nil }))
			same(t, "objects", n, 42)
		}},
	}
}

// count lists a directory in several reads and counts each name. It runs do between the reads.
func (t *testRun) count(name string, do func()) map[string]int {
	d, err := os.Open(t.p(name))
	t.ok(err)
	defer d.Close()
	seen := make(map[string]int)
	for {
		names, err := d.Readdirnames(37)
		for _, n := range names {
			seen[n]++
		}
		if err == io.EOF {
			return seen
		}
		t.ok(err)
		if do != nil {
			do()
		}
	}
}
