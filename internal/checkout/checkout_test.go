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

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/capture/unpack"
	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
	"dim/internal/testkit"
)

// lab is a store with captures of directories.
type lab struct {
	t     *testing.T
	store *store.Store

	reserve func(context.Context) (int, error)
}

const readerName = "dim-reader"

func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		tasks := map[string]confine.Task{unpack.TaskName: unpack.Task}
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, tasks))
	}
	os.Exit(m.Run())
}

func newLab(t *testing.T) *lab {
	t.Helper()
	testkit.NeedRoot(t, "owners, devices and trusted xattrs")
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	testkit.Must(t, err)
	t.Cleanup(func() { s.Close() })
	return &lab{t, s, testkit.Counter()}
}

func (l *lab) capture(o capture.Options) image.Version {
	l.t.Helper()
	o.Image, o.Reserve, o.Reader = "test", l.reserve, confine.Program{Argv: []string{readerName}}
	r, err := capture.Run(l.t.Context(), l.store, o)
	testkit.Must(l.t, err)
	if len(r.Problems) > 0 {
		l.t.Errorf("problems: %v", r.Problems)
	}
	return r.Version
}

// same reports every difference between two versions.
func (l *lab) same(what string, a, b image.Version) {
	l.t.Helper()
	testkit.Must(l.t, treediff.Diff(l.t.Context(), l.store.Tree, &a.Root, &b.Root, func(c treediff.Change) error {
		l.t.Errorf("%s: %q was %+v, is %+v", what, c.Path, c.Old, c.New)
		return nil
	}))
}

// master makes a directory with files of all kinds.
func master(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		testkit.Must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(content), 0o644))
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
	testkit.Must(t,
		os.Link(at("a/first"), at("a/second")), os.Link(at("a/first"), at("dir/third")),
		os.Symlink("../nowhere/\xff", at("dangling")), os.Symlink("/"+strings.Repeat("t/", 100), at("far")),
		unix.Mkfifo(at("fifo"), 0o620),
		unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 1<<18))),
		os.Link(at("null"), at("zz-null")),
		unix.Chown(at("caps"), 0, 70000), unix.Chown(at("big"), 3_000_000, 4_000_000_000),
		unix.Chmod(at("caps"), 0o6755),
		unix.Setxattr(at("caps"), "security.capability", append([]byte{1, 0, 0, 2, 0, 4}, make([]byte, 14)...), 0),
		unix.Setxattr(at("plain"), "trusted.b", bytes.Repeat([]byte{0, 1, '\n'}, 400), 0),
		unix.Setxattr(at("plain"), "trusted.x", []byte("t"), 0),
		unix.Setxattr(at("dir"), "trusted.dir", []byte("d"), 0),
		unix.Lchown(at("dangling"), 7, 8), unix.Chmod(at("a"), 0o1000),
	)
	old := []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: -86400, Nsec: 123456789}}
	testkit.Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("dangling"), old, unix.AT_SYMLINK_NOFOLLOW))
	for name, offs := range map[string][]int64{
		"sparse": {1 << 20}, "sparse-begin": {0, 2 << 20}, "sparse-end": {4<<20 - 4096}, "hole": nil,
	} {
		f, err := os.Create(at(name))
		testkit.Must(t, err)
		for _, off := range offs {
			_, err := f.WriteAt(bytes.Repeat([]byte("d"), 4096), off)
			testkit.Must(t, err)
		}
		testkit.Must(t, f.Truncate(4<<20), f.Close())
	}
	return dir
}

func TestADirectoryEqualsTheMaster(t *testing.T) {
	l := newLab(t)
	v := l.capture(capture.Options{Dir: master(t)})
	out := filepath.Join(t.TempDir(), "out")
	testkit.Must(t, writeDir(t.Context(), l.store, v.Root, out))
	l.same("directory", v, l.capture(capture.Options{Dir: out}))
	var st unix.Stat_t
	testkit.Must(t, unix.Stat(filepath.Join(out, "hole"), &st))
	if st.Blocks > 64 {
		t.Errorf("a file that is one hole has %d blocks", st.Blocks)
	}
	if err := writeDir(t.Context(), l.store, v.Root, out); !errors.Is(err, os.ErrExist) {
		t.Errorf("into an existing directory: %v", err)
	}
}

