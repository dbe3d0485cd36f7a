package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func linkCases() []testCase {
	return []testCase{
		{"names of one file are the same file until the last goes", "", func(t *testRun) {
			t.file("f", "shared", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.link("f", "d/g")
			a, b := t.lstat("f"), t.lstat("d/g")
			same(t, "inode", a.Ino, b.Ino)
			same(t, "nlink", [2]uint64{uint64(a.Nlink), uint64(b.Nlink)}, [2]uint64{2, 2})
			t.append("d/g")
			t.holds("f", "sharedmore")
			t.ok(unix.Unlink(t.p("f")))
			same(t, "nlink", uint64(t.lstat("d/g").Nlink), 1)
			t.holds("d/g", "sharedmore")
		}},
		{"a link over an existing name is EEXIST, of a directory EPERM", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.fails(unix.Link(t.p("f"), t.p("d")), unix.EEXIST)
			t.fails(unix.Link(t.p("f"), t.p("f")), unix.EEXIST)
			t.fails(unix.Link(t.p("d"), t.p("e")), unix.EPERM)
			t.fails(unix.Link(t.p("none"), t.p("e")), unix.ENOENT)
		}},
		{"a symbolic link is linked itself", "", func(t *testRun) {
			t.symlink("x", "l")
			t.link("l", "m")
			same(t, "type", t.lstat("m").Mode&unix.S_IFMT, unix.S_IFLNK)
			same(t, "nlink", uint64(t.lstat("l").Nlink), 2)
		}},
		{"a file has a hundred names", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			for i := range 100 {
				t.ok(unix.Link(t.p("f"), t.p(fmt.Sprint("n", i))))
			}
			same(t, "nlink", uint64(t.lstat("f").Nlink), 101)
		}},
		{"unlink does not take directories, nor rmdir anything else", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.symlink("d", "l")
			t.fails(unix.Unlink(t.p("d")), unix.EISDIR)
			t.fails(unix.Rmdir(t.p("f")), unix.ENOTDIR)
			t.fails(unix.Rmdir(t.p("l")), unix.ENOTDIR)
			t.fails(unix.Unlink(t.p("none")), unix.ENOENT)
			t.fails(unix.Rmdir(t.p("none")), unix.ENOENT)
		}},
		{"a name removed and made again is another file", "", func(t *testRun) {
			for i := range 20 {
				t.file("f", fmt.Sprint(i), perm{0o644, 0, 0})
				t.holds("f", fmt.Sprint(i))
				t.ok(unix.Unlink(t.p("f")))
				t.gone("f")
				t.mkdir("f", 0o755, 0, 0)
				same(t, "names", t.names("f"), "")
				t.ok(unix.Rmdir(t.p("f")))
			}
		}},
	}
}

func (t *testRun) renameSeed() {
	t.file("f", "eff", perm{0o644, aliceID, aliceID})
	t.file("g", "gee", perm{0o600, bobID, bobID})
	t.symlink("f", "l")
	t.mkdir("d", 0o755, 0, 0)
	t.file("d/x", "ex", perm{0o644, 0, 0})
	t.mkdir("d/sub", 0o755, 0, 0)
	t.file("d/sub/y", "why", perm{0o644, 0, 0})
	t.mkdir("empty", 0o711, 0, 0)
	t.mkdir("e", 0o755, 0, 0)
	t.link("f", "f2")
}

// rename renames without cleaning dots in the names.
func (t *testRun) rename(from, to string) error {
	return unix.Rename(t.raw(from), t.raw(to))
}

