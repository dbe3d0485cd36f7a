package checkout

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// lab is a store and what captures into it.
type lab struct {
	t     *testing.T
	store *store.Store

	reserve func(context.Context) (int, error)
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for owners, devices and trusted xattrs")
	}
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return &lab{t, s, testkit.Counter()}
}

func (l *lab) capture(o capture.Options) image.Version {
	l.t.Helper()
	o.Image, o.Reserve = "test", l.reserve
	r, err := capture.Run(context.Background(), l.store, o)
	check(l.t, err)
	if len(r.Problems) > 0 {
		l.t.Errorf("problems: %v", r.Problems)
	}
	return r.Version
}

// same reports every difference between two versions.
func (l *lab) same(what string, a, b image.Version) {
	l.t.Helper()
	d := image.Differ{Load: l.store.Tree}
	check(l.t, d.Diff(context.Background(), &a.Root, &b.Root, func(c image.Change) error {
		l.t.Errorf("%s: %q was %+v, is %+v", what, c.Path, c.Old, c.New)
		return nil
	}))
}

// master makes a directory with one of everything.
func master(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		check(t, os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(content), 0o644))
	}
	write("plain", "hello")
	write("empty", "")
	write("new\nline", "1")
	write("\xff\xfe not utf-8", "2")
	write(strings.Repeat("n", 255), "3")
	write("a/first", "linked")
	write("dir/"+strings.Repeat("long/", 40)+"file", "deep")
	write("caps", "x")
	write("big", strings.Repeat("big file ", 100_000))
	check(t,
		os.Link(at("a/first"), at("a/second")), os.Link(at("a/first"), at("dir/third")),
		os.Symlink("../nowhere/\xff", at("dangling")), os.Symlink("/"+strings.Repeat("t/", 100), at("far")),
		unix.Mkfifo(at("fifo"), 0o620),
		unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 1<<18))),
		os.Link(at("null"), at("zz-null")),
		unix.Chown(at("caps"), 0, 70000), unix.Chown(at("big"), 3_000_000, 4_000_000_000),
		unix.Chmod(at("caps"), 0o6755),
		unix.Setxattr(at("caps"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		unix.Setxattr(at("plain"), "trusted.b", bytes.Repeat([]byte{0, 1, '\n'}, 400), 0), unix.Setxattr(at("plain"), "trusted.x", []byte("t"), 0),
		unix.Setxattr(at("dir"), "trusted.dir", []byte("d"), 0), unix.Lchown(at("dangling"), 7, 8), unix.Chmod(at("a"), 0o1000),
	)
	old := []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: -86400, Nsec: 123456789}}
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("dangling"), old, unix.AT_SYMLINK_NOFOLLOW))
	for name, offs := range map[string][]int64{"sparse": {1 << 20}, "sparse-begin": {0, 2 << 20}, "sparse-end": {4<<20 - 4096}, "hole": nil} {
		f, err := os.Create(at(name))
		check(t, err)
		for _, off := range offs {
			_, err := f.WriteAt(bytes.Repeat([]byte("d"), 4096), off)
			check(t, err)
		}
		check(t, f.Truncate(4<<20), f.Close())
	}
	return dir
}

func TestADirectoryIsTheMasterAgain(t *testing.T) {
	l := newLab(t)
	v := l.capture(capture.Options{Dir: master(t)})
	out := filepath.Join(t.TempDir(), "out")
	check(t, Dir(context.Background(), l.store, v.Root, out))
	l.same("directory", v, l.capture(capture.Options{Dir: out}))
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(out, "hole"), &st))
	if st.Blocks > 64 {
		t.Errorf("a file that is one hole has %d blocks", st.Blocks)
	}
	if err := Dir(context.Background(), l.store, v.Root, out); !errors.Is(err, os.ErrExist) {
		t.Errorf("into what is there: %v", err)
	}
}

