package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/capture/draft"
	"dim/internal/image"
	"dim/internal/store"
)

// sink is a batch that keeps nothing but trees, which it checks as a store would.
type sink struct{ trees map[image.Digest]bool }

func (s *sink) PutBytes(b []byte) (image.Digest, error) { return image.Sum(b), nil }

func (s *sink) PutTree(t image.Tree) (image.Digest, error) {
	b, err := t.Encode()
	if err != nil {
		return image.Digest{}, err
	}
	s.trees[image.Sum(b)] = true
	return image.Sum(b), nil
}

var errEnough = errors.New("enough")

func (s *sink) PutBlob(_ context.Context, r io.Reader) (store.Content, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, 1<<20))
	if n == 1<<20 {
		err = errEnough
	}
	return store.Content{Digest: image.Digest(h.Sum(nil)), Size: uint64(n)}, err
}

func (s *sink) PutSparse(ctx context.Context, r io.Reader) (store.Content, error) {
	return s.PutBlob(ctx, r)
}

// sparseSeeds adds what GNU tar makes of a file with holes.
func sparseSeeds(f *testing.F) {
	dir := f.TempDir()
	name := filepath.Join(dir, "f")
	if err := errors.Join(os.WriteFile(name, []byte("data"), 0o600), os.Truncate(name, 1<<20)); err != nil {
		f.Fatal(err)
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=pax"}, {"--format=pax", "--sparse-version=0.0"},
		{"--format=pax", "--sparse-version=0.1"}} {
		b, err := exec.Command("tar", append(args, "-S", "-b", "2", "-C", dir, "-cf", "-", "f")...).Output()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
	}
}

func seeds(f *testing.F) {
	add := func(headers ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), true)
		f.Add(b.Bytes(), false)
	}
	records := map[string]string{
		"SCHILY.xattr.user.a%3D": "v", "SCHILY.acl.access": "user::rw-,user:7:r--,group::r--,mask::r--,other::---",
		"RHT.security.selinux": "a:b:c",
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "./a/f", Size: 700, PAXRecords: records},
		tar.Header{Typeflag: tar.TypeLink, Name: "./a/g", Linkname: "./a/f"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"},
		tar.Header{Typeflag: tar.TypeReg, Name: "l/.wh.f"}, tar.Header{Typeflag: tar.TypeReg, Name: "a/.wh..wh..opq"})
	add(tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeFifo, Name: strings.Repeat("n", 200)},
		tar.Header{Typeflag: tar.TypeReg, Name: "../up", Size: 1})
}

func FuzzUnpack(f *testing.F) {
	seeds(f)
	sparseSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte, layered bool) {
		s := &sink{trees: map[image.Digest]bool{}}
		tree := draft.New(draft.Options{Follow: layered})
		u := Unpacker{Batch: s, Tree: tree, Layer: layered}
		ctx := context.Background()
		if err := u.Unpack(ctx, bytes.NewReader(b)); err != nil {
			return
		}
		tree.NextLayer()
		if err := u.Unpack(ctx, bytes.NewReader(b)); err != nil { // what was taken once may be refused on top of itself
			return
		}
		sum, err := tree.Store(ctx, s)
		if err != nil {
			t.Fatalf("what was taken cannot be stored: %v", err)
		}
		if !s.trees[sum.Root.Digest] {
			t.Error("the root has no tree")
		}
	})
}

func FuzzACL(f *testing.F) {
	f.Add("user::rw-,user:7:r--,group::r--,group:wheel:r-x:10,mask::r--,other::---", true)
	f.Add("user::rwx\ngroup::r-x\nother::r-x\n", false)
	f.Fuzz(func(t *testing.T, text string, access bool) {
		b, err := parseACL(text, access)
		if err == nil && b != nil && (len(b) < 12 || len(b)%8 != 4) {
			t.Errorf("%q gives %x", text, b)
		}
	})
}
