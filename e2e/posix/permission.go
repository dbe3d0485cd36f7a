package main

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	rd = unix.O_RDONLY
	wr = unix.O_WRONLY
	rw = unix.O_RDWR
)

func permissionCases() []testCase { return slices.Concat(mayOpenCases(), mayChangeCases()) }

func mayOpenCases() []testCase {
	return []testCase{
		{"one class alone decides about opening", "", func(t *testRun) {
			t.file("o6", "x", perm{0o600, aliceID, team})
			t.file("g6", "x", perm{0o060, aliceID, team})
			t.file("t6", "x", perm{0o006, aliceID, team})
			t.file("r4", "x", perm{0o444, aliceID, team})
			for _, c := range []struct {
				who   user
				name  string
				flags int
				ok    bool
			}{
				{alice(), "o6", rw, true}, {carol(), "o6", rd, false}, {bob(), "o6", rd, false},
				{alice(), "g6", rd, false}, {carol(), "g6", rw, true}, {bob(), "g6", rd, false},
				{alice(), "t6", wr, false}, {carol(), "t6", rd, false}, {bob(), "t6", rw, true},
				{alice(), "r4", rd, true}, {alice(), "r4", wr, false}, {alice(), "r4", rw, false},
				{carol(), "r4", rd, true}, {bob(), "r4", wr, false},
			} {
				t.as(c.who, func() {
					err := t.open(c.name, c.flags)
					if c.ok {
						t.ok(err)
						return
					}
					t.fails(err, unix.EACCES)
				})
			}
			for _, n := range []string{"o6", "g6", "t6", "r4"} {
				t.ok(t.open(n, rw))
			}
		}},
		{"access(2) tells what open does", "", func(t *testRun) {
			t.file("f", "", perm{0o754, aliceID, team})
			for _, c := range []struct {
				who  user
				want [3]bool // read, write, execute
			}{{alice(), [3]bool{true, true, true}}, {carol(), [3]bool{true, false, true}}, {bob(),
				[3]bool{true, false, false}}} {
				t.as(c.who, func() {
					for i, mode := range []uint32{unix.R_OK, unix.W_OK, unix.X_OK} {
						err := unix.Faccessat(unix.AT_FDCWD, t.p("f"), mode, 0)
						same(t, "may", err == nil, c.want[i])
					}
				})
			}
		}},
		{"a search needs execute permission, a listing read permission", "", func(t *testRun) {
			t.mkdir("x", 0o711, 0, 0)
			t.mkdir("r", 0o744, 0, 0)
			t.file("x/f", "x", perm{0o644, 0, 0})
			t.file("r/f", "x", perm{0o644, 0, 0})
			t.as(bob(), func() {
				t.ok(t.open("x/f", rd))
				t.fails(t.open("r/f", rd), unix.EACCES)
				t.fails(t.open("r/none", rd), unix.EACCES)
				t.fails(t.open("x", rd|unix.O_DIRECTORY), unix.EACCES)
				same(t, "names", t.names("r"), "f")
			})
		}},
		{"a supplementary group opens the way", "", func(t *testRun) {
			t.mkdir("g", 0o770, 0, team)
			t.file("g/f", "x", perm{0o640, 0, team})
			t.as(carol(), func() {
				t.ok(t.open("g/f", rd))
				t.ok(os.WriteFile(t.p("g/new"), []byte("n"), 0o644))
				t.ok(unix.Unlink(t.p("g/f")))
				same(t, "names", t.names("g"), "new")
			})
			t.as(bob(), func() { t.fails(t.open("g/new", rd), unix.EACCES) })
		}},
	}
}

