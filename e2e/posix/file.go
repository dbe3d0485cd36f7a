package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func fileCases() []testCase { return slices.Concat(openingCases(), namingCases(), specialFileCases()) }

func openingCases() []testCase {
	return []testCase{
		{"a new file has mode, owner and no content", "", func(t *testRun) {
			t.mkdir("d", 0o777, 0, 0)
			t.as(bob(), func() { t.ok(os.WriteFile(t.p("d/f"), nil, 0o640)) })
			st := t.lstat("d/f")
			same(t, "attributes",
				[5]uint64{uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Size), uint64(st.Nlink)},
				[5]uint64{unix.S_IFREG | 0o640, bobID, bobID, 0, 1})
		}},
		{"O_EXCL refuses what exists, also links to nowhere", "", func(t *testRun) {
			t.file("f", "x", perm{0o644, 0, 0})
			t.symlink("nowhere", "l")
			for _, n := range []string{"f", "l", "."} {
				t.fails(t.open(n, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST)
			}
			t.gone("nowhere")
		}},
		{"O_CREAT follows a link to nowhere and takes what exists", "", func(t *testRun) {
			t.symlink("target", "l")
			t.ok(t.open("l", unix.O_CREAT|unix.O_WRONLY))
			t.lstat("target")
			t.file("f", "keep", perm{0o644, 0, 0})
			t.ok(t.open("f", unix.O_CREAT|unix.O_WRONLY))
			t.holds("f", "keep")
		}},
		{"O_TRUNC empties", "", func(t *testRun) {
			t.file("f", "content", perm{0o644, 0, 0})
			t.ok(t.open("f", unix.O_TRUNC|unix.O_WRONLY))
			t.holds("f", "")
		}},
		{"a directory is not opened for writing", "", func(t *testRun) {
			t.mkdir("d", 0o777, 0, 0)
			t.fails(t.open("d", unix.O_WRONLY), unix.EISDIR)
			t.fails(t.open("d", unix.O_RDWR), unix.EISDIR)
		}},
		{"a path through a file is ENOTDIR, through nothing ENOENT", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.fails(t.open("f/x", unix.O_RDONLY), unix.ENOTDIR)
			t.fails(t.open("f/x", unix.O_CREAT|unix.O_WRONLY), unix.ENOTDIR)
			t.fails(t.open("none/x", unix.O_CREAT|unix.O_WRONLY), unix.ENOENT)
			t.fails(unix.Mkdir(t.p("f/x"), 0o755), unix.ENOTDIR)
			t.fails(unix.Unlink(t.p("f/x")), unix.ENOTDIR)
		}},
		{"O_NOFOLLOW and O_DIRECTORY refuse links and files", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			t.symlink("f", "l")
			t.fails(t.open("l", unix.O_NOFOLLOW|unix.O_RDONLY), unix.ELOOP)
			t.fails(t.open("f", unix.O_DIRECTORY|unix.O_RDONLY), unix.ENOTDIR)
		}},
	}
}

