package capture

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
	"dim/internal/testkit"
)

// tarOf runs GNU tar on the lab's master and returns the archive's path.
func (l *lab) tarOf(args ...string) string {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "master.tar")
	args = append(args, "-C", l.o.Dir, "-cf", path, ".")
	if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("tar %q: %v\n%s", args, err, out)
	}
	return path
}

// withMaster returns a lab that captures another master as another image.
func (l *lab) withMaster(master string) *lab {
	o := l.o
	o.Image, o.Dir, o.Master, o.CacheDir = "other", "", master, l.t.TempDir()
	return &lab{l.t, l.store, o}
}

// differences lists what differs between two versions.
func (l *lab) differences(a, b image.Version) []string {
	l.t.Helper()
	var list []string
	testkit.Must(l.t, treediff.Diff(context.Background(), l.store.Tree, &a.Root, &b.Root,
		func(c treediff.Change) error {
			list = append(list, c.Path+": "+cmp.Diff(c.Old, c.New))
			return nil
		}))
	return list
}

func TestATarIsCapturedLikeItsDirectory(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	l.odd()
	testkit.Must(t, os.Remove(l.path("zz-null"))) // tar does not keep hard links of devices
	l.write("holes only", "")
	testkit.Must(t, os.Truncate(l.path("holes only"), 1<<20))
	l.write("ends in data", strings.Repeat("x", 9000))
	testkit.Must(t, os.Truncate(l.path("ends in data"), 3<<20))
	l.write(strings.Repeat("long/", 60)+strings.Repeat("n", 200), "long")
	l.exclude("/tmp/*", "/dir/with/*")
	want := l.capture().Version
	for _, args := range [][]string{
		{"--format=pax", "--xattrs", "--acls", "--sparse"},
		{"--format=pax", "--xattrs", "--acls", "--sparse", "--sparse-version=0.0"},
		{"--format=pax", "--xattrs", "--acls", "--sparse", "--sparse-version=0.1"},
		{"--format=pax", "--xattrs", "--sparse", "--hole-detection=raw", "--sort=name"},
	} {
		r := l.withMaster("tar:" + l.tarOf(args...)).capture()
		if r.Version.Digest != want.Digest {
			t.Errorf("tar %q differs (-directory +tar): %s", args, l.differences(want, r.Version))
		}
		if r.Version.Files != want.Files || r.Version.Bytes != want.Bytes {
			t.Errorf("tar %q: %d files, %d bytes; the directory has %d, %d", args, r.Version.Files, r.Version.Bytes,
				want.Files, want.Bytes)
		}
	}
	l.sound()
}

func TestATarOfGNUsOldFormatLacksFractionsAndXattrsOnly(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	l.write("file", "1")
	l.write("dir/"+strings.Repeat("n", 150), "2")
	l.write("holes", "")
	testkit.Must(t, os.Truncate(l.path("holes"), 8<<20), os.Symlink(strings.Repeat("t", 150), l.path("link")),
		os.Link(l.path("file"), l.path("zz")))
	testkit.Must(t, filepath.Walk(l.o.Dir, func(p string, _ os.FileInfo, err error) error {
		ts := []unix.Timespec{{Sec: 5}, {Sec: 77}}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	}))
	want := l.capture().Version
	r := l.withMaster("tar:" + l.tarOf("--format=gnu", "--sparse")).capture()
	if r.Version.Digest != want.Digest {
		t.Errorf("differs (-directory +tar): %s", l.differences(want, r.Version))
	}
}

func TestACompressedTarIsKnownByItsFirstBytes(t *testing.T) {
	l := newLab(t)
	l.write("file", strings.Repeat("content ", 100_000))
	plain, err := os.ReadFile(l.tarOf("--format=pax"))
	testkit.Must(t, err)
	want := l.capture().Version
	for name, compress := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		var b bytes.Buffer
		z, err := compress(&b)
		testkit.Must(t, err)
		_, err = z.Write(plain)
		testkit.Must(t, err, z.Close())
		path := filepath.Join(t.TempDir(), "master")
		testkit.Must(t, os.WriteFile(path, b.Bytes(), 0o600))
		if r := l.withMaster("tar:" + path).capture(); r.Version.Digest != want.Digest {
			t.Errorf("%s differs: %s", name, l.differences(want, r.Version))
		}
		testkit.Must(t, os.Truncate(path, int64(b.Len()-4)))
		o := l.withMaster("tar:" + path).o
		if _, err := Run(context.Background(), l.store, o); err == nil {
			t.Errorf("%s: the end is missing, and nobody minds", name)
		}
	}
}

func TestAnUnchangedTarIsNotRead(t *testing.T) {
	l := newLab(t)
	l.write("file", "1")
	l.write("left/out", "2")
	path := l.tarOf("--format=pax")
	old := time.Now().Add(-time.Hour)
	testkit.Must(t, os.Chtimes(path, old, old))
	other := l.withMaster("tar:" + path)
	now := time.Now().Add(10 * time.Second) // so that the file is old enough to be trusted
	other.o.Now = func() time.Time { return now }
	first := other.capture()
	if !first.Changed || first.FilesRead != 2 {
		t.Errorf("the first capture: %+v", first)
	}
	again := other.capture()
	if again.Changed || again.FilesRead != 0 || again.Version.Number != first.Version.Number {
		t.Errorf("the second capture: %+v", again)
	}
	other.exclude("/left/*")
	if r := other.capture(); !r.Changed || r.FilesRead != 1 {
		t.Errorf("a capture by another rule: %+v", r)
	}
	testkit.Must(t, os.Chtimes(path, old, old.Add(time.Second)))
	if r := other.capture(); r.Changed || r.FilesRead != 1 {
		t.Errorf("a capture of a file that may have changed: %+v", r)
	}
}

