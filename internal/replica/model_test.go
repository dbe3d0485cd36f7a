package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"dim/internal/image"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

var modelSeed = []vfstest.Entry{
	d("a"), f("a/a", "aa"), f("a/b", "ab"), d("a/c"), f("a/c/a", "aca"), {Path: "a/c/b", Type: vfs.Symlink, Target: "a", Mtime: vfs.Time{Sec: 1e9}},
	d("b"), f("b/a", strings.Repeat("long ", 2000)), {Path: "b/b", LinkTo: "b/a"}, {Path: "c", LinkTo: "b/a"}, d("b/c"), d("b/c/a"),
	f("b/c/a/a", "deep"), {Path: "d", Type: vfs.FIFO, Mode: 0o620, UID: 7, Mtime: vfs.Time{Sec: 1e9}},
	{Path: "e", Type: vfs.Regular, Mode: 0o4755, UID: 5, GID: 6, Content: "suid", Mtime: vfs.Time{Sec: 1e9}},
	{Path: "g", Type: vfs.Regular, Mode: 0o644, Content: "sparse", Size: 100_000, Mtime: vfs.Time{Sec: 1e9}},
}

// modelNext is the version that some histories end with.
var modelNext = []vfstest.Entry{
	d("a"), f("a/a", "aa, but other"), d("a/b"), f("a/b/a", "a directory now"), {Path: "a/c", Type: vfs.Symlink, Target: "b", Mtime: vfs.Time{Sec: 1e9}},
	{Path: "b", Type: vfs.Directory, Mode: 0o700, UID: 3, Mtime: vfs.Time{Sec: 2e9}}, f("b/a", strings.Repeat("long ", 2000)), {Path: "c", LinkTo: "b/a"}, d("b/new"), f("b/new/a", "n"),
	{Path: "d", Type: vfs.FIFO, Mode: 0o620, UID: 7, Mtime: vfs.Time{Sec: 1e9}}, f("x", "x is the master's now"),
	{Path: "e", Type: vfs.Regular, Mode: 0o755, UID: 5, GID: 6, Content: "suid", Mtime: vfs.Time{Sec: 1e9}}, d("new"), f("new/a", "new"),
}

// The oracle: the kernel's overlayfs with the same lower tree sees what each random history does to the replica. It is
// mounted with index=on, without which it breaks hard links, and redirect_dir=on, without which it cannot rename directories. Then
// the kernel mounts the replica's own layer, plainly, and must show what the replica shows.
func TestRandomHistoriesDoWhatTheKernelsOverlayfsDoes(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	m := newMemory(t)
	low, v := modelVersion(t, m, dir, 1, modelSeed)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, v, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.close()
		unmount := h.mount(filepath.Join(h.base, "kernel"), low, filepath.Join(h.base, "upper"), filepath.Join(h.base, "work"), "index=on,redirect_dir=on,metacopy=off")
		defer unmount()
		for range rapid.IntRange(1, 40).Draw(rt, "length") {
			h.step()
		}
		if diff := cmp.Diff(h.kernelTree(h.mnt), h.o.tree()); diff != "" {
			rt.Fatalf("overlayfs (-) and replica (+) differ after\n%s\n%s", strings.Join(h.lines, "\n"), diff)
		}
		h.checkReopened(v, low)
	})
}

// After a random history and a switch to another version, and perhaps back, the replica's layer over that version is still what
// the replica shows, before and after a restart; and every path at which the versions differ and the layer holds nothing
// shows the master's.
func TestSwitchesAfterRandomHistoriesLeaveAPlainLayer(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	m := newMemory(t)
	low1, one := modelVersion(t, m, dir, 1, modelSeed)
	low2, two := modelVersion(t, m, dir, 2, modelNext)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, one, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.close()
		unmount := h.mount(filepath.Join(h.base, "kernel"), low1, filepath.Join(h.base, "upper"), filepath.Join(h.base, "work"), "index=on,redirect_dir=on,metacopy=off")
		defer unmount()
		for range rapid.IntRange(1, 20).Draw(rt, "length") {
			h.step()
		}
		h.lines = append(h.lines, "switch")
		h.switchTo(two)
		h.checkReopened(two, low2)
		h.checkIDs()
		h.tendSaved(two, low2)
		if rapid.Bool().Draw(rt, "back") {
			h.lines = append(h.lines, "switch back")
			h.switchTo(one)
			h.checkReopened(one, low1)
			h.checkIDs()
			h.tendSaved(one, low1)
		}
	})
}

func (h *history) switchTo(v image.Version) {
	h.t.Helper()
	if _, err := h.o.s.Switch(context.Background(), []Move{{Replica: h.o.Replica, Version: v}}); err != nil {
		h.t.Fatal(err)
	}
}