func TestATarIsTheMasterAgain(t *testing.T) {
	l := newLab(t)
	v := l.capture(capture.Options{Dir: master(t)})
	file := filepath.Join(t.TempDir(), "out.tar")
	f, err := os.Create(file)
	check(t, err, Tar(context.Background(), l.store, v.Root, f), f.Close())
	l.same("captured from the archive", v, l.capture(capture.Options{Master: "tar:" + file}))

	out := t.TempDir()
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", file, "-C", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, text)
	}
	l.same("unpacked by GNU tar", v, l.capture(capture.Options{Dir: out}))

	var again bytes.Buffer
	check(t, Tar(context.Background(), l.store, v.Root, &again))
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, again.Bytes()) {
		t.Errorf("the same version gives other bytes: %v", err)
	}
	n := 0
	for r := tar.NewReader(&again); ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		if size, err := io.Copy(io.Discard, r); err != nil || size != h.Size {
			t.Errorf("%q has %d bytes, its header says %d: %v", h.Name, size, h.Size, err)
		}
	}
	if uint64(n) != v.Files+1 {
		t.Errorf("Go reads %d members, want %d and the root", n, v.Files)
	}
}

func TestABlobOfAnotherSizeIsAnError(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644))
	v := l.capture(capture.Options{Dir: dir})
	check(t, os.Truncate(l.store.BlobPath(image.Sum([]byte("content"))), 3))
	if err := Tar(context.Background(), l.store, v.Root, io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("tar: %v", err)
	}
	if err := Dir(context.Background(), l.store, v.Root, filepath.Join(t.TempDir(), "out")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("directory: %v", err)
	}
}

func TestAnEROFSImageIsTheMasterAgain(t *testing.T) {
	l := newLab(t)
	if _, err := exec.LookPath(mkfs); err != nil {
		t.Skipf("erofs-utils: %v", err)
	}
	dir := master(t)
	check(t, os.Remove(filepath.Join(dir, strings.Repeat("n", 255)))) // mkfs.erofs 1.5 cannot
	v := l.capture(capture.Options{Dir: dir})
	file := filepath.Join(t.TempDir(), "out.erofs")
	check(t, Export(context.Background(), l.store, v.Root, EROFSFormat, file))
	if left, err := filepath.Glob(file + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left beside it: %q %v", left, err)
	}
	at := t.TempDir()
	if text, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", file, at).CombinedOutput(); err != nil {
		t.Skipf("this kernel does not mount EROFS: %v %s", err, text)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	mounted := l.capture(capture.Options{Dir: at})
	d := image.Differ{Load: l.store.Tree}
	check(t, d.Diff(context.Background(), &v.Root, &mounted.Root, func(c image.Change) error {
		if c.Old != nil && c.New != nil {
			was := *c.Old
			was.Data = c.New.Data // EROFS does not tell holes
			if was.SameAttributes(c.New) {
				return nil
			}
		}
		t.Errorf("%q was %+v, is %+v", c.Path, c.Old, c.New)
		return nil
	}))
}

func TestAnExportIsWholeOrNotThere(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644))
	v := l.capture(capture.Options{Dir: dir})
	for _, format := range []Format{TarFormat, DirFormat} {
		dest := filepath.Join(t.TempDir(), "out")
		check(t, Export(context.Background(), l.store, v.Root, format, dest))
		if err := Export(context.Background(), l.store, v.Root, format, dest); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: over what is there: %v", format, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		late := filepath.Join(filepath.Dir(dest), "late")
		if err := Export(ctx, l.store, v.Root, format, late); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: called off: %v", format, err)
		}
		if left, err := filepath.Glob(late + "*"); err != nil || len(left) > 0 {
			t.Errorf("%s: left: %q %v", format, left, err)
		}
		check(t, os.WriteFile(late+".part", []byte("another's"), 0o600))
		if err := Export(context.Background(), l.store, v.Root, format, late); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: beside another: %v", format, err)
		}
		if b, err := os.ReadFile(late + ".part"); err != nil || string(b) != "another's" {
			t.Errorf("%s: another's file was touched: %v", format, err)
		}
	}
}
