package replicatest

import (
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

// ModelSeed returns the version that histories begin with.
func ModelSeed() []vfstest.Entry {
	return []vfstest.Entry{
		Dir("a"), File("a/a", "aa"), File("a/b", "ab"), Dir("a/c"), File("a/c/a", "aca"),
		{Path: "a/c/b", Type: vfs.Symlink, Target: "a", Mtime: vfs.Time{Sec: 1e9}},
		Dir("b"), File("b/a", strings.Repeat("long ", 2000)), {Path: "b/b", LinkTo: "b/a"}, {Path: "c", LinkTo: "b/a"},
		Dir("b/c"), Dir("b/c/a"),
		File("b/c/a/a", "deep"), {Path: "d", Type: vfs.FIFO, Mode: 0o620, UID: 7, Mtime: vfs.Time{Sec: 1e9}},
		{Path: "e", Type: vfs.Regular, Mode: 0o4755, UID: 5, GID: 6, Content: "suid", Mtime: vfs.Time{Sec: 1e9}},
		{Path: "g", Type: vfs.Regular, Mode: 0o644, Content: "sparse", Size: 100_000, Mtime: vfs.Time{Sec: 1e9}},
	}
}

// ModelNext returns the version that some histories end with.
func ModelNext() []vfstest.Entry {
	return []vfstest.Entry{
		Dir("a"), File("a/a", "aa, but other"), Dir("a/b"), File("a/b/a", "a directory now"),
		{Path: "a/c", Type: vfs.Symlink, Target: "b", Mtime: vfs.Time{Sec: 1e9}},
		{Path: "b", Type: vfs.Directory, Mode: 0o700, UID: 3, Mtime: vfs.Time{Sec: 2e9}},
		File("b/a", strings.Repeat("long ", 2000)), {Path: "c", LinkTo: "b/a"}, Dir("b/new"), File("b/new/a", "n"),
		{Path: "d", Type: vfs.FIFO, Mode: 0o620, UID: 7, Mtime: vfs.Time{Sec: 1e9}}, File("x", "x is the master's now"),
		{Path: "e", Type: vfs.Regular, Mode: 0o755, UID: 5, GID: 6, Content: "suid", Mtime: vfs.Time{Sec: 1e9}},
		Dir("new"), File("new/a", "new"),
	}
}

// CheckIDs checks that each object has one id and one handle, and that the handle leads to it.
func (h *History) CheckIDs() {
	h.T.Helper()
	seen := make(map[uint64]string)
	for path := range h.Dump() {
		handle, a, err := h.Find(path)
		if err != nil {
			h.T.Fatal(err)
		}
		var b vfs.Attr
		if err := h.fs.Attr(handle, &b); err != nil || a != b {
			h.T.Fatalf("%s by its handle: %v\n%s\n%s", path, err, strings.Join(h.Lines, "\n"), cmp.Diff(a, b))
		}
		if other, twice := seen[a.ID]; twice && a.Nlink < 2 {
			h.T.Fatalf("%s and %s have one id after\n%s", path, other, strings.Join(h.Lines, "\n"))
		}
		seen[a.ID] = path
	}
}

// ModelVersion makes a version, and a directory with the same for the kernel.
func (m *Memory) ModelVersion(t *testing.T, dir string, n int, seed []vfstest.Entry) (low string, v image.Version) {
	t.Helper()
	low = filepath.Join(dir, fmt.Sprint("lower", n))
	if err := os.Mkdir(low, 0o755); err != nil {
		t.Fatal(err)
	}
	vfstest.WriteDir(t, low, seed)
	return low, m.Version(t, n, seed)
}

// Server serves a replica that a history is done to. The replica's layer is in replicas/n01/compute of the history's
// directory.
type Server struct {
	FS     vfs.FS
	Use    func() (any, error) // what it counts for quotas
	Close  func() error
	Reopen func(v image.Version) (Server, error) // serves the replica a second time, with a version
}

// NewHistory begins a history in the new directory base.
func NewHistory(rt *rapid.T, t testing.TB, base string, s Server) *History {
	return &History{T: rt, Shell: NewShell(t, s.FS), Base: base, server: s}
}

// Close ends the server and removes all that the history has made.
func (h *History) Close() {
	h.server.Close()
	os.RemoveAll(h.Base)
}

// Mount mounts an overlay of low and of the directory upper with the suffix name. Steps change it from now on.
func (h *History) Mount(name, low string) (unmount func()) {
	o := overlay{low: low, upper: h.Base + "/upper" + name, work: h.Base + "/work" + name}
	o.options = "index=on,redirect_dir=on,metacopy=off"
	h.mnt = h.Base + "/kernel" + name
	return o.mount(h.T, h.mnt)
}

// CheckReopened compares the replica with itself after a restart, and with a plain mount of its layer.
func (h *History) CheckReopened(v image.Version, low string) {
	before, base := h.Dump(), h.Base
	again, err := h.server.Reopen(v)
	if err != nil {
		h.T.Fatal(err)
	}
	defer again.Close()
	reopened := NewShell(h.t, again.FS)
	if diff := cmp.Diff(before, reopened.Dump()); diff != "" {
		h.fatal("the replica before (-) and after (+) a restart differ", diff)
	}
	counted, _ := h.server.Use()
	if anew, err := again.Use(); err != nil || anew != counted {
		h.T.Fatalf("counted %+v, after a restart %+v, %v, after\n%s", counted, anew, err, strings.Join(h.Lines, "\n"))
	}
	layer := filepath.Join(base, "replicas/n01/compute")
	if _, err := os.Stat(layer + "/upper"); err != nil {
		return
	}
	mnt := base + "/plain"
	o := overlay{low: low, upper: layer + "/upper", work: layer + "/work"}
	unmount := o.mount(h.T, mnt)
	defer unmount()
	// Without index=on the kernel does not count names of the lower tree that are hidden.
	if diff := cmp.Diff(noLinks(h.treeOf(mnt)), noLinks(before)); diff != "" {
		h.fatal("overlayfs on the replica's layer (-) and the replica (+) differ", diff)
	}
}

func (h *History) fatal(what, diff string) {
	h.T.Helper()
	h.T.Fatalf("%s after\n%s\n%s", what, strings.Join(h.Lines, "\n"), diff)
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

// overlay is a mount of the kernel's overlayfs.
type overlay struct{ low, upper, work, options string }

func (o *overlay) mount(t *rapid.T, mnt string) (unmount func()) {
	for _, d := range []string{o.upper, o.work, mnt} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", o.low, o.upper, o.work)
	if o.options != "" {
		data += "," + o.options
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

// History is a sequence of operations on a replica and on an overlay of the kernel.
type History struct {
	T *rapid.T
	Shell
	Base  string   // directory of all that it makes
	Lines []string // what was done

	server Server
	mnt    string // where the kernel's overlay is mounted
}

// ModelNames returns the names that operations use.
func ModelNames() []string {
	return []string{"a", "b", "c", "d", "e", "new", "x"}
}

// path draws a path whose directory exists.
func (h *History) path(label string) string {
	dirs := h.Dirs("", h.fs.Root(), nil)
	slices.Sort(dirs)
	dir := rapid.SampledFrom(dirs).Draw(h.T, label+" in")
	return image.JoinPath(dir, rapid.SampledFrom(ModelNames()).Draw(h.T, label))
}

// modelOps are the operations; each returns what it does as text, and both errors.
var modelOps = []func(h *History) (line string, kernel, own error){
	(*History).opWrite, (*History).opWrite, (*History).opCreate, (*History).opTruncate, (*History).opChmod,
	(*History).opChown, (*History).opMkdir, (*History).opRemove, (*History).opRemove, (*History).opRmdir,
	(*History).opRename, (*History).opRename,
	(*History).opLink, (*History).opSymlink, (*History).opMknod, (*History).opClear,
}

// Step does one operation to both.
func (h *History) Step() {
	op := modelOps[rapid.IntRange(0, len(modelOps)-1).Draw(h.T, "op")]
	line, kernel, own := op(h)
	line += fmt.Sprintf(" = %v", own)
	h.Lines = append(h.Lines, line)
	if !sameErrno(kernel, own) {
		h.T.Fatalf("overlayfs says %v, the replica %v, in\n%s", kernel, own, strings.Join(h.Lines, "\n"))
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
	dir = parent(path)
	return dir, strings.TrimPrefix(path[len(dir):], "/")
}

func (h *History) real(path string) string { return filepath.Join(h.mnt, path) }

// with looks path up in the replica and calls do.
func (h *History) with(path string, do func(h vfs.Handle) error) error {
	handle, _, err := h.Find(path)
	if err != nil {
		return err
	}
	return do(handle)
}

func (h *History) in(path string, do func(dir vfs.Handle, name string) error) error {
	dir, name := split(path)
	return do(h.Handle(dir), name)
}

func (h *History) regular(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(h.real(path), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

func (h *History) opWrite() (string, error, error) {
	path := h.path("file")
	if !h.regular(path) {
		return "skip", nil, nil
	}
	off := rapid.Uint64Range(0, 9000).Draw(h.T, "off")
	data := []byte(rapid.StringMatching("[A-Z]{1,9}").Draw(h.T, "data"))
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
		_, err := h.fs.Write(h.root, f, data, off, vfs.Unstable)
		return err
	})
	return fmt.Sprintf("write %s at %d %q", path, off, data), kernel, own
}

func (h *History) opCreate() (string, error, error) {
	path := h.path("file")
	mode := rapid.SampledFrom([]uint32{0o644, 0o755, 0o4711}).Draw(h.T, "mode")
	fd, kernel := unix.Open(h.real(path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode)
	if kernel == nil {
		kernel = unix.Fchmod(fd, mode)
		unix.Close(fd)
	}
	own := h.in(path, func(dir vfs.Handle, name string) error {
		how := vfs.Create{Mode: vfs.Guarded, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: mode}}
		_, err := h.fs.Create(h.root, dir, name, &how)
		return err
	})
	return fmt.Sprintf("create %s %o", path, mode), kernel, own
}

func (h *History) opTruncate() (string, error, error) {
	path := h.path("file")
	if !h.regular(path) {
		return "skip", nil, nil
	}
	size := rapid.SampledFrom([]uint64{0, 1, 5000, 200_000}).Draw(h.T, "size")
	kernel := unix.Truncate(h.real(path), int64(size))
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.fs.SetAttr(h.root, f, &vfs.SetAttr{Valid: vfs.SetSize, Size: size})
		return err
	})
	return fmt.Sprintf("truncate %s to %d", path, size), kernel, own
}

func (h *History) opChmod() (string, error, error) {
	path := h.path("entry")
	var st unix.Stat_t
	if unix.Lstat(h.real(path), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return "skip", nil, nil
	}
	mode := rapid.SampledFrom([]uint32{0o600, 0o777, 0o2750}).Draw(h.T, "mode")
	kernel := unix.Chmod(h.real(path), mode)
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.fs.SetAttr(h.root, f, &vfs.SetAttr{Valid: vfs.SetMode, Mode: mode})
		return err
	})
	return fmt.Sprintf("chmod %s %o", path, mode), kernel, own
}

func (h *History) opChown() (string, error, error) {
	path := h.path("entry")
	uid := rapid.Uint32Range(0, 3).Draw(h.T, "uid")
	kernel := unix.Lchown(h.real(path), int(uid), 9)
	own := h.with(path, func(f vfs.Handle) error {
		_, err := h.fs.SetAttr(h.root, f, &vfs.SetAttr{Valid: vfs.SetUID | vfs.SetGID, UID: uid, GID: 9})
		return err
	})
	return fmt.Sprintf("chown %s %d:9", path, uid), kernel, own
}

func (h *History) opMkdir() (string, error, error) {
	path := h.path("directory")
	kernel := unix.Mkdir(h.real(path), 0o755)
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.fs.Mkdir(h.root, dir, name, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755})
		return err
	})
	return "mkdir " + path, kernel, own
}