func renameCases() []testCase {
	with := func(name string, f func(t *testRun)) testCase {
		return testCase{name, "", func(t *testRun) {
			t.renameSeed()
			f(t)
		}}
	}
	return []testCase{
		with("a file moves with all it is", func(t *testRun) {
			was := t.lstat("g")
			t.ok(t.rename("g", "d/sub/n"))
			t.gone("g")
			st := t.lstat("d/sub/n")
			same(t, "inode", st.Ino, was.Ino)
			same(t, "mtime", nsec(st.Mtim), nsec(was.Mtim))
			same(t, "mode, owner", [2]uint32{st.Mode, st.Uid}, [2]uint32{was.Mode, was.Uid})
			t.holds("d/sub/n", "gee")
		}),
		with("a file replaces a file", func(t *testRun) {
			t.ok(t.rename("g", "d/x"))
			t.gone("g")
			t.holds("d/x", "gee")
		}),
		with("a file replaces a symbolic link, not its target", func(t *testRun) {
			t.ok(t.rename("g", "l"))
			t.holds("l", "gee")
			t.holds("f", "eff")
		}),
		with("a file replaces one of two names", func(t *testRun) {
			t.ok(t.rename("g", "f2"))
			t.holds("f", "eff")
			same(t, "nlink", uint64(t.lstat("f").Nlink), 1)
		}),
		with("two names of one file over each other both stay", func(t *testRun) {
			t.ok(t.rename("f", "f2"))
			t.holds("f", "eff")
			t.holds("f2", "eff")
			same(t, "nlink", uint64(t.lstat("f").Nlink), 2)
		}),
		with("a directory moves with all that is in it", func(t *testRun) {
			ino, n := t.lstat("d").Ino, uint64(t.lstat(".").Nlink)
			t.ok(t.rename("d", "e/d2"))
			t.gone("d")
			same(t, "inode", t.lstat("e/d2").Ino, ino)
			t.holds("e/d2/sub/y", "why")
			same(t, "nlink", uint64(t.lstat(".").Nlink), n-1)
			same(t, "nlink of e", uint64(t.lstat("e").Nlink), 3)
			same(t, "dot-dot", t.lstat("e/d2/..").Ino, t.lstat("e").Ino)
		}),
		with("a directory replaces an empty directory", func(t *testRun) {
			t.ok(t.rename("d", "empty"))
			t.gone("d")
			same(t, "names", t.names("empty"), "sub x")
			t.mode("empty", 0o755)
		}),
		with("a name over itself stays", func(t *testRun) {
			for _, n := range []string{"f", "d", "l"} {
				t.ok(t.rename(n, n))
				t.lstat(n)
			}
		}),
		with("the old name is free afterwards", func(t *testRun) {
			t.ok(t.rename("d", "moved"))
			t.mkdir("d", 0o755, 0, 0)
			same(t, "names", t.names("d"), "")
			t.ok(t.rename("f", "moved/f"))
			t.file("f", "new", perm{0o644, 0, 0})
			t.holds("moved/f", "eff")
		}),
		with("RENAME_NOREPLACE replaces nothing", func(t *testRun) {
			err := unix.Renameat2(unix.AT_FDCWD, t.p("f"), unix.AT_FDCWD, t.p("g"), unix.RENAME_NOREPLACE)
			t.fails(err, unix.EEXIST, unix.EINVAL)
			t.holds("g", "gee")
		}),
	}
}

func renameRefusedCases() []testCase {
	refused := func(name, from, to string, want ...unix.Errno) testCase {
		return testCase{name, "", func(t *testRun) {
			t.renameSeed()
			names := t.names(".")
			t.fails(t.rename(from, to), want...)
			same(t, "names", t.names("."), names)
		}}
	}
	return []testCase{
		refused("a directory over one that is not empty is ENOTEMPTY", "e", "d", unix.ENOTEMPTY, unix.EEXIST),
		refused("a file over a directory is EISDIR", "f", "empty", unix.EISDIR),
		refused("a directory over a file is ENOTDIR", "empty", "f", unix.ENOTDIR),
		refused("a directory over a symbolic link is ENOTDIR", "empty", "l", unix.ENOTDIR),
		refused("a directory into itself is EINVAL", "d", "d/n", unix.EINVAL),
		refused("a directory into its own subtree is EINVAL", "d", "d/sub/n", unix.EINVAL),
		refused("a directory over the one it is in is ENOTEMPTY", "d/sub", "d", unix.ENOTEMPTY, unix.EEXIST),
		refused("a name that is not there is ENOENT", "none", "f", unix.ENOENT),
		refused("into a directory that is not there is ENOENT", "f", "none/f", unix.ENOENT),
		refused("dot is not renamed", "d/.", "n", unix.EBUSY, unix.EINVAL),
	}
}
