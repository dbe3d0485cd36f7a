package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// The seed of a case is what it makes with the functions of this file before anything else. Replicas must
// behave the same whether a file comes from the version or from the node, so seeds can be made in one run and
// used in another.
type seeds string

const (
	ownSeeds   seeds = ""     // each case makes its own
	makeSeeds  seeds = "make" // make the seeds of all cases, and run none
	useSeeds   seeds = "use"  // they exist
	halfOfThem seeds = "half" // they exist, and every second entry is changed and changed back before the case
)

// prepare makes the object with that name, unless an earlier run did.
func (t *testRun) prepare(name string, do func(path string) error) {
	path := filepath.Join(t.dir, name)
	if (t.seeds == useSeeds || t.seeds == halfOfThem) && !t.begun {
		var st unix.Stat_t
		t.ok(unix.Lstat(path, &st))
		return
	}
	t.ok(do(path))
}

// begin ends the seed. All functions that use a path of the case call it first.
func (t *testRun) begin() {
	if t.seeds == makeSeeds {
		runtime.Goexit()
	}
	t.once.Do(func() {
		t.begun = true
		if t.seeds == halfOfThem {
			t.ok(t.changeHalf())
		}
	})
}

// changeHalf changes every second entry and changes it back, so that the server copies it into the layer of the node.
func (t *testRun) changeHalf() error {
	const most = 64
	n := 0
	return filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		if n++; err != nil || n%2 == 1 || n > most {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			if err := unix.Lchown(path, int(st.Uid)+1, -1); err != nil {
				return err
			}
			return unix.Lchown(path, int(st.Uid), -1)
		}
		if err := unix.Chmod(path, st.Mode&0o7777^1); err != nil {
			return err
		}
		return unix.Chmod(path, st.Mode&0o7777)
	})
}

// perm is a mode and an owner.
type perm struct{ mode, uid, gid uint32 }

// file makes a file of this content, mode and owner, as root.
func (t *testRun) file(name, content string, p perm) {
	t.prepare(name, func(path string) error {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
		return own(path, p.mode, p.uid, p.gid)
	})
}

func (t *testRun) mkdir(name string, mode, uid, gid uint32) {
	t.prepare(name, func(path string) error {
		if err := unix.Mkdir(path, 0o700); err != nil {
			return err
		}
		return own(path, mode, uid, gid)
	})
}

func own(path string, mode, uid, gid uint32) error {
	if err := os.Lchown(path, int(uid), int(gid)); err != nil {
		return err
	}
	return unix.Chmod(path, mode)
}

// touch makes an empty file.
func (t *testRun) touch(name string) {
	t.prepare(name, func(path string) error {
		fd, err := unix.Open(path, unix.O_CREAT|wr|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

func (t *testRun) symlink(target, name string) {
	t.prepare(name, func(path string) error { return unix.Symlink(target, path) })
}

func (t *testRun) link(from, to string) {
	t.prepare(to, func(path string) error { return unix.Link(filepath.Join(t.dir, from), path) })
}

func (t *testRun) fifo(name string, mode uint32) {
	t.prepare(name, func(path string) error { return unix.Mkfifo(path, mode) })
}

// sparse makes a file with a hole of this size and a word at its end.
func (t *testRun) sparse(name string, size int64, end string) {
	t.prepare(name, func(path string) error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte(end), size-int64(len(end)))
		return err
	})
}