func TestATarEqualsTheMaster(t *testing.T) {
	l := newLab(t)
	v := l.capture(capture.Options{Dir: master(t)})
	file := filepath.Join(t.TempDir(), "out.tar")
	f, err := os.Create(file)
	testkit.Must(t, err, Tar(t.Context(), l.store, v.Root, f), f.Close())
	l.same("captured from the archive", v, l.capture(capture.Options{Master: "tar:" + file}))

	out := t.TempDir()
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", file, "-C", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, text)
	}
	l.same("unpacked by GNU tar", v, l.capture(capture.Options{Dir: out}))

	var again bytes.Buffer
	testkit.Must(t, Tar(t.Context(), l.store, v.Root, &again))
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, again.Bytes()) {
		t.Errorf("the same version gives other bytes: %v", err)
	}
	n := 0
	for r := tar.NewReader(&again); ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		testkit.Must(t, err)
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
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644))
	v := l.capture(capture.Options{Dir: dir})
	blob, err := l.store.OpenBlob(image.Sum([]byte("content")))
	testkit.Must(t, err)
	testkit.Must(t, os.Truncate(blob.Name(), 3), blob.Close())
	if err := Tar(t.Context(), l.store, v.Root, io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("tar: %v", err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := writeDir(t.Context(), l.store, v.Root, out); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("directory: %v", err)
	}
}

func TestAnEROFSImageEqualsTheMaster(t *testing.T) {
	l := newLab(t)
	if _, err := exec.LookPath(mkfs); err != nil {
		t.Skipf("erofs-utils: %v", err)
	}
	dir := master(t)
	testkit.Must(t, os.Remove(filepath.Join(dir, strings.Repeat("n", 255)))) // mkfs.erofs 1.5 refuses it
	v := l.capture(capture.Options{Dir: dir})
	file := filepath.Join(t.TempDir(), "out.erofs")
	testkit.Must(t, Export(t.Context(), l.store, v.Root, EROFSFormat, file))
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
	testkit.Must(t, treediff.Diff(t.Context(), l.store.Tree, &v.Root, &mounted.Root, func(c treediff.Change) error {
		if c.Old != nil && c.New != nil {
			was := *c.Old
			was.Data = c.New.Data // EROFS has no holes
			if cmp.Equal(&was, c.New, cmpopts.EquateEmpty()) {
				return nil
			}
		}
		t.Errorf("%q was %+v, is %+v", c.Path, c.Old, c.New)
		return nil
	}))
}

func TestAnExportIsCompleteOrAbsent(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644))
	v := l.capture(capture.Options{Dir: dir})
	for _, format := range []Format{TarFormat, DirFormat} {
		dest := filepath.Join(t.TempDir(), "out")
		testkit.Must(t, Export(t.Context(), l.store, v.Root, format, dest))
		if err := Export(t.Context(), l.store, v.Root, format, dest); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: over an existing file: %v", format, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		late := filepath.Join(filepath.Dir(dest), "late")
		if err := Export(ctx, l.store, v.Root, format, late); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: canceled: %v", format, err)
		}
		if left, err := filepath.Glob(late + "*"); err != nil || len(left) > 0 {
			t.Errorf("%s: left: %q %v", format, left, err)
		}
		testkit.Must(t, os.WriteFile(late+".part", []byte("other"), 0o600))
		if err := Export(t.Context(), l.store, v.Root, format, late); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: beside another export's part: %v", format, err)
		}
		if b, err := os.ReadFile(late + ".part"); err != nil || string(b) != "other" {
			t.Errorf("%s: the other export's part was changed: %v", format, err)
		}
	}
}