func namingCases() []testCase {
	n255, n256 := strings.Repeat("n", 255), strings.Repeat("n", 256)
	return []testCase{
		{"links in a ring are ELOOP", "", func(t *testRun) {
			t.symlink("b", "a")
			t.symlink("a", "b")
			t.fails(t.open("a", unix.O_RDONLY), unix.ELOOP)
		}},
		{"names of 255 bytes work, of 256 are ENAMETOOLONG", "", func(t *testRun) {
			t.file(n255, "x", perm{0o644, 0, 0})
			t.holds(n255, "x")
			t.fails(t.open(n256, unix.O_CREAT|unix.O_WRONLY), unix.ENAMETOOLONG)
			t.fails(t.open(n256, unix.O_RDONLY), unix.ENAMETOOLONG)
			t.fails(unix.Mkdir(t.p(n256), 0o755), unix.ENAMETOOLONG)
			t.fails(unix.Rename(t.p(n255), t.p(n256)), unix.ENAMETOOLONG)
			t.fails(unix.Link(t.p(n255), t.p(n256)), unix.ENAMETOOLONG)
			t.fails(unix.Unlink(t.p(n256)), unix.ENAMETOOLONG)
		}},
		{"names of every byte are kept apart", "", func(t *testRun) {
			for b := 1; b < 256; b++ {
				if b != '/' && b != '.' {
					name := string([]byte{'x', byte(b)})
					t.prepare(name, func(path string) error { return os.WriteFile(path, []byte(name), 0o644) })
				}
			}
			es, err := os.ReadDir(t.p("."))
			t.ok(err)
			same(t, "number of names", len(es), 253)
			for _, e := range es {
				t.holds(e.Name(), e.Name())
			}
		}},
		{"a symbolic link keeps its target of any length", "", func(t *testRun) {
			for i, target := range []string{"x", "/abs/olute", "with\nnewline\xff", strings.Repeat("t/", 2047) + "t"} {
				name := fmt.Sprint("l", i)
				t.ok(unix.Symlink(target, t.p(name)))
				got, err := os.Readlink(t.p(name))
				t.ok(err)
				same(t, "target", got, target)
				same(t, "size", t.lstat(name).Size, int64(len(target)))
			}
			t.fails(unix.Symlink("", t.p("e")), unix.ENOENT)
			t.fails(unix.Symlink(strings.Repeat("x", 4096), t.p("e")), unix.ENAMETOOLONG)
			t.fails(unix.Symlink("x", t.p("l0")), unix.EEXIST)
		}},
	}
}

func specialFileCases() []testCase {
	return []testCase{
		{"readlink of what is no link is EINVAL", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			for _, n := range []string{"f", "."} {
				_, err := unix.Readlink(t.p(n), make([]byte, 10))
				t.fails(err, unix.EINVAL)
			}
		}},
		{"devices, FIFOs and sockets keep type, mode and numbers", "", func(t *testRun) {
			for i, c := range []struct {
				mode uint32
				dev  uint64
			}{
				{unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)}, {unix.S_IFBLK | 0o660, unix.Mkdev(259, 70000)},
				{unix.S_IFCHR | 0o600, unix.Mkdev(4095, 1<<20-1)}, {unix.S_IFIFO | 0o620, 0},
				{unix.S_IFSOCK | 0o755, 0}, {unix.S_IFREG | 0o640, 0},
			} {
				name := fmt.Sprint("n", i)
				t.ok(unix.Mknod(t.p(name), c.mode, int(c.dev)))
				st := t.lstat(name)
				same(t, "mode", st.Mode, c.mode)
				same(t, "device", st.Rdev, c.dev)
				t.ok(unix.Unlink(t.p(name)))
			}
		}},
		{"a FIFO carries bytes", "", func(t *testRun) {
			t.fifo("fifo", 0o600)
			go func() { os.WriteFile(t.p("fifo"), []byte("through"), 0) }()
			t.holds("fifo", "through")
		}},
		{"only root makes devices", "", func(t *testRun) {
			t.mkdir("d", 0o777, 0, 0)
			t.as(bob(), func() {
				t.fails(unix.Mknod(t.p("d/n"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM)
				t.ok(unix.Mknod(t.p("d/f"), unix.S_IFIFO|0o666, 0))
			})
		}},
		{"statfs tells sane numbers", "", func(t *testRun) {
			var st unix.Statfs_t
			t.ok(unix.Statfs(t.p("."), &st))
			if st.Blocks == 0 || st.Bfree > st.Blocks || st.Bavail > st.Bfree || st.Namelen != 255 {
				t.errorf("got %+v", st)
			}
		}},
		{"an extended attribute that is not there is ENODATA, or attributes are not supported",
			"NFSv3 carries no extended attributes", func(t *testRun) {
				t.file("f", "", perm{0o644, 0, 0})
				_, err := unix.Getxattr(t.p("f"), "user.none", make([]byte, 10))
				t.fails(err, unix.ENODATA, unix.EOPNOTSUPP)
			}},
	}
}
