package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// many returns bob with n more groups, from 5000 on.
func many(n uint32) user {
	u := bob()
	for i := range n {
		u.groups = append(u.groups, 5000+i)
	}
	return u
}

func groupCases() []testCase {
	return []testCase{
		{"each of sixteen groups opens its way", "", func(t *testRun) {
			for i := range uint32(16) {
				t.file(groupFile(i), "x", perm{0o060, 0, 5000 + i})
			}
			t.as(many(16), func() {
				for i := range uint32(16) {
					t.ok(t.open(groupFile(i), rw))
					t.ok(unix.Access(t.p(groupFile(i)), unix.R_OK|unix.W_OK))
				}
			})
			t.as(many(15), func() { t.fails(t.open(groupFile(15), rd), unix.EACCES) })
		}},
		{"each of forty groups opens its way", "AUTH_SYS carries sixteen groups", func(t *testRun) {
			for i := range uint32(40) {
				t.file(groupFile(i), "x", perm{0o040, 0, 5000 + i})
			}
			t.as(many(40), func() {
				for i := range uint32(40) {
					t.ok(t.open(groupFile(i), rd))
				}
			})
		}},
		{"a group of hers shuts out whom its bits shut out", "", func(t *testRun) {
			t.file("f", "x", perm{0o606, 0, team})
			t.mkdir("d", 0o707, 0, team)
			t.as(carol(), func() {
				t.fails(t.open("f", rd), unix.EACCES)
				t.fails(unix.Mkdir(t.p("d/n"), 0o755), unix.EACCES)
			})
			t.as(bob(), func() {
				t.ok(t.open("f", rw))
				t.ok(unix.Mkdir(t.p("d/n"), 0o755))
			})
		}},
	}
}

func groupFile(i uint32) string { return "group-" + string(rune('a'+i)) }

// lostBitCases are about changes that clear setuid and setgid, and about the permission to set times.
func lostBitCases() []testCase {
	return []testCase{
		{"a change of owner by root clears setuid and setgid of files that run, not of directories", "",
			func(t *testRun) {
				t.file("f", "", perm{0o6755, aliceID, team})
				t.file("g", "", perm{0o2644, aliceID, team})
				t.mkdir("d", 0o6755, aliceID, team)
				for _, n := range []string{"f", "g", "d"} {
					t.ok(unix.Chown(t.p(n), bobID, bobID))
				}
				t.mode("f", 0o755)
				t.mode("g", 0o2644)
				t.mode("d", 0o6755)
			}},
		{"a write by the owner clears her setuid too", "", func(t *testRun) {
			t.file("f", "x", perm{0o4755, aliceID, team})
			t.file("g", "x", perm{0o2755, aliceID, team})
			t.as(alice(), func() {
				t.append("f")
				t.append("g")
			})
			t.mode("f", 0o755)
			t.mode("g", 0o755)
		}},
		{"truncation by root clears nothing, by another who may write everything", "", func(t *testRun) {
			for _, n := range []string{"f", "g"} {
				t.file(n, "xyz", perm{0o6777, aliceID, team})
			}
			t.ok(unix.Truncate(t.p("f"), 1))
			t.mode("f", 0o6777)
			t.as(carol(), func() {
				fd, err := unix.Open(t.p("g"), rw, 0)
				t.ok(err)
				t.ok(unix.Ftruncate(fd, 5))
				t.ok(unix.Close(fd))
			})
			t.mode("g", 0o777)
		}},
		{"in a setgid directory a file runs as a group only for its members", "", func(t *testRun) {
			t.mkdir("d", 0o2777, 0, team)
			t.as(bob(), func() { t.ok(unix.Mknod(t.p("d/his"), unix.S_IFREG|0o2755, 0)) })
			t.as(carol(), func() { t.ok(unix.Mknod(t.p("d/hers"), unix.S_IFREG|0o2755, 0)) })
			t.mode("d/his", 0o755)
			t.mode("d/hers", 0o2755)
			t.as(bob(), func() { t.ok(unix.Mkdir(t.p("d/s"), 0o700)) })
			t.mode("d/s", 0o2700)
		}},
		{"the owner of a sticky directory and the owner of a file in it replace it, others do not", "",
			func(t *testRun) {
				t.mkdir("d", 0o1777, carolID, carolID)
				for _, n := range []string{"hers", "hers2", "hers3"} {
					t.file("d/"+n, n, perm{0o666, aliceID, aliceID})
				}
				t.file("d/his", "his", perm{0o666, bobID, bobID})
				t.as(bob(), func() {
					t.fails(t.rename("d/his", "d/hers"), unix.EPERM, unix.EACCES)
					t.fails(t.rename("d/hers", "d/new"), unix.EPERM, unix.EACCES)
					t.ok(unix.Link(t.p("d/his"), t.p("d/his2")))
				})
				t.as(alice(), func() { t.ok(t.rename("d/hers", "d/hers2")) })
				t.as(carol(), func() {
					t.ok(t.rename("d/hers2", "d/his2"))
					t.ok(unix.Unlink(t.p("d/hers3")))
				})
				same(t, "names", t.names("d"), "his his2")
			}},
		{"who may set a time to now, to a value, and leave the other", "", whoSetsTimes},
	}
}

func whoSetsTimes(t *testRun) {
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	value := unix.Timespec{Sec: 1_000, Nsec: 1}
	t.file("f", "", perm{0o464, aliceID, team})
	t.ok(t.utimes("f", value, value))
	t.as(alice(), func() { // the owner needs no permission to write
		t.ok(t.utimes("f", now, now))
		t.ok(t.utimes("f", value, now))
		t.ok(t.utimes("f", omit, value))
		t.ok(t.utimes("f", now, omit))
	})
	t.as(carol(), func() { // a user with write permission may set both to now, and nothing else
		t.ok(t.utimes("f", now, now))
		t.fails(t.utimes("f", value, now), unix.EPERM)
		t.fails(t.utimes("f", now, value), unix.EPERM)
		t.fails(t.utimes("f", omit, value), unix.EPERM)
		t.ok(t.utimes("f", omit, omit))
	})
	t.as(bob(), func() { // a user with read permission
		t.fails(t.utimes("f", now, now), unix.EACCES)
		t.fails(t.utimes("f", value, value), unix.EPERM)
	})
	f, err := os.OpenFile(t.p("f"), os.O_RDONLY, 0)
	t.ok(err)
	defer f.Close()
	t.ok(unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 11, Usec: 3}, {Sec: 12, Usec: 4}}))
	st := t.lstat("f")
	same(t, "times", [2]int64{st.Atim.Nano(), st.Mtim.Nano()}, [2]int64{11_000_003_000, 12_000_004_000})
}