func mayChangeCases() []testCase {
	return []testCase{
		{"making and removing need write permission in the directory", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			t.file("d/f", "x", perm{0o666, bobID, bobID})
			t.mkdir("d/s", 0o777, bobID, bobID)
			t.as(bob(), func() {
				t.fails(t.open("d/n", unix.O_CREAT|wr), unix.EACCES)
				t.fails(unix.Mkdir(t.p("d/n"), 0o755), unix.EACCES)
				t.fails(unix.Symlink("x", t.p("d/n")), unix.EACCES)
				t.fails(unix.Mkfifo(t.p("d/n"), 0o644), unix.EACCES)
				t.fails(unix.Link(t.p("d/f"), t.p("d/n")), unix.EACCES)
				t.fails(unix.Unlink(t.p("d/f")), unix.EACCES)
				t.fails(unix.Rmdir(t.p("d/s")), unix.EACCES)
				t.fails(unix.Rename(t.p("d/f"), t.p("d/g")), unix.EACCES)
				t.fails(unix.Rename(t.p("d/f"), t.p("d/s/f")), unix.EACCES)
				t.ok(os.WriteFile(t.p("d/f"), []byte("y"), 0))
			})
		}},
		{"removing needs no permission on the file itself", "", func(t *testRun) {
			t.mkdir("d", 0o777, 0, 0)
			t.file("d/f", "x", perm{0, aliceID, aliceID})
			t.as(bob(), func() { t.ok(unix.Unlink(t.p("d/f"))) })
			t.gone("d/f")
		}},
		{"a file made read-only is still written through the descriptor that made it", "", func(t *testRun) {
			t.mkdir("d", 0o777, 0, 0)
			t.as(bob(), func() {
				fd, err := unix.Open(t.p("d/f"), unix.O_CREAT|unix.O_EXCL|wr, 0o444)
				t.ok(err)
				_, err = unix.Write(fd, []byte("x"))
				t.ok(err)
				t.ok(unix.Ftruncate(fd, 5))
				t.ok(unix.Close(fd))
				t.fails(t.open("d/f", wr), unix.EACCES)
			})
			t.holds("d/f", "x\x00\x00\x00\x00")
		}},
		{"an open file is read and written after the permission has gone",
			"the server checks each call and knows of no open", func(t *testRun) {
				t.file("f", "content", perm{0o666, aliceID, aliceID})
				t.as(bob(), func() {
					f := t.rdwr("f")
					defer f.Close()
					t.as(alice(), func() { t.ok(unix.Chmod(t.p("f"), 0o600)) })
					_, err := f.WriteAt([]byte("C"), 0)
					t.ok(err)
					b := make([]byte, 7)
					_, err = f.ReadAt(b, 0)
					t.ok(err)
					same(t, "content", string(b), "Content")
					t.fails(t.open("f", rd), unix.EACCES)
				})
			}},
		{"sticky directories keep what belongs to others", "", sticky},
		{"a directory that moves must be writable", "", func(t *testRun) {
			t.mkdir("a", 0o777, 0, 0)
			t.mkdir("b", 0o777, 0, 0)
			t.mkdir("a/his", 0o755, aliceID, aliceID)
			t.as(bob(), func() {
				t.fails(unix.Rename(t.p("a/his"), t.p("b/his")), unix.EACCES)
				t.ok(unix.Rename(t.p("a/his"), t.p("a/still")))
			})
		}},
		{"a program runs only with execute permission, for root too", "", func(t *testRun) {
			t.file("f", "#!/bin/true\n", perm{0o644, 0, 0})
			t.fails(unix.Faccessat(unix.AT_FDCWD, t.p("f"), unix.X_OK, 0), unix.EACCES)
			t.ok(unix.Chmod(t.p("f"), 0o654))
			t.ok(unix.Faccessat(unix.AT_FDCWD, t.p("f"), unix.X_OK, 0))
		}},
	}
}

