package crash

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"dim/internal/testkit"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A disk is a file system on a loop device on a file that this process serves by FUSE, so that it receives each
// write and each flush of the file system.
type disk struct {
	gofuse.RawFileSystem
	t    *testing.T
	dir  string // where the file system is mounted
	base string // for files and mount points

	mu      sync.Mutex
	now     *os.File // as written
	flushed *os.File // as of the last flush
	since   []write  // writes after it
	broken  error    // the error of all writes and flushes
}

type write struct {
	off  int64
	data []byte
}

const (
	diskSize = 48 << 20
	diskNode = 2 // of the only file
	diskName = "disk"
)

// newDisk makes a file system and mounts it.
func newDisk(t *testing.T, mkfs ...string) *disk {
	t.Helper()
	testkit.NeedRoot(t, "it mounts")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	d := &disk{RawFileSystem: gofuse.NewDefaultRawFileSystem(), t: t, base: t.TempDir()}
	d.now, d.flushed = d.file("now"), d.file("flushed")
	cmd := exec.Command(mkfs[0], append(mkfs[1:], d.now.Name())...)
	// With these mkfs.xfs allows less than 300 MB (xfsprogs, mkfs/xfs_mkfs.c: validate_supported).
	cmd.Env = append(os.Environ(), "TEST_DIR=.", "TEST_DEV=.", "QA_CHECK_FS=.")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%v: %v\n%s", mkfs, err, out)
	}
	testkit.Must(t, copyFile(d.flushed, d.now))
	backing := d.serve()
	d.dir = d.mount(backing, "mounted", 0)
	return d
}

func (d *disk) file(name string) *os.File {
	f, err := os.Create(filepath.Join(d.base, name))
	if err == nil {
		err = f.Truncate(diskSize)
	}
	testkit.Must(d.t, err)
	d.t.Cleanup(func() { f.Close() })
	return f
}

// copyFile makes to equal to from.
func copyFile(to, from *os.File) error {
	buf, old := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(buf)) {
		n, err := from.ReadAt(buf, off)
		if m, _ := to.ReadAt(old[:n], off); string(buf[:n]) != string(old[:m]) {
			if _, err := to.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// serve mounts the file and returns its path.
func (d *disk) serve() string {
	dir := filepath.Join(d.base, "fuse")
	testkit.Must(d.t, os.Mkdir(dir, 0o700))
	srv, err := gofuse.NewServer(d, dir,
		&gofuse.MountOptions{DirectMount: true, FsName: "dim-crash", Name: "dim", MaxWrite: 1 << 17})
	testkit.Must(d.t, err)
	go srv.Serve()
	d.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			d.t.Errorf("unmount %s: %v", dir, err)
		}
		ended := make(chan struct{})
		go func() {
			srv.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			d.t.Log("the disk is still mounted elsewhere: a process that has mounts of its own was started meanwhile")
		}
	})
	testkit.Must(d.t, srv.WaitMount())
	return filepath.Join(dir, diskName)
}

func mkfsXFS() []string { return []string{"mkfs.xfs", "-q", "-f"} }

// mount mounts the file system in the file at path until the test ends.
func (d *disk) mount(path, name string, flags uintptr) (dir string) {
	d.t.Helper()
	dir, err := d.tryMount(path, name, flags)
	testkit.Must(d.t, err)
	return dir
}

// tryMount is mount for a file system that may be beyond recovery.
func (d *disk) tryMount(path, name string, flags uintptr) (dir string, err error) {
	dir = filepath.Join(d.base, name)
	testkit.Must(d.t, os.MkdirAll(dir, 0o700))
	dev, err := loop(path)
	if err != nil {
		d.t.Skipf("needs a loop device: %v", err)
	}
	defer dev.Close() // the mount keeps it open from here on
	// The disk after a cut is mounted beside the original, with the same UUID.
	var errs []error
	for _, kind := range []struct{ name, options string }{{"ext4", ""}, {"xfs", "nouuid"}, {"btrfs", ""}} {
		err := unix.Mount(dev.Name(), dir, kind.name, flags, kind.options)
		if err == nil {
			d.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			return dir, nil
		}
		errs = append(errs, fmt.Errorf("mount %s as %s: %w", path, kind.name, err))
	}
	return "", errors.Join(errs...)
}

// loop returns an open loop device on the file at path.
func loop(path string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for range 100 { // another process may take the free device
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		dev, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), &config); err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, errors.New("all are busy")
}

// cut returns a file with the content that the disk would have after a power cut now: all flushed writes, and
// some of the later ones, the last of them in part.
func (d *disk) cut(r *rand.Rand) *os.File {
	// Each cut has its own file: a process with mounts of its own may keep the last one mounted, which writes to it.
	_ = os.Remove(filepath.Join(d.base, "cut"))
	after := d.file("cut")
	d.mu.Lock()
	defer d.mu.Unlock()
	testkit.Must(d.t, copyFile(after, d.flushed))
	chance := r.Float64() // that a write has reached the disk
	for _, w := range d.since {
		for off := 0; off < len(w.data); off += 512 {
			if r.Float64() < chance {
				_, err := after.WriteAt(w.data[off:min(off+512, len(w.data))], w.off+int64(off))
				testkit.Must(d.t, err)
			}
		}
	}
	return after
}

// breakWith makes all writes and flushes of the disk fail with err, or succeed again if it is nil.
func (d *disk) breakWith(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = err
}

func (d *disk) attr(node uint64, a *gofuse.Attr) {
	*a = gofuse.Attr{Ino: node, Mode: syscall.S_IFDIR | 0o755, Nlink: 2}
	if node == diskNode {
		a.Mode, a.Nlink, a.Size, a.Blocks = syscall.S_IFREG|0o600, 1, diskSize, diskSize/512
	}
}

func (d *disk) Lookup(_ <-chan struct{}, _ *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	if name != diskName {
		return gofuse.ENOENT
	}
	out.NodeId = diskNode
	d.attr(diskNode, &out.Attr)
	return gofuse.OK
}

func (d *disk) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	d.attr(in.NodeId, &out.Attr)
	return gofuse.OK
}

func (d *disk) Open(<-chan struct{}, *gofuse.OpenIn, *gofuse.OpenOut) gofuse.Status { return gofuse.OK }

func (d *disk) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	n, err := d.now.ReadAt(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil && err != io.EOF {
		return nil, gofuse.ToStatus(err)
	}
	return gofuse.ReadResultData(buf[:n]), gofuse.OK
}

func (d *disk) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return 0, gofuse.ToStatus(d.broken)
	}
	if _, err := d.now.WriteAt(data, int64(in.Offset)); err != nil {
		return 0, gofuse.ToStatus(err)
	}
	d.since = append(d.since, write{int64(in.Offset), append([]byte(nil), data...)})
	return uint32(len(data)), gofuse.OK
}

func (d *disk) Writev(<-chan struct{}, *gofuse.WriteIn, [][]byte) (uint32, gofuse.Status) {
	return 0, gofuse.ENOSYS
}

func (d *disk) Fsync(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return gofuse.ToStatus(d.broken)
	}
	for _, w := range d.since {
		if _, err := d.flushed.WriteAt(w.data, w.off); err != nil {
			return gofuse.ToStatus(err)
		}
	}
	d.since = nil
	return gofuse.OK
}

func (d *disk) Flush(<-chan struct{}, *gofuse.FlushIn) gofuse.Status { return gofuse.OK }

func (d *disk) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	d.attr(in.NodeId, &out.Attr)
	return gofuse.OK
}
