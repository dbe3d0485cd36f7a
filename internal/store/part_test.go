package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"dim/internal/image"
	"dim/internal/testkit"
)

// halves puts a large blob: the source fails after some bytes the first time.
func halves(t *testing.T, s *Store, content []byte, first int) (second uint64, err error) {
	t.Helper()
	want := Content{Digest: image.Sum(content), Size: uint64(len(content))}
	b := testkit.Value(s.BeginResumable())(t)
	cut := errors.New("cut")
	put := b.PutPart(t.Context(), want, func(from uint64) io.Reader {
		return io.MultiReader(bytes.NewReader(content[from:first]), iotest.ErrReader(cut))
	})
	if !errors.Is(put, cut) {
		t.Fatalf("the source failed, and PutPart returned %v", put)
	}
	testkit.Must(t, b.Abort())
	b = testkit.Value(s.BeginResumable())(t)
	err = b.PutPart(t.Context(), want, func(from uint64) io.Reader {
		second = from
		return bytes.NewReader(content[from:])
	})
	return second, errors.Join(err, b.Commit(t.Context()))
}

func parts(t *testing.T, s *Store) []string {
	t.Helper()
	return testkit.Value(filepath.Glob(s.path(partsDir, "*")))(t)
}

func large(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestALargeBlobGoesOnWhereItsSourceFailed(t *testing.T) {
	for _, c := range []struct {
		name        string
		size, first int
		want        uint64
	}{
		{"in the middle", partFrom + 1000, 9_000_001, 9_000_001},
		{"after more than is synced at a time", partSync + partFrom, partSync + 5, partSync + 5},
		{"at its end", partFrom, partFrom, partFrom},
		{"before its first byte", partFrom, 0, 0},
		{"a small one", partFrom - 1, 9_000_001, 0},
	} {
		s := testkit.Value(Open(t.TempDir(), Options{}))(t)
		content := large(c.size)
		from, err := halves(t, s, content, c.first)
		if err != nil || from != c.want {
			t.Errorf("%s: it went on at %d, want %d: %v", c.name, from, c.want, err)
		}
		got := testkit.Value(os.ReadFile(s.blobPath(image.Sum(content))))(t)
		if !bytes.Equal(got, content) || len(parts(t, s)) != 0 {
			t.Errorf("%s: %d bytes are stored, and %v is left", c.name, len(got), parts(t, s))
		}
		testkit.Must(t, s.Close())
	}
}

// What a crash has left behind the bytes that were synced is not used, and a part that is damaged is dropped.
func TestAPartIsUsedAsFarAsItIsOnDisk(t *testing.T) {
	dir, content := t.TempDir(), large(partFrom+7)
	s := testkit.Value(Open(dir, Options{}))(t)
	digest := image.Sum(content)
	want := Content{Digest: digest, Size: uint64(len(content))}
	put := func() (from uint64, err error) {
		b := testkit.Value(s.BeginResumable())(t)
		err = b.PutPart(t.Context(), want, func(at uint64) io.Reader {
			from = at
			return bytes.NewReader(content[at:])
		})
		return from, errors.Join(err, b.Commit(t.Context()))
	}
	leave := func(synced int, bytes []byte) {
		testkit.Must(t, os.MkdirAll(s.path(partsDir), 0o700),
			os.WriteFile(s.path(partsDir, fmt.Sprintf("%s.%d", digest, synced)), bytes, 0o600))
	}
	leave(5000, append([]byte("damage"), content[6:5000]...))
	if from, err := put(); !errors.Is(err, ErrMismatch) || from != 5000 || len(parts(t, s)) != 0 {
		t.Errorf("a damaged part: from %d, %v; %v is left", from, err, parts(t, s))
	}
	leave(5000, content[:4000])
	if from, err := put(); !errors.Is(err, ErrMismatch) || from != 5000 || len(parts(t, s)) != 0 {
		t.Errorf("a part that is too short: from %d, %v; %v is left", from, err, parts(t, s))
	}
	leave(6000, append(bytes.Clone(content[:6000]), "what was not synced"...))
	testkit.Must(t, s.Close())
	s = testkit.Value(Open(dir, Options{}))(t)
	defer s.Close()
	if from, err := put(); err != nil || from != 6000 {
		t.Errorf("from %d: %v", from, err)
	}
	leave(5, content[:5])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := testkit.Value(s.BeginResumable())(t)
	err := b.PutPart(ctx, want, func(uint64) io.Reader { return nil })
	if !errors.Is(err, context.Canceled) || len(parts(t, s)) != 1 {
		t.Errorf("a put that is cancelled: %v; %v is left", err, parts(t, s))
	}
	testkit.Must(t, b.Abort())
	testkit.Value(s.Sweep(t.Context(), nil))(t)
	if len(parts(t, s)) != 0 {
		t.Errorf("Sweep has left %v", parts(t, s))
	}
}
