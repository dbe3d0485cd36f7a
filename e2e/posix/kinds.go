package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// kinds of files, as the rules of rename tell them apart.
func kinds() []string { return []string{"file", "link", "fifo", "device", "empty", "full"} }

// ofKind makes a file of a kind.
func (t *testRun) ofKind(kind, name string) {
	node := func(mode uint32, dev int) {
		t.prepare(name, func(path string) error { return unix.Mknod(path, mode|0o640, dev) })
	}
	switch kind {
	case "file":
		t.file(name, name, perm{0o640, aliceID, team})
	case "link":
		t.symlink(name, name)
	case "fifo":
		node(unix.S_IFIFO, 0)
	case "device":
		node(unix.S_IFCHR, int(unix.Mkdev(1, 7)))
	case "empty", "full":
		t.mkdir(name, 0o750, aliceID, team)
		if kind == "full" {
			t.file(name+"/in", name, perm{0o640, 0, 0})
		}
	}
}

// eachPair runs do for a file of every kind beside one of every kind.
func (t *testRun) eachPair(do func(from, to, fromKind, toKind string)) {
	for _, step := range []func(from, to, fromKind, toKind string){
		func(from, to, fromKind, toKind string) {
			t.ofKind(fromKind, from)
			t.ofKind(toKind, to)
		},
		do,
	} {
		for _, a := range kinds() {
			for _, b := range kinds() {
				step(fmt.Sprintf("%s-%s-from", a, b), fmt.Sprintf("%s-%s-to", a, b), a, b)
			}
		}
	}
}

func isDir(kind string) bool { return kind == "empty" || kind == "full" }

func kindCases() []testCase {
	return []testCase{
		{"each kind is renamed over each kind", "", renameKinds},
		{"each kind is linked, but directories, and over nothing", "", func(t *testRun) {
			t.eachPair(func(from, to, fromKind, toKind string) {
				t.fails(unix.Link(t.p(from), t.p(to)), unix.EEXIST)
				if isDir(fromKind) {
					t.fails(unix.Link(t.p(from), t.p(to+"2")), unix.EPERM)
					return
				}
				t.ok(unix.Link(t.p(from), t.p(to+"2")))
				same(t, "inode", t.lstat(to+"2").Ino, t.lstat(from).Ino)
				same(t, "nlink", uint64(t.lstat(from).Nlink), 2)
			})
		}},
		{"each kind is removed, and its name taken by each kind", "", func(t *testRun) {
			t.eachPair(func(from, to, fromKind, toKind string) {
				t.ok(os.RemoveAll(t.p(from)))
				t.gone(from)
				was := t.lstat(to)
				t.ok(unix.Rename(t.p(to), t.p(from)))
				t.gone(to)
				same(t, "inode of "+from, t.lstat(from).Ino, was.Ino)
				if isDir(toKind) {
					same(t, "names in "+from, t.names(from), map[string]string{"full": "in"}[toKind])
				}
			})
		}},
	}
}

func renameKinds(t *testRun) {
	t.eachPair(func(from, to, fromKind, toKind string) {
		was, over := t.lstat(from), t.lstat(to)
		err := unix.Rename(t.p(from), t.p(to))
		switch {
		case isDir(fromKind) && !isDir(toKind):
			t.fails(err, unix.ENOTDIR)
		case !isDir(fromKind) && isDir(toKind):
			t.fails(err, unix.EISDIR)
		case toKind == "full":
			t.fails(err, unix.ENOTEMPTY, unix.EEXIST)
		default:
			if err != nil {
				t.errorf("%s over %s: %v", fromKind, toKind, err)
			}
			t.gone(from)
			st := t.lstat(to)
			same(t, fromKind+" over "+toKind, [3]uint64{st.Ino, uint64(st.Mode), st.Rdev},
				[3]uint64{was.Ino, uint64(was.Mode), was.Rdev})
			return
		}
		same(t, "the one that stays", [2]uint64{t.lstat(from).Ino, t.lstat(to).Ino}, [2]uint64{was.Ino, over.Ino})
	})
}

