package main

import (
	"slices"

	"golang.org/x/sys/unix"
)

func (t *testRun) utimes(name string, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, t.p(name), []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

func timeCases() []testCase { return slices.Concat(setTimeCases(), movedTimeCases()) }

func setTimeCases() []testCase {
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	return []testCase{
		{"times are kept to the nanosecond, on every kind of file", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.symlink("f", "l")
			t.fifo("p", 0o644)
			for _, n := range []string{"f", "d", "l", "p"} {
				for _, v := range []unix.Timespec{{Sec: 1, Nsec: 1}, {Sec: 2_000_000_000, Nsec: 999_999_999}, {},
					{Sec: 1<<31 - 1, Nsec: 7}} {
					t.ok(t.utimes(n, unix.Timespec{Sec: v.Sec, Nsec: v.Nsec / 3}, v))
					st := t.lstat(n)
					same(t, "mtime of "+n, nsec(st.Mtim), nsec(v))
					same(t, "atime of "+n, nsec(st.Atim), v.Sec*1e9+v.Nsec/3)
				}
			}
		}},
		{"times before 1970 and after 2106 are kept", "NFSv3 times are unsigned 32 bits", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			for _, sec := range []int64{-1, -1000, 1 << 32} {
				t.ok(t.utimes("f", unix.Timespec{Sec: sec}, unix.Timespec{Sec: sec, Nsec: 5}))
				same(t, "mtime", nsec(t.lstat("f").Mtim), sec*1e9+5)
			}
		}},
		{"one time is set, the other left", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.ok(t.utimes("f", unix.Timespec{Sec: 10}, unix.Timespec{Sec: 20}))
			t.ok(t.utimes("f", unix.Timespec{Sec: 30}, omit))
			t.ok(t.utimes("f", omit, unix.Timespec{Sec: 40}))
			st := t.lstat("f")
			same(t, "times", [2]int64{st.Atim.Sec, st.Mtim.Sec}, [2]int64{30, 40})
		}},
		{"the owner sets values, a writer only now", "", func(t *testRun) {
			t.file("f", "", perm{0o664, aliceID, team})
			t.as(alice(), func() { t.ok(t.utimes("f", unix.Timespec{Sec: 1}, unix.Timespec{Sec: 2})) })
			t.as(carol(), func() {
				t.fails(t.utimes("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6}), unix.EPERM)
				t.ok(t.utimes("f", now, now))
			})
			t.as(bob(), func() { t.fails(t.utimes("f", now, now), unix.EACCES) })
			if t.lstat("f").Mtim.Sec < 1e9 {
				t.errorf("the mtime was not set to now")
			}
		}},
	}
}

func movedTimeCases() []testCase {
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	return []testCase{
		{"changes of attributes move the ctime and not the mtime", "", func(t *testRun) {
			t.file("f", "data", perm{0o644, 0, 0})
			for _, do := range []func() error{
				func() error { return unix.Chmod(t.p("f"), 0o600) },
				func() error { return unix.Chown(t.p("f"), aliceID, -1) },
				func() error { return unix.Link(t.p("f"), t.p("g")) },
				func() error { return unix.Unlink(t.p("g")) },
				func() error { return t.utimes("f", unix.Timespec{Sec: 3}, omit) },
			} {
				was := t.lstat("f")
				tick()
				t.ok(do())
				st := t.lstat("f")
				same(t, "mtime", nsec(st.Mtim), nsec(was.Mtim))
				same(t, "ctime moved", nsec(st.Ctim) > nsec(was.Ctim), true)
			}
		}},
		{"writes move mtime and ctime", "", func(t *testRun) {
			t.file("f", "data", perm{0o644, 0, 0})
			for _, do := range []func(){
				func() { t.append("f") },
				func() { t.ok(unix.Truncate(t.p("f"), 2)) },
				func() { t.ok(t.open("f", wr|unix.O_TRUNC)) },
			} {
				was := t.lstat("f")
				tick()
				do()
				st := t.lstat("f")
				same(t, "mtime moved", nsec(st.Mtim) > nsec(was.Mtim), true)
				same(t, "ctime moved", nsec(st.Ctim) > nsec(was.Ctim), true)
			}
		}},
		{"changes of names move their directory's times", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			t.mkdir("e", 0o755, 0, 0)
			t.file("f", "", perm{0o644, 0, 0})
			for _, do := range []func() error{
				func() error { return t.open("d/f", unix.O_CREAT|wr) },
				func() error { return unix.Mkdir(t.p("d/s"), 0o755) },
				func() error { return unix.Symlink("x", t.p("d/l")) },
				func() error { return unix.Mkfifo(t.p("d/p"), 0o644) },
				func() error { return unix.Link(t.p("f"), t.p("d/h")) },
				func() error { return unix.Rename(t.p("d/h"), t.p("d/i")) },
				func() error { return unix.Rename(t.p("d/i"), t.p("e/i")) },
				func() error { return unix.Rename(t.p("e/i"), t.p("d/i")) },
				func() error { return unix.Unlink(t.p("d/f")) },
				func() error { return unix.Rmdir(t.p("d/s")) },
			} {
				was := t.lstat("d")
				tick()
				t.ok(do())
				st := t.lstat("d")
				same(t, "mtime moved", nsec(st.Mtim) > nsec(was.Mtim), true)
				same(t, "ctime moved", nsec(st.Ctim) > nsec(was.Ctim), true)
			}
		}},
	}
}
