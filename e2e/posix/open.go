package main

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// openCases are about files that are open when their names change.
func openCases() []testCase { return slices.Concat(removedWhileOpenCases(), movedWhileOpenCases()) }

func removedWhileOpenCases() []testCase {
	return []testCase{
		{"an open file lives on when its name is removed", "", func(t *testRun) {
			t.file("f", "content", perm{0o644, 0, 0})
			f := t.rdwr("f")
			t.ok(unix.Unlink(t.p("f")))
			t.gone("f")
			same(t, "names", t.names("."), "")
			_, err := f.WriteAt([]byte("CON"), 0)
			t.ok(err)
			b := make([]byte, 7)
			_, err = f.ReadAt(b, 0)
			t.ok(err)
			same(t, "content", string(b), "CONtent")
			t.ok(f.Truncate(3))
			t.ok(f.Chmod(0o600))
			t.ok(f.Close())
			t.gone("f")
		}},
		{"an open file without names has nlink 0", "the client renames it instead (silly rename)", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			t.ok(unix.Unlink(t.p("f")))
			var st unix.Stat_t
			t.ok(unix.Fstat(int(f.Fd()), &st))
			same(t, "nlink", uint64(st.Nlink), 0)
		}},
		{"an open file lives on when another takes its name", "", func(t *testRun) {
			t.file("f", "old", perm{0o644, 0, 0})
			t.file("n", "new", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			t.ok(t.rename("n", "f"))
			t.holds("f", "new")
			b := make([]byte, 3)
			_, err := f.ReadAt(b, 0)
			t.ok(err)
			same(t, "old content", string(b), "old")
			_, err = f.WriteAt([]byte("OLD"), 0)
			t.ok(err)
			t.holds("f", "new")
		}},
		{"a removed file that is open by two lives until both close", "", func(t *testRun) {
			t.file("f", "content", perm{0o644, 0, 0})
			one, two := t.rdwr("f"), t.rdwr("f")
			t.ok(unix.Unlink(t.p("f")))
			t.ok(one.Close())
			b := make([]byte, 7)
			_, err := two.ReadAt(b, 0)
			t.ok(err)
			same(t, "content", string(b), "content")
			t.ok(two.Close())
		}},
		{"a mapped file lives on when it was closed and removed", "", func(t *testRun) {
			t.file("f", "mapped", perm{0o644, 0, 0})
			f := t.rdwr("f")
			m, err := unix.Mmap(int(f.Fd()), 0, 6, unix.PROT_READ, unix.MAP_SHARED)
			t.ok(err)
			t.ok(f.Close())
			t.ok(unix.Unlink(t.p("f")))
			same(t, "content", string(m), "mapped")
			t.ok(unix.Munmap(m))
		}},
	}
}

func movedWhileOpenCases() []testCase {
	return []testCase{
		{"an open file follows its name to another directory", "", func(t *testRun) {
			t.file("f", "content", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			f := t.rdwr("f")
			defer f.Close()
			t.ok(t.rename("f", "d/g"))
			_, err := f.WriteAt([]byte("CON"), 0)
			t.ok(err)
			t.holds("d/g", "CONtent")
		}},
		{"a directory is removed when only an open file was in it",
			"the client's silly rename keeps the directory full", func(t *testRun) {
				t.mkdir("d", 0o755, 0, 0)
				t.file("d/f", "x", perm{0o644, 0, 0})
				f := t.rdwr("d/f")
				defer f.Close()
				t.ok(unix.Unlink(t.p("d/f")))
				t.ok(unix.Rmdir(t.p("d")))
				_, err := f.ReadAt(make([]byte, 1), 0)
				t.ok(err)
			}},
		{"nothing is made in a directory that was removed", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			d, err := os.Open(t.p("d"))
			t.ok(err)
			defer d.Close()
			t.ok(unix.Rmdir(t.p("d")))
			_, err = unix.Openat(int(d.Fd()), "f", unix.O_CREAT|wr, 0o644)
			t.fails(err, unix.ENOENT, unix.ESTALE)
			t.fails(unix.Mkdirat(int(d.Fd()), "s", 0o755), unix.ENOENT, unix.ESTALE)
		}},
		{"an open directory is found again where it moved", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			t.mkdir("e", 0o755, 0, 0)
			d, err := os.Open(t.p("d"))
			t.ok(err)
			defer d.Close()
			t.ok(t.rename("d", "e/d"))
			fd, err := unix.Openat(int(d.Fd()), "f", unix.O_CREAT|wr, 0o644)
			t.ok(err)
			unix.Close(fd)
			t.lstat("e/d/f")
		}},
		{"one who opened a file sees what another writes", "", func(t *testRun) {
			t.file("f", "before", perm{0o644, 0, 0})
			one, two := t.rdwr("f"), t.rdwr("f")
			defer one.Close()
			defer two.Close()
			b := make([]byte, 6)
			_, err := one.ReadAt(b, 0)
			t.ok(err)
			_, err = two.WriteAt([]byte("AFTER!"), 0)
			t.ok(err)
			_, err = one.ReadAt(b, 0)
			t.ok(err)
			same(t, "content", string(b), "AFTER!")
		}},
		{"locks of two open files exclude each other", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			one, two := t.rdwr("f"), t.rdwr("f")
			defer two.Close()
			t.ok(unix.Flock(int(one.Fd()), unix.LOCK_EX))
			t.fails(unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			t.ok(one.Close())
			t.ok(unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		}},
	}
}