func (h *History) opRemove() (string, error, error) {
	path := h.path("entry")
	kernel := unix.Unlink(h.real(path))
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.fs.Remove(h.root, dir, name)
		return err
	})
	return "remove " + path, kernel, own
}

func (h *History) opRmdir() (string, error, error) {
	path := h.path("directory")
	kernel := unix.Rmdir(h.real(path))
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.fs.Rmdir(h.root, dir, name)
		return err
	})
	return "rmdir " + path, kernel, own
}

// opClear removes a path with all that is in it, so that directories become empty often enough.
func (h *History) opClear() (string, error, error) {
	path := h.path("entry")
	if _, _, err := h.Find(path); err == nil {
		h.RemoveAll(path)
	}
	return "clear " + path, os.RemoveAll(h.real(path)), nil
}

func (h *History) opRename() (string, error, error) {
	from, to := h.path("from"), h.path("to")
	kernel := unix.Rename(h.real(from), h.real(to))
	dir, name := split(to)
	toDir := h.Handle(dir)
	own := h.in(from, func(d vfs.Handle, n string) error {
		_, err := h.fs.Rename(h.root, d, n, toDir, name)
		return err
	})
	return fmt.Sprintf("rename %s %s", from, to), kernel, own
}

func (h *History) opLink() (string, error, error) {
	from, to := h.path("from"), h.path("to")
	kernel := unix.Link(h.real(from), h.real(to))
	own := h.with(from, func(f vfs.Handle) error {
		return h.in(to, func(dir vfs.Handle, name string) error {
			_, err := h.fs.Link(h.root, f, dir, name)
			return err
		})
	})
	return fmt.Sprintf("link %s %s", from, to), kernel, own
}

