// Package disktest gives a test a disk of its own: a file system of a chosen kind on a loop device. It is for tests
// only.
//
// It must not know any other package of this project.
package disktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// size is the size of a disk. mkfs.xfs refuses less than 300 MB. The file is sparse.
const size = 400 << 20

// Disk is a file system in a file.
type Disk struct {
	Dir string // its mount point

	t    testing.TB
	file string
}

// New makes a file system and mounts it until the test ends. mkfs is a program and its arguments, without the file. New
// skips the test if it lacks root, the program or a loop device.
func New(t testing.TB, mkfs ...string) *Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a file system")
	}
	base := Memory(t)
	d := &Disk{Dir: filepath.Join(base, "mounted"), t: t, file: filepath.Join(base, "disk")}
	for _, err := range []error{os.Mkdir(d.Dir, 0o700), os.WriteFile(d.file, nil, 0o600), os.Truncate(d.file, size)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], d.file)...).CombinedOutput(); err != nil {
		t.Skipf("%q: %v: %s", mkfs, err, out)
	}
	d.Mount()
	t.Cleanup(func() {
		for d.Unmount() == nil { // it may be mounted several times
		}
		_ = syscall.Unmount(d.Dir, syscall.MNT_DETACH)
	})
	return d
}

// Reflink makes an XFS, whose files can share blocks.
func Reflink(t testing.TB) *Disk {
	t.Helper()
	return New(t, "mkfs.xfs", "-q", "-m", "reflink=1")
}

// Mount mounts the disk again after an Unmount.
func (d *Disk) Mount() {
	d.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", d.file, d.Dir).CombinedOutput(); err != nil {
		d.t.Skipf("no loop device to mount with: %v: %s", err, out)
	}
}

// Unmount unmounts the disk. It fails while a file on it is open.
func (d *Disk) Unmount() error { return syscall.Unmount(d.Dir, 0) }

// Remount unmounts the disk and mounts it anew from what is on it. In between it waits until no mount namespace has a
// copy of the mount any more: another process that has just begun one may. As long as there is one, the kernel would
// give the new mount the file system that it has in memory.
func (d *Disk) Remount() {
	d.t.Helper()
	if err := d.Unmount(); err != nil {
		d.t.Fatalf("unmount: %v", err)
	}
	for deadline := time.Now().Add(time.Minute); d.attached(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatal("a mount namespace still has a copy of the mount")
		}
	}
	d.Mount()
}

// attached reports whether a loop device has the file of the disk. The kernel detaches it when nothing uses it.
func (d *Disk) attached() bool {
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, name := range devices {
		if file, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(file)) == d.file {
			return true
		}
	}
	return false
}

// Memory returns a temporary directory, in memory if possible. Tests that sync thousands of times use it if they do not
// test the disk itself.
func Memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dim-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
