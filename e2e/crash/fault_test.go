package crash

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/replica"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// TestADiskThatFailsLosesNothingAcknowledged makes all writes of the disk fail in the middle of the work.
func TestADiskThatFailsLosesNothingAcknowledged(t *testing.T) {
	c := newCluster(t, t.TempDir())
	d := newDisk(t, "mkfs.ext4", "-q", "-F")
	set, r, err := c.open(filepath.Join(d.dir, "replicas"), replica.Synced, 0)
	testkit.Must(t, err)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	all := newWorkers(t, r, seed)
	verifier := r.Verifier()
	m := newSwitcher(shown{}, func(move) error { return nil })
	var wg sync.WaitGroup
	for _, w := range all {
		wg.Go(func() {
			err := w.work(r, func() bool { return true })
			if !errors.Is(err, vfs.EIO) && !errors.Is(err, vfs.EROFS) {
				t.Errorf("the node is told %v", err)
			}
		})
	}
	for acked := 0; acked < 20 && !t.Failed(); acked, _ = all[0].span() {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	d.breakWith(unix.EIO)
	wg.Wait()
	if r.Verifier() == verifier {
		t.Error("clients are not told to send again what they have not committed")
	}
	checkAfterCut(t, c, d, all, m, rand.New(rand.NewPCG(seed, 1)))

	// ext4 has stopped until it is mounted again.
	d.breakWith(nil)
	testkit.Must(t, set.Close())
	testkit.Must(t, unix.Unmount(d.dir, 0))
	goOn(t, c, d, all)
}

// goOn mounts the disk again, and checks that all acknowledged changes are there and that more can be made.
func goOn(t *testing.T, c *cluster, d *disk, all []*worker) {
	t.Helper()
	dir := d.mount(filepath.Join(d.base, "fuse", diskName), "again", 0)
	set, r, err := c.open(filepath.Join(dir, "replicas"), replica.Synced, 0)
	testkit.Must(t, err)
	defer set.Close()
	for i, w := range all {
		low, high := w.span()
		is, err := w.check(r, low, high)
		testkit.Must(t, err)
		all[i] = newWorker(w.dir, w.rand.Uint64(), is)
		n := 0
		testkit.Must(t, all[i].work(r, func() bool { n++; return n < 20 }))
	}
}

// TestADiskThatTheKernelStopsLosesNothingAcknowledged makes ext4 find an error during the work, after which it
// refuses changes. The nodes must get an error, reads must work, and after fsck all acknowledged changes must
// be there.
func TestADiskThatTheKernelStopsLosesNothingAcknowledged(t *testing.T) {
	c := newCluster(t, t.TempDir())
	d := newDisk(t, "mkfs.ext4", "-q", "-F", "-e", "remount-ro")
	trigger := d.trigger()
	set, r, err := c.open(filepath.Join(d.dir, "replicas"), replica.Synced, 0)
	testkit.Must(t, err)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	all := newWorkers(t, r, seed)
	own, err := r.Create(root, r.Root(), "own", &vfs.Create{Attr: mode(0o600)})
	testkit.Must(t, err)
	var wg sync.WaitGroup
	for _, w := range all {
		wg.Go(func() {
			err := w.work(r, func() bool { return true })
			if !errors.Is(err, vfs.EIO) && !errors.Is(err, vfs.EROFS) {
				t.Errorf("the node is told %v", err)
			}
		})
	}
	for acked := 0; acked < 20 && !t.Failed(); acked, _ = all[0].span() {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	testkit.Must(t, os.WriteFile(trigger, []byte("test"), 0))
	wg.Wait()
	refusesChanges(t, r, own.Handle)
	if err := c.to(set, r, move{version: 1}); err == nil || r.Version().Digest != c.versions[0].Digest {
		t.Errorf("a switch: %v, the node has version %d", err, r.Version().Number)
	}
	for _, w := range all {
		low, high := w.span()
		if _, err := w.check(r, low, high); err != nil {
			t.Errorf("read from the stopped disk: %v", err)
		}
	}
	_ = unix.Mount("", d.dir, "", unix.MS_REMOUNT, "") // it needs a fsck
	refusesChanges(t, r, own.Handle)
	testkit.Must(t, set.Close())
	testkit.Must(t, unix.Unmount(d.dir, 0))
	// Not -p: the kernel writes the superblock at once, and with it the start of a list of removed files that
	// the journal does not know of.
	cmd := exec.Command("e2fsck", "-fy", filepath.Join(d.base, "fuse", diskName))
	if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 1 { // 1: errors were corrected
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
	goOn(t, c, d, all)
}

// trigger is the sysfs file that makes the ext4 of the disk report an error.
func (d *disk) trigger() string {
	d.t.Helper()
	var st unix.Stat_t
	testkit.Must(d.t, unix.Stat(d.dir, &st))
	file := fmt.Sprintf("/sys/fs/ext4/loop%d/trigger_fs_error", unix.Minor(st.Dev))
	if _, err := os.Stat(file); err != nil {
		d.t.Skipf("needs a kernel that can be told of an error: %v", err)
	}
	return file
}

// refusesChanges checks that every change is refused with the error of a local disk.
func refusesChanges(t *testing.T, r *replica.Replica, file vfs.Handle) {
	t.Helper()
	attr := mode(0o640)
	changes := map[string]func() error{
		"create":  func() error { _, err := r.Create(root, r.Root(), "new", &vfs.Create{Attr: attr}); return err },
		"mkdir":   func() error { _, err := r.Mkdir(root, r.Root(), "new", &attr); return err },
		"symlink": func() error { _, err := r.Symlink(root, r.Root(), "new", "to", &vfs.SetAttr{}); return err },
		"link":    func() error { _, err := r.Link(root, file, r.Root(), "new"); return err },
		"rename":  func() error { _, err := r.Rename(root, r.Root(), "own", r.Root(), "new"); return err },
		"remove":  func() error { _, err := r.Remove(root, r.Root(), "own"); return err },
		"chmod":   func() error { _, err := r.SetAttr(root, file, &attr); return err },
		"truncate": func() error {
			_, err := r.SetAttr(root, file, &vfs.SetAttr{Valid: vfs.SetSize, Size: 5})
			return err
		},
		"write": func() error { _, err := r.Write(root, file, []byte("x"), 0, vfs.FileSync); return err },
	}
	for what, do := range changes {
		if err := do(); err != vfs.EROFS && err != vfs.EIO {
			t.Errorf("%s on a stopped disk: %v", what, err)
		}
	}
}

// TestAFullDiskLeavesNothingHalfDone fills the disk several times during the work. Each call must succeed or
// change nothing. When there is room again, the work must go on without a restart.
func TestAFullDiskLeavesNothingHalfDone(t *testing.T) {
	c := newCluster(t, t.TempDir())
	d := newDisk(t, "mkfs.ext4", "-q", "-F", "-m", "0")
	set, r, err := c.open(filepath.Join(d.dir, "replicas"), replica.Relaxed, 0)
	testkit.Must(t, err)
	defer set.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorkers(t, r, seed)[0]
	random := rand.New(rand.NewPCG(seed, 1))
	refused := 0
	for i := range rounds(3) {
		fill(t, filepath.Join(d.dir, "fill"))
		for range 10 + random.IntN(30) {
			w, refused = workWhenFull(t, r, w, refused)
		}
		testkit.Must(t, os.Remove(filepath.Join(d.dir, "fill")))
		n := 0
		if err := w.work(r, func() bool { n++; return n < 20 }); err != nil {
			t.Fatalf("round %d, with room again: %v", i, err)
		}
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
	acked, begun := w.span()
	if _, err := w.check(r, acked, begun); err != nil {
		t.Error(err)
	}
}

// TestTheQuotaOfADiskIsReported exhausts a quota of the disk's file system, which gives another error than a full disk.
func TestTheQuotaOfADiskIsReported(t *testing.T) {
	c := newCluster(t, t.TempDir())
	d := newDisk(t, "mkfs.btrfs", "-q", "-f", "--mixed")
	btrfs := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("btrfs", append(args, d.dir)...).CombinedOutput(); err != nil {
			t.Fatalf("btrfs %v: %v\n%s", args, err, out)
		}
	}
	set, r, err := c.open(filepath.Join(d.dir, "replicas"), replica.Relaxed, 0)
	testkit.Must(t, err)
	defer set.Close()
	w := newWorkers(t, r, 1)[0]
	home, err := r.Mkdir(root, r.Root(), "home", &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700})
	testkit.Must(t, err)
	f, err := r.Create(root, home.Handle, "f", &vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}})
	testkit.Must(t, err)
	btrfs("quota", "enable")
	btrfs("quota", "rescan", "-w")
	btrfs("qgroup", "limit", "8M")

	piece := bytes.Repeat([]byte("user"), 16<<10)
	off := uint64(0)
	for ; off < 16<<20; off += uint64(len(piece)) {
		if _, err = r.Write(root, f.Handle, piece, off, vfs.FileSync); err != nil {
			break
		}
	}
	if err != vfs.EDQUOT || off == 0 {
		t.Fatalf("%d bytes written, then: %v, want EDQUOT", off, err)
	}
	got := make([]byte, len(piece))
	for at := uint64(0); at < off; at += uint64(len(piece)) {
		if _, _, err := r.Read(root, f.Handle, got, at); err != nil || !bytes.Equal(got, piece) {
			t.Fatalf("what was written at %d: %v", at, err)
		}
	}
	btrfs("qgroup", "limit", "24M")
	if _, err := r.Write(root, f.Handle, piece, off, vfs.FileSync); err != nil {
		t.Errorf("with a larger quota: %v", err)
	}
	n := 0
	if err := w.work(r, func() bool { n++; return n < 20 }); err != nil {
		t.Errorf("with a larger quota: %v", err)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	testkit.Must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	testkit.Must(t, f.Sync())
}

// workWhenFull makes one change. If it is refused, it may have changed only bytes of a file that was written to.
func workWhenFull(t *testing.T, r *replica.Replica, w *worker, refused int) (*worker, int) {
	t.Helper()
	n := 0
	err := w.work(r, func() bool { n++; return n < 2 })
	if err == nil {
		return w, refused
	}
	if !errors.Is(err, vfs.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	acked, _ := w.span()
	is := make(state)
	top, err := find(r, w.dir)
	testkit.Must(t, err)
	testkit.Must(t, observe(r, top, "", make(map[uint64]*entry), is))
	last := w.done[acked]
	if !is.equal(w.states[acked]) &&
		(last.path == "" || !strings.HasPrefix(last.text, "write") ||
			!is.torn(last.path, w.states[acked], w.states[acked+1])) {
		t.Fatalf("%s was refused and left\n%s\nof\n%s", last.text, text(is), text(w.states[acked]))
	}
	return newWorker(w.dir, w.rand.Uint64(), is), refused + 1
}
