package store

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
)

// holes makes a file of size bytes that ends with text, and returns it open.
func holes(t *testing.T, size int64, text string) *os.File {
	t.Helper()
	f := testkit.Value(os.Create(filepath.Join(t.TempDir(), "holes")))(t)
	t.Cleanup(func() { f.Close() })
	testkit.Must(t, f.Truncate(size))
	testkit.Value(f.WriteAt([]byte(text), size-int64(len(text))))(t)
	return f
}

func TestAHoleAtTheBeginningIsHashedOnce(t *testing.T) {
	s := open(t, t.TempDir())
	const size = 2*zeroStep + 12345
	put := func(f *os.File) (c Content, calls int) {
		t.Helper()
		b := testkit.Value(s.Begin())(t)
		defer b.Abort()
		var sum uint64
		b.OnHashed(func(n uint64) { calls, sum = calls+1, sum+n })
		c = testkit.Value(b.PutFile(t.Context(), int(f.Fd()), "holes"))(t)
		if sum != c.Size {
			t.Errorf("%d of %d bytes were counted", sum, c.Size)
		}
		return c, calls
	}
	want := sha256.New()
	testkit.Value(io.CopyN(want, holes(t, size, ""), size))(t)
	first, calls := put(holes(t, size, ""))
	if first.Digest != image.Digest(want.Sum(nil)) || first.Size != size || len(first.Data) != 0 {
		t.Errorf("content %+v", first)
	}
	if calls < size/chunk {
		t.Errorf("the first time it was counted %d times", calls)
	}
	again, calls := put(holes(t, size, ""))
	if again.Digest != first.Digest {
		t.Errorf("the second time its digest is %s, not %s", again.Digest, first.Digest)
	}
	if calls > 10 {
		t.Errorf("the second time it was counted %d times", calls)
	}
	other := holes(t, size+zeroStep, "text")
	want.Reset()
	testkit.Value(other.Seek(0, io.SeekStart))(t)
	testkit.Value(io.Copy(want, other))(t)
	if c, _ := put(other); c.Digest != image.Digest(want.Sum(nil)) || len(c.Data) != 1 {
		t.Errorf("content %+v", c)
	}
}
