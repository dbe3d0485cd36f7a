package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/image"
	"dim/internal/testkit"
)

var update = flag.Bool("update", false, "write the table of zeros again, which takes minutes")

// holes makes a file of size bytes that begins with one text and ends with another, and returns it open.
func holes(t *testing.T, head string, size int64, tail string) *os.File {
	t.Helper()
	f := testkit.Value(os.Create(filepath.Join(t.TempDir(), "holes")))(t)
	t.Cleanup(func() { f.Close() })
	testkit.Must(t, f.Truncate(size))
	testkit.Value(f.WriteAt([]byte(head), 0))(t)
	testkit.Value(f.WriteAt([]byte(tail), size-int64(len(tail))))(t)
	return f
}

// The table is that of SHA-256: each line follows from the one before. All are compared when the table is written, a
// few otherwise.
func TestTheTableOfZeros(t *testing.T) {
	empty, zeros := state(newHash()), make([]byte, chunk)
	lines := strings.Fields(zeroTable)
	step := func(h hash.Hash) (line string) {
		for range zeroStep / chunk {
			h.Write(zeros)
		}
		return hex.EncodeToString(state(h)[4:][:sha256.Size])
	}
	if *update {
		h := newHash()
		for i := range lines {
			lines[i] = step(h)
		}
		testkit.Must(t, os.WriteFile("zeros.txt", []byte(strings.Join(lines, "\n")+"\n"), 0o644))
		return
	}
	if len(lines) != 1024 || len(zeroTable) != len(lines)*tableLine {
		t.Fatalf("%d lines, %d bytes", len(lines), len(zeroTable))
	}
	for _, i := range []int{0, 1 + rand.IntN(len(lines)-1)} {
		h := newHash()
		if i > 0 {
			restore(h, tableState(empty, int64(i)))
		}
		if got := step(h); got != lines[i] {
			t.Errorf("line %d is %s, want %s", i+1, lines[i], got)
		}
	}
}

// putHoles stores f, and returns how often the number of hashed bytes was told.
func putHoles(t *testing.T, s *Store, f *os.File) (c Content, calls int) {
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

// A hole that was hashed before with the same bytes in front of it is not hashed again, also if what is behind it
// changed. One at the beginning of a file is never hashed.
func TestAHoleIsHashedOnce(t *testing.T) {
	s := open(t, t.TempDir())
	const size = zeroStep + 123456
	for _, tt := range []struct {
		name, head string
		size       int64
		tail       string
		once       bool // the hole need not be hashed the first time
		extents    int
	}{
		{"a hole at the beginning", "", size, "", true, 0},
		{"and a tail", "", size + 5000, "tail", true, 1},
		{"a head", "root", size, "", false, 1},
		{"a head and a tail", "root", size + 5000, "tail", true, 2},
		{"another head", "toor", size, "tail", false, 2},
	} {
		f := holes(t, tt.head, tt.size, tt.tail)
		c, calls := putHoles(t, s, f)
		if c.Size != uint64(tt.size) || len(c.Data) != tt.extents {
			t.Errorf("%s: content %+v", tt.name, c)
		}
		if few := calls < 10; few != tt.once {
			t.Errorf("%s: it was counted %d times", tt.name, calls)
		}
		if !tt.once {
			continue // all was hashed
		}
		want := sha256.New()
		testkit.Value(f.Seek(0, io.SeekStart))(t)
		testkit.Value(io.Copy(want, f))(t)
		if c.Digest != image.Digest(want.Sum(nil)) {
			t.Errorf("%s: the digest is %s", tt.name, c.Digest)
		}
	}
}

// The digest is that of 20 GiB of zeros and an x, as sha256sum computes it in 10 s.
func TestALargeHoleCostsNothing(t *testing.T) {
	const size = 20<<30 + 1
	want := "fbd4d6620bcc6fb60ff4ddd71ee9b44a0398c027633655f872f9c6f1f5b65139"
	s := open(t, t.TempDir())
	c, calls := putHoles(t, s, holes(t, "", size, "x"))
	if c.Digest.String() != want || calls > 300 {
		t.Errorf("%s after %d steps", c.Digest, calls)
	}
}

// zeroReader returns zeros, and then a text.
type zeroReader struct {
	zeros int64
	text  string
}

func (r *zeroReader) Read(p []byte) (int, error) {
	if r.zeros == 0 {
		n := copy(p, r.text)
		if r.text = r.text[n:]; n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	n := min(int64(len(p)), r.zeros)
	clear(p[:n])
	r.zeros -= n
	return int(n), nil
}

// What comes as a stream is stored as the file with the same holes.
func TestAStreamWithHolesIsStoredAsTheFile(t *testing.T) {
	s := open(t, t.TempDir())
	for _, size := range []int64{1, block, chunk - 1, chunk, chunk + 1, 3*chunk + block + 7, zeroStep + chunk + 5} {
		for _, text := range []string{"", "x"} {
			b := testkit.Value(s.Begin())(t)
			stream := testkit.Value(b.PutSparse(t.Context(), &zeroReader{size, text}))(t)
			file, _ := putHoles(t, s, holes(t, "", size+int64(len(text)), text))
			if fmt.Sprint(stream) != fmt.Sprint(file) {
				t.Errorf("%d zeros and %q: %+v, as a file %+v", size, text, stream, file)
			}
			testkit.Must(t, b.Commit(t.Context()))
			f := testkit.Value(s.OpenBlob(stream.Digest))(t)
			if st := testkit.Value(f.Stat())(t); uint64(st.Size()) != stream.Size {
				t.Errorf("the blob of %d zeros and %q has %d bytes", size, text, st.Size())
			}
			f.Close()
		}
	}
}

// The states that are kept are bounded.
func TestFewStatesOfHashesAreKept(t *testing.T) {
	var z zeros
	h := newHash()
	for i := range 5 {
		h.Write([]byte{byte(i)})
		key := image.Sum(state(h))
		for n := range maxStates / 2 {
			z.keep(key, h, int64(n+1))
		}
		if _, n := z.resume(newCopy(h), maxStates); n != maxStates/2 || z.kept > maxStates || len(z.runs) > 2 {
			t.Errorf("run %d: %d steps, %d kept of %d runs", i, n, z.kept, len(z.runs))
		}
	}
	z.keep(image.Digest{}, h, 2) // what is before is not known
	if _, ok := z.runs[image.Digest{}]; ok {
		t.Error("a state is kept without those before it")
	}
}

func newCopy(h hash.Hash) hash.Hash {
	c := newHash()
	restore(c, state(h))
	return c
}

func TestHashingAHoleEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var z zeros
	h := newHash()
	h.Write([]byte("x"))
	began := time.Now()
	if err := z.write(ctx, h, 1<<50, func(uint64) {}); err == nil {
		t.Errorf("a petabyte was hashed in %v", time.Since(began))
	}
	if bytes.Equal(state(h), state(newHash())) {
		t.Error("the hash was reset")
	}
}