// archiveOf writes members.
func archiveOf(t *testing.T, members ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		content := h.Gname // the tests pass it there
		h.Gname, h.Size = "", int64(len(content))
		testkit.Must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, content)
		testkit.Must(t, err)
	}
	testkit.Must(t, w.Close())
	path := filepath.Join(t.TempDir(), "master.tar")
	testkit.Must(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Gname: content}
}

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

func TestAHostileTarIsRefused(t *testing.T) {
	pax := func(key, value string) tar.Header {
		h := file("f", "")
		h.PAXRecords = map[string]string{key: value}
		return h
	}
	for name, tc := range map[string]struct {
		members []tar.Header
		want    string
	}{
		"up":                  {[]tar.Header{file("a/../../f", "")}, "is not taken"},
		"link up":             {[]tar.Header{link("f", "../f")}, "is not taken"},
		"through a symlink":   {[]tar.Header{symlink("a", "/etc"), file("a/passwd", "")}, "/a is a symlink"},
		"through a file":      {[]tar.Header{file("a", ""), file("a/b", "")}, "/a is a file"},
		"link through":        {[]tar.Header{symlink("a", "/etc"), link("f", "a/passwd")}, "/a is a symlink"},
		"link to nothing":     {[]tar.Header{link("f", "a")}, "is not before it"},
		"link to itself":      {[]tar.Header{link("f", "f")}, "is not before it"},
		"link to a directory": {[]tar.Header{file("d/f", ""), link("f", "d")}, "is a directory"},
		"root is a file":      {[]tar.Header{file("./.", "")}, "the root is a file"},
		"a long name":         {[]tar.Header{file(strings.Repeat("n", 256), "")}, "is not a path"},
		"a long path":         {[]tar.Header{file(strings.Repeat("n/", 8192)+"f", "")}, "too long"},
		"an xattr of no name": {[]tar.Header{pax("SCHILY.xattr.user."+strings.Repeat("n", 256), "v")}, "out of range"},
		"a user in an ACL": {[]tar.Header{pax("SCHILY.acl.access",
			"user::rw-,user:joe:r--,group::r--,mask::r--,other::---")}, "joe"},
		"an owner": {[]tar.Header{{Typeflag: tar.TypeReg, Name: "f", Uid: 1 << 33}}, "out of range"},
		"a device": {[]tar.Header{{Typeflag: tar.TypeChar, Name: "f", Devmajor: 1 << 33,
			Format: tar.FormatGNU}}, "out of range"},
		"an unknown kind": {[]tar.Header{{Typeflag: 'Z', Name: "f"}}, "not understood"},
		"a global header": {[]tar.Header{{Typeflag: tar.TypeXGlobalHeader,
			PAXRecords: map[string]string{"path": "f"}}}, "not understood"},
		"a symlink to nothing": {[]tar.Header{symlink("l", "")}, "empty"},
	} {
		l := newLab(t).withMaster("tar:" + archiveOf(t, tc.members...))
		_, err := Run(context.Background(), l.store, l.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if _, err := l.store.Resolve(image.Ref{Image: "other"}); err == nil {
			t.Errorf("%s: a version was made", name)
		}
	}
}

func TestTheLastOfTwoMembersCounts(t *testing.T) {
	l := newLab(t)
	l = l.withMaster("tar:" + archiveOf(t,
		file("/abs//./f", "one"), file("turned/in", ""), file("old", "first"), link("keeps", "old"),
		file("abs/f", "two"), file("turned", "file"), file("old", "second"),
		tar.Header{Typeflag: tar.TypeDir, Name: "abs", Mode: 0o700},
	))
	r := l.capture()
	got := map[string]string{}
	for path, e := range l.entries(r.Version) {
		text := e.Type.String()
		if e.Type == image.Regular {
			b, err := l.store.OpenBlob(e.Digest)
			testkit.Must(t, err)
			content, err := io.ReadAll(b)
			testkit.Must(t, err, b.Close())
			text = string(content)
		}
		got[path] = text
		if e.Link != "" {
			t.Errorf("%s is linked to %s", path, e.Link)
		}
	}
	want := map[string]string{"": "directory", "abs": "directory", "abs/f": "two", "turned": "file", "old": "second",
		"keeps": "first"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if mode := l.entries(r.Version)["abs"].Mode; mode != 0o700 {
		t.Errorf("abs has mode %o", mode)
	}
}

func TestContentUnderAnExcludedNameIsFound(t *testing.T) {
	l := newLab(t)
	l = l.withMaster("tar:" + archiveOf(t, file("left/out", "content"), file("left/alone", "secret"),
		link("used", "left/out")))
	l.exclude("/left")
	r := l.capture()
	e := l.entries(r.Version)["used"]
	if e == nil || e.Digest != image.Sum([]byte("content")) || e.Nlink > 1 {
		t.Errorf("used: %+v", e)
	}
	if _, err := l.store.OpenBlob(image.Sum([]byte("secret"))); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what is excluded is in the store: %v", err)
	}
}

func TestATarThatIsCutOffIsRefused(t *testing.T) {
	path := archiveOf(t, file("a", "content"), file("b", ""), link("c", "b"))
	whole, err := os.ReadFile(path)
	testkit.Must(t, err)
	for size := 0; size < len(whole)-512; size += 256 { // the last block is the second of the end mark
		l := newLab(t).withMaster("tar:" + path)
		testkit.Must(t, os.WriteFile(path, whole[:size], 0o600))
		if _, err := Run(context.Background(), l.store, l.o); err == nil {
			t.Errorf("%d of %d bytes are an archive", size, len(whole))
		}
	}
}
