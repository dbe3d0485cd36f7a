package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/image"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// A stream that wants to write outside the data directory, or to be what it is not, is refused.
func TestAHostileStreamStaysInside(t *testing.T) {
	testkit.NeedRoot(t, "it makes devices")
	outside := t.TempDir()
	for what, members := range map[string][]*tar.Header{
		"a path with ..":   {{Name: "data/replicas/../../x", Typeflag: tar.TypeReg}},
		"an absolute path": {{Name: "/data/x", Typeflag: tar.TypeReg}},
		"another top":      {{Name: "etc", Typeflag: tar.TypeDir}},
		"a file as data":   {{Name: "data", Typeflag: tar.TypeReg}},
		"a link at the top": {
			{Name: "data", Typeflag: tar.TypeDir},
			{Name: "data/store", Typeflag: tar.TypeSymlink, Linkname: outside},
		},
		"a file through a link": {
			{Name: "data", Typeflag: tar.TypeDir}, {Name: "data/replicas", Typeflag: tar.TypeDir},
			{Name: "data/replicas/n", Typeflag: tar.TypeSymlink, Linkname: outside},
			{Name: "data/replicas/n/x", Typeflag: tar.TypeReg},
		},
		"a hard link out": {
			{Name: "data", Typeflag: tar.TypeDir},
			{Name: "data/x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		},
		"a hard link through a link": {
			{Name: "data", Typeflag: tar.TypeDir}, {Name: "data/replicas", Typeflag: tar.TypeDir},
			{Name: "data/replicas/n", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
			{Name: "data/replicas/x", Typeflag: tar.TypeLink, Linkname: "data/replicas/n/passwd"},
		},
		"a device outside a layer": {
			{Name: "data", Typeflag: tar.TypeDir}, {Name: "data/disk", Typeflag: tar.TypeBlock, Devmajor: 8},
		},
		"a file twice": {
			{Name: "data", Typeflag: tar.TypeDir}, {Name: "data/x", Typeflag: tar.TypeReg},
			{Name: "data/x", Typeflag: tar.TypeReg},
		},
		"no end": {{Name: "data", Typeflag: tar.TypeDir}, {Name: "data/format", Typeflag: tar.TypeReg}},
	} {
		t.Run(what, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range members {
				h.Mode = 0o644
				testkit.Must(t, w.WriteHeader(h))
			}
			testkit.Must(t, w.Close())
			to := filepath.Join(t.TempDir(), "data")
			_, err := Restoration{Stream: &b}.Restore(t.Context(), to)
			if err == nil {
				t.Error("it is taken")
			}
			if err := pki.Check(to); !errors.Is(err, pki.ErrNotInitialised) {
				t.Errorf("the directory counts as initialised: %v", err)
			}
			if list, _ := os.ReadDir(outside); len(list) > 0 {
				t.Errorf("%s was written", list[0].Name())
			}
		})
	}
}

// hole is content that is one hole.
type hole struct{}

func (hole) extents() ([]image.Extent, error) { return nil, nil }

func (hole) each(func([]byte, uint64) error) error { return nil }

func TestARestoreCanBeEndedInsideAFile(t *testing.T) {
	testkit.NeedRoot(t, "it restores owners")
	var b bytes.Buffer
	s := newTarSink(&b, func(string, error) {})
	for _, e := range []*entry{
		{path: "data", kind: dirKind, mode: 0o700},
		{path: "data/x", kind: fileKind, mode: 0o600, size: 1 << 43}, // takes minutes to read
	} {
		testkit.Value(s.add(e, hole{}))(t)
	}
	testkit.Must(t, s.end())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Restoration{Stream: &b}.Restore(ctx, filepath.Join(t.TempDir(), "data"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(firstLine + "./data type=dir mode=0700 uid=0 gid=0 time=1.000000000\n")
	f.Add(firstLine + "./data/replicas/n/\\377 type=char mode=0600 uid=0 gid=0 time=-1.000000001 device=linux,0,0\n")
	f.Add(firstLine + "./data/x type=file hardlink=./data/y\n")
	f.Add(firstLine + "./data/x type=file mode=4755 uid=1 gid=2 time=3.000000004 size=0 sha256digest=" +
		image.Sum(nil).String() + " xattr.user.a\\040b=AAE= origin=000102030405060708090a0b0c0d0e0f\n")
	f.Fuzz(func(t *testing.T, text string) {
		var again bytes.Buffer
		again.WriteString(firstLine)
		_, err := readManifest(strings.NewReader(text), func(e *entry) error {
			if err := e.check(); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			if checkPath(e.path) != nil {
				t.Errorf("the path %q is taken", e.path)
			}
			again.Write(e.line())
			return nil
		})
		if err == nil && again.String() != text {
			t.Errorf("%q is written as %q", text, again.String())
		}
	})
}

func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	sink := newTarSink(&b, func(string, error) {})
	for _, e := range []*entry{
		{path: "data", kind: dirKind, mode: 0o700},
		{path: "data/format", kind: fileKind, mode: 0o600, size: 2},
	} {
		var c content
		if e.kind == fileKind {
			c = bytesContent("1\n")
		}
		if _, err := sink.add(e, c); err != nil {
			f.Fatal(err)
		}
	}
	if err := sink.end(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		for r := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			if h.Size > 1<<20 {
				t.Skip("zeros without end take long, and are no mistake")
			}
		}
		_, _ = Restoration{Stream: io.LimitReader(bytes.NewReader(b), 1<<20)}.Verify(t.Context())
	})
}
