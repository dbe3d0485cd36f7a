package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"dim/internal/image"
	"dim/internal/testkit"
)

func TestOnlyWhatIsExpectedIsStored(t *testing.T) {
	s := open(t, t.TempDir())
	b := begin(t, s)
	right := image.Sum([]byte("right"))
	want := Content{Digest: right, Size: 5}
	for _, err := range []error{
		b.PutNamed(right, []byte("wrong")),
		b.PutExpected(t.Context(), want, strings.NewReader("wrong")),
		b.PutExpected(t.Context(), Content{Digest: right, Size: 4}, strings.NewReader("right")),
	} {
		if !errors.Is(err, ErrMismatch) {
			t.Errorf("got %v", err)
		}
	}
	cut := errors.New("cut")
	if err := b.PutExpected(t.Context(), want, iotest.ErrReader(cut)); !errors.Is(err, cut) {
		t.Errorf("a reader that fails: %v", err)
	}
	holes := Content{Digest: image.Sum(make([]byte, 1<<20)), Size: 1 << 20, Data: []image.Extent{}}
	testkit.Must(t, b.PutExpected(t.Context(), want, strings.NewReader("right")),
		b.PutNamed(right, []byte("right")),
		b.PutExpected(t.Context(), holes, strings.NewReader(string(make([]byte, 1<<20)))), b.Commit(t.Context()))
	if !s.HasBlob(right) || s.HasBlob(image.Sum([]byte("wrong"))) {
		t.Error("the store has the wrong blob")
	}
	if blobs := testkit.Value(filepath.Glob(s.Dir() + "/blobs/*/*"))(t); len(blobs) != 2 {
		t.Errorf("the store has %q", blobs)
	}
	if left := testkit.Value(os.ReadDir(s.Dir() + "/staging"))(t); len(left) > 0 {
		t.Errorf("%d batches are left", len(left))
	}
}