func sticky(t *testRun) {
	t.mkdir("tmp", 0o1777, 0, 0)
	t.mkdir("bobs", 0o1777, bobID, bobID)
	t.mkdir("open", 0o777, 0, 0)
	t.file("tmp/hers", "", perm{0o666, aliceID, aliceID})
	t.file("tmp/his", "", perm{0o666, bobID, bobID})
	t.mkdir("tmp/herd", 0o777, aliceID, aliceID)
	t.file("bobs/hers", "", perm{0o600, aliceID, aliceID})
	t.file("open/his", "", perm{0o600, bobID, bobID})
	t.as(bob(), func() {
		t.fails(unix.Unlink(t.p("tmp/hers")), unix.EPERM, unix.EACCES)
		t.fails(unix.Rmdir(t.p("tmp/herd")), unix.EPERM, unix.EACCES)
		t.fails(unix.Rename(t.p("tmp/hers"), t.p("tmp/x")), unix.EPERM, unix.EACCES)
		t.fails(unix.Rename(t.p("tmp/his"), t.p("tmp/hers")), unix.EPERM, unix.EACCES)
		t.fails(unix.Rename(t.p("open/his"), t.p("tmp/hers")), unix.EPERM, unix.EACCES)
		t.ok(unix.Rename(t.p("tmp/his"), t.p("tmp/mine")))
		t.ok(unix.Unlink(t.p("tmp/mine")))
		t.ok(unix.Unlink(t.p("bobs/hers")))
	})
	t.as(alice(), func() {
		t.ok(unix.Unlink(t.p("tmp/hers")))
		t.ok(unix.Rmdir(t.p("tmp/herd")))
	})
}

// modeCases are about chmod, and about the bits that vanish.
func modeCases() []testCase { return slices.Concat(chmodCases(), inheritedModeCases()) }

func chmodCases() []testCase {
	return []testCase{
		{"chmod sets all twelve bits of files and directories", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			for _, mode := range []uint32{0, 0o777, 0o1000, 0o2000, 0o4000, 0o7777, 0o640} {
				for _, n := range []string{"f", "d"} {
					t.ok(unix.Chmod(t.p(n), mode))
					t.mode(n, mode)
				}
			}
		}},
		{"chmod follows links, and only the owner may", "", func(t *testRun) {
			t.file("f", "", perm{0o644, aliceID, aliceID})
			t.symlink("f", "l")
			t.as(alice(), func() { t.ok(unix.Chmod(t.p("l"), 0o600)) })
			t.mode("f", 0o600)
			t.as(bob(), func() { t.fails(unix.Chmod(t.p("f"), 0o777), unix.EPERM) })
			t.mode("f", 0o600)
		}},
		{"a write by a user clears setuid and setgid, one by root does not", "", func(t *testRun) {
			for i, c := range []struct{ mode, want uint32 }{{0o6777, 0o777}, {0o4666, 0o666}, {0o2676, 0o676}} {
				name := string(rune('a' + i))
				t.file(name, "x", perm{c.mode, aliceID, team})
				t.ok(os.WriteFile(t.p(name), []byte("root"), 0))
				t.ok(unix.Chmod(t.p(name), c.mode))
				f := t.rdwr(name)
				_, err := f.WriteAt([]byte("z"), 0)
				t.ok(err)
				t.ok(f.Close())
				t.mode(name, c.mode)
				t.as(bob(), func() { t.append(name) })
				t.mode(name, c.want)
			}
		}},
		{"setgid without group execution stays at a write", "", func(t *testRun) {
			t.file("f", "x", perm{0o2666, aliceID, team})
			t.as(carol(), func() { t.append("f") })
			t.mode("f", 0o2666)
		}},
	}
}

