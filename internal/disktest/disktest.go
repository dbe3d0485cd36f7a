// Package disktest gives a test a disk of its own: a file system of a chosen kind on a loop device. It is for tests only, and knows nothing of what is
// put there.
package disktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// size is that of a disk. mkfs.xfs makes none below 300 MB; what is not written takes no room.
const size = 400 << 20

// Disk is a file system in a file.
type Disk struct {
	Dir string // where it is mounted

	t    testing.TB
	file string
}

// New makes a file system by mkfs, a program with its arguments but the file, and mounts it until the test ends. It skips the test where that is
// impossible: it needs root, the program and a loop device.
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
		for d.Unmount() == nil { // it may be mounted over and over
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

// Mount mounts the disk, again after an Unmount.
func (d *Disk) Mount() {
	d.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", d.file, d.Dir).CombinedOutput(); err != nil {
		d.t.Skipf("no loop device to mount with: %v: %s", err, out)
	}
}

// Unmount unmounts the disk. It is busy while a file there is open.
func (d *Disk) Unmount() error { return syscall.Unmount(d.Dir, 0) }

// Memory returns a temporary directory in memory where there is one: most tests are of what a file system does, in which order, and sync thousands
// of times.
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
