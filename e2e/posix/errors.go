package main

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// errorCases are about refused calls that the other cases do not cover.
func errorCases() []testCase { return slices.Concat(pathErrors(), useErrors()) }

// pathErrors are about names and paths.
func pathErrors() []testCase {
	return []testCase{
		{"changes of what is not there are ENOENT", "", func(t *testRun) {
			t.symlink("nowhere", "l")
			for _, n := range []string{"none", "l"} {
				t.fails(unix.Chmod(t.p(n), 0o644), unix.ENOENT)
				t.fails(unix.Chown(t.p(n), 0, 0), unix.ENOENT)
				t.fails(unix.Access(t.p(n), unix.F_OK), unix.ENOENT)
				t.fails(t.open(n, rd), unix.ENOENT)
			}
			t.fails(t.utimes("none", unix.Timespec{}, unix.Timespec{}), unix.ENOENT)
			t.fails(unix.Mkdir(t.p("none/d"), 0o755), unix.ENOENT)
			t.fails(unix.Mkfifo(t.p("none/p"), 0o644), unix.ENOENT)
			t.fails(unix.Symlink("x", t.p("none/l")), unix.ENOENT)
			t.fails(unix.Link(t.p("l"), t.p("none/l")), unix.ENOENT)
			_, err := unix.Readlink(t.p("none"), make([]byte, 10))
			t.fails(err, unix.ENOENT)
		}},
		{"making over anything is EEXIST", "", func(t *testRun) {
			for _, k := range kinds() {
				t.ofKind(k, k)
			}
			for _, k := range kinds() {
				t.fails(unix.Mkdir(t.p(k), 0o755), unix.EEXIST)
				t.fails(unix.Mkfifo(t.p(k), 0o644), unix.EEXIST)
				t.fails(unix.Mknod(t.p(k), unix.S_IFREG|0o644, 0), unix.EEXIST)
				t.fails(unix.Symlink("x", t.p(k)), unix.EEXIST)
				t.fails(t.open(k, unix.O_CREAT|unix.O_EXCL|rw), unix.EEXIST)
			}
		}},
		{"a slash at the end wants a directory", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.mkdir("d", 0o755, 0, 0)
			t.symlink("d", "l")
			t.fails(unix.Unlink(t.raw("f/")), unix.ENOTDIR)
			t.fails(unix.Rmdir(t.raw("f/")), unix.ENOTDIR)
			t.fails(unix.Rmdir(t.raw("l/")), unix.ENOTDIR)
			t.fails(t.rename("f", "g/"), unix.ENOTDIR)
			t.fails(t.rename("f/", "g"), unix.ENOTDIR)
			_, err := unix.Open(t.raw("f/"), rd, 0)
			t.fails(err, unix.ENOTDIR)
			_, err = unix.Open(t.raw("n/"), unix.O_CREAT|wr, 0o644)
			t.fails(err, unix.EISDIR)
			t.ok(unix.Mkdir(t.raw("new/"), 0o755))
			t.ok(t.rename("new/", "moved/"))
			t.ok(unix.Rmdir(t.raw("moved/")))
			same(t, "names", t.names("."), "d f l")
		}},
		{"a path of more than 4,095 bytes is ENAMETOOLONG, one of as many is not", "", func(t *testRun) {
			path := t.p(".")
			for len(path)+2 < 4095 {
				path += "/."
			}
			path += strings.Repeat("/", 4095-len(path))
			var st unix.Stat_t
			t.ok(unix.Stat(path, &st))
			t.fails(unix.Stat(path+"/", &st), unix.ENAMETOOLONG)
		}},
	}
}

// useErrors are about objects of the wrong type for a call.
func useErrors() []testCase {
	return []testCase{
		{"a directory is read by listing only", "", func(t *testRun) {
			t.mkdir("d", 0o755, 0, 0)
			fd, err := unix.Open(t.p("d"), rd|unix.O_DIRECTORY, 0)
			t.ok(err)
			defer unix.Close(fd)
			_, err = unix.Read(fd, make([]byte, 10))
			t.fails(err, unix.EISDIR)
			_, err = unix.Write(fd, make([]byte, 10))
			t.fails(err, unix.EBADF)
			t.fails(unix.Ftruncate(fd, 0), unix.EINVAL, unix.EBADF)
			t.fails(t.open("d", unix.O_CREAT|rd), unix.EISDIR)
		}},
		{"a socket is not opened, a FIFO without a reader not for writing", "", func(t *testRun) {
			t.fifo("p", 0o644)
			t.ok(unix.Mknod(t.p("s"), unix.S_IFSOCK|0o640, 0)) // no version holds sockets
			t.fails(t.open("s", rd), unix.ENXIO)
			t.fails(t.open("p", wr|unix.O_NONBLOCK), unix.ENXIO)
		}},
		{"offsets below zero are EINVAL, and reading at the end reads nothing", "", func(t *testRun) {
			t.file("f", "0123456789", perm{0o644, 0, 0})
			f := t.rdwr("f")
			defer f.Close()
			b := make([]byte, 5)
			_, err := unix.Pread(int(f.Fd()), b, -1)
			t.fails(err, unix.EINVAL)
			_, err = unix.Pwrite(int(f.Fd()), b, -1)
			t.fails(err, unix.EINVAL)
			_, err = f.Seek(-1, 0)
			t.fails(err, unix.EINVAL)
			for off, want := range map[int64]int{8: 2, 10: 0, 11: 0, 1 << 40: 0} {
				n, err := unix.Pread(int(f.Fd()), b, off)
				t.ok(err)
				same(t, "bytes read", n, want)
			}
			n, err := unix.Pwrite(int(f.Fd()), nil, 100)
			t.ok(err)
			same(t, "size after writing nothing", [2]int64{int64(n), t.lstat("f").Size}, [2]int64{0, 10})
		}},
		{"who may not search gets EACCES for everything below", "", func(t *testRun) {
			t.mkdir("d", 0o700, 0, 0)
			t.file("d/f", "", perm{0o666, bobID, bobID})
			t.mkdir("d/s", 0o777, bobID, bobID)
			t.as(bob(), func() {
				var st unix.Stat_t
				t.fails(unix.Lstat(t.p("d/f"), &st), unix.EACCES)
				t.fails(unix.Chmod(t.p("d/f"), 0o600), unix.EACCES)
				t.fails(unix.Chown(t.p("d/f"), -1, bobID), unix.EACCES)
				t.fails(unix.Truncate(t.p("d/f"), 0), unix.EACCES)
				t.fails(t.utimes("d/f", unix.Timespec{}, unix.Timespec{}), unix.EACCES)
				t.fails(t.open("d/f", rd), unix.EACCES)
				t.fails(unix.Mkdir(t.p("d/s/n"), 0o755), unix.EACCES)
				t.fails(unix.Rename(t.p("d/f"), t.p("d/s/f")), unix.EACCES)
				_, err := os.ReadDir(t.p("d"))
				t.fails(err, unix.EACCES)
			})
		}},
	}
}