// checkIDs checks that each object has one id and handle, which leads to it.
func (h *history) checkIDs() {
	h.t.Helper()
	seen := make(map[uint64]string)
	for path := range h.o.tree() {
		handle, a, err := h.o.lookup(path)
		if err != nil {
			h.t.Fatal(err)
		}
		var b vfs.Attr
		if err := h.o.Attr(handle, &b); err != nil || a != b {
			h.t.Fatalf("%s by its handle: %v\n%s\n%s", path, err, strings.Join(h.lines, "\n"), cmp.Diff(a, b))
		}
		if other, twice := seen[a.ID]; twice && a.Nlink < 2 {
			h.t.Fatalf("%s and %s have one id after\n%s", path, other, strings.Join(h.lines, "\n"))
		}
		seen[a.ID] = path
	}
}

// modelVersion makes a version, and a directory with the same for the kernel.
func modelVersion(t *testing.T, m *memory, dir string, n int, seed []vfstest.Entry) (low string, v image.Version) {
	t.Helper()
	low = filepath.Join(dir, fmt.Sprint("lower", n))
	if err := os.Mkdir(low, 0o755); err != nil {
		t.Fatal(err)
	}
	vfstest.WriteDir(t, low, seed)
	return low, m.version(t, n, seed)
}

func newHistory(rt *rapid.T, t *testing.T, m *memory, v image.Version, base string) *history {
	s, err := Open(Options{Dir: filepath.Join(base, "replicas"), Source: m, Durability: Relaxed})
	if err != nil {
		rt.Fatal(err)
	}
	r, err := s.Attach(Spec{Node: "n01", Image: "compute", Version: v})
	if err != nil {
		rt.Fatal(err)
	}
	return &history{t: rt, o: &site{Replica: r, t: t, s: s, m: m}, base: base}
}

func (h *history) close() {
	h.o.s.Close()
	os.RemoveAll(h.base)
}

// mount mounts an overlay that the operations are done to from now on.
func (h *history) mount(mnt, low, upper, work, opts string) (unmount func()) {
	h.mnt = mnt
	return mountOverlay(h.t, mnt, low, upper, work, opts)
}

// checkReopened compares the replica with itself after a restart, and with a plain mount of its layer.
func (h *history) checkReopened(v image.Version, low string) {
	before, base := h.o.tree(), h.base
	again, err := Open(Options{Dir: filepath.Join(base, "replicas"), Source: h.o.m, Durability: Relaxed})
	if err != nil {
		h.t.Fatal(err)
	}
	defer again.Close()
	r, err := again.Attach(Spec{Node: "n01", Image: "compute", Version: v})
	if err != nil {
		h.t.Fatal(err)
	}
	o := &site{Replica: r, t: h.o.t}
	if diff := cmp.Diff(before, o.tree()); diff != "" {
		h.t.Fatalf("the replica before (-) and after (+) a restart differ after\n%s\n%s", strings.Join(h.lines, "\n"), diff)
	}
	counted, _ := h.o.Holding()
	if anew, err := r.Holding(); err != nil || anew != counted {
		h.t.Fatalf("counted %+v, after a restart %+v, %v, after\n%s", counted, anew, err, strings.Join(h.lines, "\n"))
	}
	layer := filepath.Join(base, "replicas/n01/compute")
	if _, err := os.Stat(layer + "/upper"); err != nil {
		return
	}
	mnt := base + "/plain"
	unmount := mountOverlay(h.t, mnt, low, layer+"/upper", layer+"/work", "")
	defer unmount()
	// Without index=on the kernel does not count names of the lower tree that are hidden.
	if diff := cmp.Diff(noLinks(h.kernelTree(mnt)), noLinks(before)); diff != "" {
		h.t.Fatalf("overlayfs on the replica's layer (-) and the replica (+) differ after\n%s\n%s", strings.Join(h.lines, "\n"), diff)
	}
}

func noLinks(tree map[string]string) map[string]string {
	out := make(map[string]string, len(tree))
	for path, line := range tree {
		if i, j := strings.Index(line, " x"), 0; i >= 0 {
			for j = i + 2; j < len(line) && line[j] != ' '; j++ {
			}
			line = line[:i] + line[j:]
		}
		out[path] = line
	}
	return out
}

func mountOverlay(t *rapid.T, mnt, low, upper, work, opts string) (unmount func()) {
	for _, d := range []string{upper, work, mnt} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", low, upper, work)
	if opts != "" {
		data += "," + opts
	}
	if err := unix.Mount("overlay", mnt, "overlay", 0, data); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	return func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount overlay: %v", err)
		}
	}
}

// history is a row of operations, done to both.
type history struct {
	t     *rapid.T
	o     *site
	base  string // directory of all that it makes
	mnt   string
	lines []string
}