func inheritedModeCases() []testCase {
	return []testCase{
		{"truncation by a user clears setuid and setgid", "", func(t *testRun) {
			t.file("f", "xyz", perm{0o6777, aliceID, team})
			t.as(bob(), func() { t.ok(unix.Truncate(t.p("f"), 1)) })
			t.mode("f", 0o777)
			t.ok(unix.Chmod(t.p("f"), 0o6777))
			t.as(bob(), func() { t.ok(t.open("f", wr|unix.O_TRUNC)) })
			t.mode("f", 0o777)
		}},
		{"setgid is not to be had for a group that one is not in", "", func(t *testRun) {
			t.file("f", "", perm{0o644, aliceID, other})
			t.file("g", "", perm{0o644, aliceID, team})
			t.as(alice(), func() {
				t.ok(unix.Chmod(t.p("f"), 0o2755))
				t.ok(unix.Chmod(t.p("g"), 0o2755))
			})
			t.mode("f", 0o755)
			t.mode("g", 0o2755)
		}},
		{"a setgid directory hands on its group, to directories itself", "", func(t *testRun) {
			t.mkdir("d", 0o2777, 0, team)
			t.as(bob(), func() {
				t.ok(os.WriteFile(t.p("d/f"), nil, 0o644))
				t.ok(unix.Mkdir(t.p("d/s"), 0o755))
				t.ok(unix.Symlink("x", t.p("d/l")))
				t.fifo("d/p", 0o644)
			})
			for _, n := range []string{"d/f", "d/s", "d/l", "d/p"} {
				same(t, "group of "+n, t.lstat(n).Gid, team)
				same(t, "owner of "+n, t.lstat(n).Uid, bobID)
			}
			t.mode("d/s", 0o2755)
			t.mode("d/f", 0o644)
		}},
		{"the umask is applied once", "", func(t *testRun) {
			unix.Umask(0o027)
			defer unix.Umask(0)
			t.ok(t.open("f", unix.O_CREAT|wr))
			t.ok(unix.Mkdir(t.p("d"), 0o777))
			t.fifo("p", 0o666)
			t.mode("f", 0o640)
			t.mode("d", 0o750)
			t.mode("p", 0o640)
		}},
	}
}

func (t *testRun) append(name string) {
	f, err := os.OpenFile(t.p(name), os.O_WRONLY|os.O_APPEND, 0)
	t.ok(err)
	_, err = f.WriteString("more")
	t.ok(err)
	t.ok(f.Close())
}

func ownerCases() []testCase {
	return []testCase{
		{"root gives everything away, links themselves too", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.symlink("f", "l")
			for _, n := range []string{"f", "d", "l"} {
				t.ok(unix.Lchown(t.p(n), 70000, 80000))
				st := t.lstat(n)
				same(t, "owner of "+n, [2]uint32{st.Uid, st.Gid}, [2]uint32{70000, 80000})
			}
			t.ok(unix.Chown(t.p("l"), 5, -1))
			st := t.lstat("f")
			same(t, "owner by the link", [2]uint32{st.Uid, st.Gid}, [2]uint32{5, 80000})
			same(t, "owner of the link", t.lstat("l").Uid, 70000)
		}},
		{"the owner hands a file to groups of hers only and to nobody", "", func(t *testRun) {
			t.file("f", "", perm{0o644, aliceID, aliceID})
			t.as(alice(), func() {
				t.ok(unix.Chown(t.p("f"), -1, team))
				t.fails(unix.Chown(t.p("f"), -1, other), unix.EPERM)
				t.fails(unix.Chown(t.p("f"), bobID, -1), unix.EPERM)
				t.ok(unix.Chown(t.p("f"), aliceID, aliceID))
			})
			t.as(bob(), func() { t.fails(unix.Chown(t.p("f"), -1, bobID), unix.EPERM) })
			st := t.lstat("f")
			same(t, "owner", [2]uint32{st.Uid, st.Gid}, [2]uint32{aliceID, aliceID})
		}},
		{"a change of owner by a user clears setuid and setgid of files", "", func(t *testRun) {
			t.file("f", "", perm{0o6755, aliceID, team})
			t.mkdir("d", 0o2755, aliceID, team)
			t.as(alice(), func() {
				t.ok(unix.Chown(t.p("f"), -1, aliceID))
				t.ok(unix.Chown(t.p("d"), -1, aliceID))
			})
			t.mode("f", 0o755)
			t.mode("d", 0o2755)
		}},
	}
}
