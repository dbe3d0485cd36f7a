package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
)

// TestAKilledBatchIsResumed kills a batch with three blobs, of which one was not written to its end and one is damaged.
func TestAKilledBatchIsResumed(t *testing.T) {
	dir := t.TempDir() + "/[a]*" // which is no pattern
	testkit.Must(t, os.Mkdir(dir, 0o700))
	s := testkit.Value(Open(dir, Options{}))(t)
	killed := testkit.Value(s.BeginResumable())(t)
	var content [][]byte
	for _, c := range []string{"a", "b", "c"} {
		content = append(content, bytes.Repeat([]byte(c), 5000))
	}
	for _, c := range content {
		testkit.Must(t, killed.PutNamed(image.Sum(c), c))
	}
	short, damaged := image.Sum(content[1]), image.Sum(content[2])
	testkit.Must(t, os.Truncate(killed.stagedPath(object{blobsDir, short}), 4000))
	path := killed.stagedPath(object{blobsDir, damaged})
	testkit.Must(t, os.Chmod(path, 0o600), os.WriteFile(path, bytes.Repeat([]byte("x"), 5000), 0o600))
	killed.die()
	testkit.Must(t, s.Close())

	s = testkit.Value(Open(dir, Options{}))(t)
	blobs, size, err := s.Resume(t.Context())
	testkit.Must(t, err)
	if blobs != 1 || size != 5000 {
		t.Errorf("%d blobs with %d bytes are resumed, want 1 with 5000", blobs, size)
	}
	for i, want := range []bool{true, false, false} {
		if s.HasBlob(image.Sum(content[i])) != want {
			t.Errorf("blob %d in the store: %v", i, !want)
		}
	}
	if list := testkit.Value(os.ReadDir(s.path(stagingDir)))(t); len(list) > 0 {
		t.Errorf("%d staging directories are left", len(list))
	}
	if list := problems(t, s); len(list) > 0 {
		t.Errorf("problems: %v", list)
	}
}

func TestAStagedBlobCanBeRead(t *testing.T) {
	s := testkit.Value(Open(t.TempDir(), Options{}))(t)
	b := testkit.Value(s.Begin())(t)
	d := testkit.Value(b.PutBytes([]byte("content")))(t)
	f := testkit.Value(b.OpenBlob(d))(t)
	defer f.Close()
	if got := testkit.Value(io.ReadAll(f))(t); string(got) != "content" {
		t.Errorf("the staged blob has %q", got)
	}
	testkit.Must(t, b.Commit(t.Context()))
	if _, err := b.OpenBlob(d); !errors.Is(err, ErrNotFound) {
		t.Errorf("open a blob of a batch that has ended: %v", err)
	}
}

// TestABatchThatNobodyResumesIsSwept has a batch in use beside a killed one.
func TestABatchThatNobodyResumesIsSwept(t *testing.T) {
	s := testkit.Value(Open(t.TempDir(), Options{}))(t)
	killed := testkit.Value(s.BeginResumable())(t)
	testkit.Value(killed.PutBytes([]byte("a")))(t)
	killed.die()
	used := testkit.Value(s.BeginResumable())(t)
	testkit.Value(used.PutBytes([]byte("b")))(t)
	if blobs, _, err := s.Resume(t.Context()); blobs != 1 || err != nil {
		t.Errorf("%d blobs are resumed (%v), want that of the killed batch alone", blobs, err)
	}
	killed = testkit.Value(s.BeginResumable())(t)
	testkit.Value(killed.PutBytes([]byte("c")))(t)
	killed.die()
	testkit.Must(t, used.Commit(t.Context()))
	testkit.Value(s.Sweep(t.Context(), nil))(t)
	if s.HasBlob(image.Sum([]byte("c"))) {
		t.Error("a batch is swept into the store")
	}
	if list := testkit.Value(os.ReadDir(s.path(stagingDir)))(t); len(list) > 0 {
		t.Errorf("%d staging directories are left", len(list))
	}
}