// hiddenCases are about names that were removed and must not reappear.
func hiddenCases() []testCase {
	old := func(name string, f func(t *testRun)) testCase {
		return testCase{name, "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			t.file("d/f", "old", perm{0o644, 0, 0})
			t.mkdir("d/s", 0o755, 0, 0)
			t.file("d/s/g", "old", perm{0o644, 0, 0})
			t.mkdir("e", 0o755, 0, 0)
			t.file("e/new", "new", perm{0o644, 0, 0})
			t.link("d/f", "f2")
			f(t)
		}}
	}
	return []testCase{
		old("a directory removed and made again is empty", func(t *testRun) {
			for range 2 {
				t.ok(os.RemoveAll(t.p("d")))
				t.ok(unix.Mkdir(t.p("d"), 0o700))
				same(t, "names", t.names("d"), "")
				t.gone("d/f")
				t.ok(unix.Mkdir(t.p("d/s"), 0o700))
				same(t, "names", t.names("d/s"), "")
				t.gone("d/s/g")
			}
			same(t, "nlink of the name outside", uint64(t.lstat("f2").Nlink), 1)
			t.holds("f2", "old")
		}),
		old("a directory over one that was emptied shows its own names only", func(t *testRun) {
			t.ok(unix.Unlink(t.p("d/f")))
			t.fails(t.rename("e", "d"), unix.ENOTEMPTY, unix.EEXIST)
			t.ok(os.RemoveAll(t.p("d/s")))
			t.ok(t.rename("e", "d"))
			same(t, "names", t.names("d"), "new")
			t.ok(t.rename("d", "e"))
			same(t, "names", t.names("."), "e f2")
			same(t, "names", t.names("e"), "new")
		}),
		old("a directory moved to a name that was one shows its own names only", func(t *testRun) {
			t.ok(t.rename("d", "away"))
			t.ok(t.rename("e", "d"))
			same(t, "names", t.names("d"), "new")
			same(t, "names", t.names("away"), "f s")
			t.ok(t.rename("d", "e"))
			t.ok(t.rename("away", "d"))
			t.holds("d/s/g", "old")
		}),
		old("a directory in place of a file, and a file in place of a directory", func(t *testRun) {
			t.ok(unix.Unlink(t.p("d/f")))
			t.ok(unix.Mkdir(t.p("d/f"), 0o755))
			t.file("d/f/x", "x", perm{0o644, 0, 0})
			t.ok(os.RemoveAll(t.p("d/s")))
			t.file("d/s", "file", perm{0o644, 0, 0})
			same(t, "names", t.names("d/f"), "x")
			t.holds("d/s", "file")
			t.fails(t.open("d/s/g", rd), unix.ENOTDIR)
			t.ok(os.RemoveAll(t.p("d")))
			t.gone("d")
		}),
		old("files of a directory that moved are moved on one by one", func(t *testRun) {
			t.ok(t.rename("d", "e/d"))
			t.ok(t.rename("e/d/s/g", "g"))
			t.ok(t.rename("e/d/f", "e/d/s/g"))
			t.holds("g", "old")
			same(t, "inode", t.lstat("e/d/s/g").Ino, t.lstat("f2").Ino)
			same(t, "names", t.names("e/d"), "s")
			t.ok(t.rename("e/d/s", "d"))
			same(t, "names", t.names("."), "d e f2 g")
			t.ok(unix.Rmdir(t.p("e/d")))
		}),
		old("names of one file stay one file whatever is done to it", oneFile),
	}
}

// oneFile changes a file by one of its names and checks it by the others.
func oneFile(t *testRun) {
	t.ok(unix.Link(t.p("f2"), t.p("e/third")))
	names := []string{"d/f", "f2", "e/third"}
	for i, do := range []func(name string) error{
		func(name string) error { return unix.Chmod(t.p(name), 0o604) },
		func(name string) error { return unix.Chown(t.p(name), aliceID, team) },
		func(name string) error { return unix.Truncate(t.p(name), 2) },
		func(name string) error { return t.utimes(name, unix.Timespec{Sec: 5}, unix.Timespec{Sec: 7}) },
		func(name string) error { return os.WriteFile(t.p(name), []byte("new"), 0) },
		func(name string) error { return t.rename(name, "moved") },
		func(string) error { return t.rename("moved", "e/third") },
	} {
		name := names[i%3]
		t.ok(do(name))
		want := t.lstat(names[(i+1)%3])
		for _, n := range names {
			if i == 5 && n == name {
				n = "moved"
			}
			got := t.lstat(n)
			same(t, n, [6]int64{int64(got.Ino), int64(got.Mode), int64(got.Uid), got.Size, got.Mtim.Nano(),
				int64(got.Nlink)},
				[6]int64{int64(want.Ino), int64(want.Mode), int64(want.Uid), want.Size, want.Mtim.Nano(), 3})
		}
	}
	t.ok(unix.Unlink(t.p("d/f")))
	t.holds("f2", "new")
	t.holds("e/third", "new")
	same(t, "nlink", uint64(t.lstat("e/third").Nlink), 2)
}