var modelNames = []string{"a", "b", "c", "d", "e", "new", "x"}

// path draws a path whose directory exists.
func (h *history) path(label string) string {
	dirs := h.o.dirs("", h.o.Root(), nil)
	slices.Sort(dirs)
	return image.JoinPath(rapid.SampledFrom(dirs).Draw(h.t, label+" in"), rapid.SampledFrom(modelNames).Draw(h.t, label))
}

// modelOps are the operations; each returns what it does as text, and both errors.
var modelOps = []func(h *history) (line string, kernel, own error){
	(*history).opWrite, (*history).opWrite, (*history).opCreate, (*history).opTruncate, (*history).opChmod, (*history).opChown,
	(*history).opMkdir, (*history).opRemove, (*history).opRemove, (*history).opRmdir, (*history).opRename, (*history).opRename,
	(*history).opLink, (*history).opSymlink, (*history).opMknod, (*history).opClear,
}

func (h *history) step() {
	op := modelOps[rapid.IntRange(0, len(modelOps)-1).Draw(h.t, "op")]
	line, kernel, own := op(h)
	line += fmt.Sprintf(" = %v", own)
	h.lines = append(h.lines, line)
	if !sameErrno(kernel, own) {
		h.t.Fatalf("overlayfs says %v, the replica %v, in\n%s", kernel, own, strings.Join(h.lines, "\n"))
	}
}

func sameErrno(kernel, own error) bool {
	var k unix.Errno
	if !errors.As(kernel, &k) && kernel != nil {
		return false
	}
	var mine unix.Errno
	if own != nil {
		mine = unix.Errno(own.(vfs.Errno))
	}
	return k == mine || k == unix.EEXIST && mine == unix.ENOTEMPTY || k == unix.ENOTEMPTY && mine == unix.EEXIST
}

func split(path string) (dir, name string) {
	dir = parentPath(path)
	return dir, strings.TrimPrefix(path[len(dir):], "/")
}

func (h *history) real(path string) string { return filepath.Join(h.mnt, path) }

// with looks path up in the replica and calls do.
func (h *history) with(path string, do func(h vfs.Handle) error) error {
	handle, _, err := h.o.lookup(path)
	if err != nil {
		return err
	}
	return do(handle)
}

func (h *history) in(path string, do func(dir vfs.Handle, name string) error) error {
	dir, name := split(path)
	return do(h.o.handle(dir), name)
}

func (h *history) regular(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(h.real(path), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

func (h *history) opWrite() (string, error, error) {
	path := h.path("file")
	if !h.regular(path) {
		return "skip", nil, nil
	}
	off := rapid.Uint64Range(0, 9000).Draw(h.t, "off")
	data := []byte(rapid.StringMatching("[A-Z]{1,9}").Draw(h.t, "data"))
	kernel := func() error {
		fd, err := unix.Open(h.real(path), unix.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Pwrite(fd, data, int64(off))
		return err
	}()
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.o.Write(root, f, data, off, vfs.Unstable)
		return err
	})
	return fmt.Sprintf("write %s at %d %q", path, off, data), kernel, own
}

func (h *history) opCreate() (string, error, error) {
	path := h.path("file")
	mode := rapid.SampledFrom([]uint32{0o644, 0o755, 0o4711}).Draw(h.t, "mode")
	fd, kernel := unix.Open(h.real(path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode)
	if kernel == nil {
		kernel = unix.Fchmod(fd, mode)
		unix.Close(fd)
	}
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.o.Create(root, dir, name, &vfs.Create{Mode: vfs.Guarded, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: mode}})
		return err
	})
	return fmt.Sprintf("create %s %o", path, mode), kernel, own
}

func (h *history) opTruncate() (string, error, error) {
	path := h.path("file")
	if !h.regular(path) {
		return "skip", nil, nil
	}
	size := rapid.SampledFrom([]uint64{0, 1, 5000, 200_000}).Draw(h.t, "size")
	kernel := unix.Truncate(h.real(path), int64(size))
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.o.SetAttr(root, f, &vfs.SetAttr{Valid: vfs.SetSize, Size: size})
		return err
	})
	return fmt.Sprintf("truncate %s to %d", path, size), kernel, own
}

func (h *history) opChmod() (string, error, error) {
	path := h.path("entry")
	var st unix.Stat_t
	if unix.Lstat(h.real(path), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return "skip", nil, nil
	}
	mode := rapid.SampledFrom([]uint32{0o600, 0o777, 0o2750}).Draw(h.t, "mode")
	kernel := unix.Chmod(h.real(path), mode)
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.o.SetAttr(root, f, &vfs.SetAttr{Valid: vfs.SetMode, Mode: mode})
		return err
	})
	return fmt.Sprintf("chmod %s %o", path, mode), kernel, own
}