func (h *History) opSymlink() (string, error, error) {
	path := h.path("symlink")
	kernel := unix.Symlink("a/b", h.real(path))
	own := h.in(path, func(dir vfs.Handle, name string) error {
		_, err := h.fs.Symlink(h.root, dir, name, "a/b", &vfs.SetAttr{})
		return err
	})
	return "symlink " + path, kernel, own
}

func (h *History) opMknod() (string, error, error) {
	path := h.path("device")
	kernel := unix.Mknod(h.real(path), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3)))
	if kernel == nil {
		kernel = unix.Chmod(h.real(path), 0o640)
	}
	own := h.in(path, func(dir vfs.Handle, name string) error {
		n := vfs.Node{Type: vfs.CharDevice, Major: 1, Minor: 3}
		_, err := h.fs.Mknod(h.root, dir, name, &n, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o640})
		return err
	})
	return "mknod " + path, kernel, own
}

// KernelTree describes what the kernel's overlay shows, as Shell.Dump does.
func (h *History) KernelTree() map[string]string { return h.treeOf(h.mnt) }

// treeOf describes what stands below the directory top, as Shell.Dump does.
func (h *History) treeOf(top string) map[string]string {
	all := make(map[string]string)
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := os.ReadDir(filepath.Join(top, dir))
		if err != nil {
			h.T.Fatal(err)
		}
		for _, e := range entries {
			path := image.JoinPath(dir, e.Name())
			full := filepath.Join(top, path)
			var st unix.Stat_t
			if err := unix.Lstat(full, &st); err != nil {
				h.T.Fatalf("%s: %v after\n%s", path, err, strings.Join(h.Lines, "\n"))
			}
			kind := vfs.TypeOf(st.Mode)
			line := fmt.Sprintf("%d %o %d:%d", kind, st.Mode&0o7777, st.Uid, st.Gid)
			switch kind {
			case vfs.Regular:
				b, err := os.ReadFile(full)
				if err != nil {
					h.T.Fatal(err)
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