func (h *history) opChown() (string, error, error) {
	path := h.path("entry")
	uid := rapid.Uint32Range(0, 3).Draw(h.t, "uid")
	kernel := unix.Lchown(h.real(path), int(uid), 9)
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.o.SetAttr(root, f, &vfs.SetAttr{Valid: vfs.SetUID | vfs.SetGID, UID: uid, GID: 9})
		return err
	})
	return fmt.Sprintf("chown %s %d:9", path, uid), kernel, own
}

func (h *history) opMkdir() (string, error, error) {
	path := h.path("directory")
	kernel := unix.Mkdir(h.real(path), 0o755)
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.o.Mkdir(root, dir, name, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755})
		return err
	})
	return "mkdir " + path, kernel, own
}

func (h *history) opRemove() (string, error, error) {
	path := h.path("entry")
	kernel := unix.Unlink(h.real(path))
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.o.Remove(root, dir, name)
		return err
	})
	return "remove " + path, kernel, own
}

func (h *history) opRmdir() (string, error, error) {
	path := h.path("directory")
	kernel := unix.Rmdir(h.real(path))
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.o.Rmdir(root, dir, name)
		return err
	})
	return "rmdir " + path, kernel, own
}

// opClear removes all there is at a path, so that directories become empty often enough.
func (h *history) opClear() (string, error, error) {
	path := h.path("entry")
	if _, _, err := h.o.lookup(path); err == nil {
		h.o.remove(path)
	}
	return "clear " + path, os.RemoveAll(h.real(path)), nil
}

func (h *history) opRename() (string, error, error) {
	from, to := h.path("from"), h.path("to")
	kernel := unix.Rename(h.real(from), h.real(to))
	dir, name := split(to)
	toDir := h.o.handle(dir)
	own := h.in(from, func(d vfs.Handle, n string) error {
		_, err := h.o.Rename(root, d, n, toDir, name)
		return err
	})
	return fmt.Sprintf("rename %s %s", from, to), kernel, own
}

func (h *history) opLink() (string, error, error) {
	from, to := h.path("from"), h.path("to")
	kernel := unix.Link(h.real(from), h.real(to))
	own := h.with(from, func(f vfs.Handle) error {
		return h.in(to, func(dir vfs.Handle, name string) error {
			_, err := h.o.Link(root, f, dir, name)
			return err
		})
	})
	return fmt.Sprintf("link %s %s", from, to), kernel, own
}

func (h *history) opSymlink() (string, error, error) {
	path := h.path("symlink")
	kernel := unix.Symlink("a/b", h.real(path))
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.o.Symlink(root, dir, name, "a/b", &vfs.SetAttr{})
		return err
	})
	return "symlink " + path, kernel, own
}

func (h *history) opMknod() (string, error, error) {
	path := h.path("device")
	kernel := unix.Mknod(h.real(path), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3)))
	if kernel == nil {
		kernel = unix.Chmod(h.real(path), 0o640)
	}
	own := h.in(path, func(dir vfs.Handle, name string) error {
		n := vfs.Node{Type: vfs.CharDevice, Major: 1, Minor: 3}
		_, err := h.o.Mknod(root, dir, name, &n, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o640})
		return err
	})
	return "mknod " + path, kernel, own
}

// kernelTree describes what the kernel shows below top, as site.tree does.
func (h *history) kernelTree(top string) map[string]string {
	all := make(map[string]string)
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := os.ReadDir(filepath.Join(top, dir))
		if err != nil {
			h.t.Fatal(err)
		}
		for _, e := range entries {
			path := image.JoinPath(dir, e.Name())
			full := filepath.Join(top, path)
			var st unix.Stat_t
			if err := unix.Lstat(full, &st); err != nil {
				h.t.Fatalf("%s: %v after\n%s", path, err, strings.Join(h.lines, "\n"))
			}
			kind := vfs.TypeOf(st.Mode)
			line := fmt.Sprintf("%d %o %d:%d", kind, st.Mode&0o7777, st.Uid, st.Gid)
			switch kind {
			case vfs.Regular:
				b, err := os.ReadFile(full)
				if err != nil {
					h.t.Fatal(err)
				}
				line += fmt.Sprintf(" x%d %q", st.Nlink, b[:min(len(b), 1<<16)])
			case vfs.Symlink:
				target, _ := os.Readlink(full)
				line += " -> " + target
			case vfs.Directory:
				walk(path)
			default:
				line += fmt.Sprintf(" x%d %d,%d", st.Nlink, unix.Major(st.Rdev), unix.Minor(st.Rdev))
			}
			all[path] = line
		}
	}
	walk("")
	return all
}
