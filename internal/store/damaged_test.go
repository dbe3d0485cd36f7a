package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/testkit"
)

// damages are what may become of an object's file.
var damages = map[string]func(path string) error{
	"a wrong byte": func(path string) error {
		b, err := os.ReadFile(path)
		if err == nil {
			b[len(b)/2] ^= 0x10
			err = os.WriteFile(path, b, 0o600)
		}
		return err
	},
	"cut off": func(path string) error { return os.Truncate(path, 1) },
	"empty":   func(path string) error { return os.Truncate(path, 0) },
	"too long": func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("more")
		return errors.Join(err, f.Close())
	},
	"a pipe": func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
	"a link": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
}

// damage damages the file of an object.
func damage(s *Store, kind string, d image.Digest, how func(path string) error) error {
	path := filepath.Join(s.Dir(), objectPath(kind, d))
	return errors.Join(os.Chmod(path, 0o600), how(path))
}

func TestABatchReplacesADamagedObject(t *testing.T) {
	ctx := t.Context()
	small := []byte("small content")
	large := bytes.Repeat([]byte("large content "), 50_000)
	file := filepath.Join(t.TempDir(), "file")
	testkit.Must(t, os.WriteFile(file, large, 0o600))
	tree := image.Tree{{Name: "a", Type: image.Regular, Size: uint64(len(small)), Digest: image.Sum(small)}}
	put := map[string]struct {
		kind string
		put  func(b *Batch) (image.Digest, error)
	}{
		"a tree": {treesDir, func(b *Batch) (image.Digest, error) { return b.PutTree(tree) }},
		"bytes":  {blobsDir, func(b *Batch) (image.Digest, error) { return b.PutBytes(small) }},
		"a stream": {blobsDir, func(b *Batch) (image.Digest, error) {
			c, err := b.PutBlob(ctx, bytes.NewReader(small))
			return c.Digest, err
		}},
		"a file": {blobsDir, func(b *Batch) (image.Digest, error) {
			f, err := os.Open(file)
			if err != nil {
				return image.Digest{}, err
			}
			defer f.Close()
			c, err := b.PutFile(ctx, int(f.Fd()), file)
			return c.Digest, err
		}},
	}
	for what, o := range put {
		for how, do := range damages {
			t.Run(what+" "+how, func(t *testing.T) {
				s := open(t, t.TempDir())
				store := func(damaged int) (d image.Digest) {
					b := testkit.Value(s.Begin())(t)
					defer b.Abort()
					for range 3 { // the second and the third time it is in the batch
						d = testkit.Value(o.put(b))(t)
					}
					testkit.Must(t, b.Commit(ctx))
					if got := b.Damaged(); len(got) != damaged {
						t.Errorf("%v were damaged", got)
					}
					return d
				}
				d := store(0)
				testkit.Must(t, damage(s, o.kind, d, do))
				if len(problems(t, s)) == 0 {
					t.Fatal("it is not damaged")
				}
				store(1)
				store(0)
				if p := problems(t, s); o.kind == blobsDir && p != nil || strings.Contains(fmt.Sprint(p), d.String()) {
					t.Errorf("after it was stored again: %q", p)
				}
			})
		}
	}
}

func TestABatchReadsAnObjectOfTheStoreOnce(t *testing.T) {
	s := open(t, t.TempDir())
	content := []byte("content")
	fill := func(b *Batch) image.Digest { return testkit.Value(b.PutBytes(content))(t) }
	b := begin(t, s)
	d := fill(b)
	testkit.Must(t, b.Commit(t.Context()))
	b = begin(t, s)
	fill(b)
	testkit.Must(t, damage(s, blobsDir, d, damages["empty"])) // after it was read
	fill(b)
	if objects, _ := b.Staged(); objects > 0 {
		t.Errorf("%d objects are staged", objects)
	}
	testkit.Must(t, b.Abort())
}

// TestAProcessKilledWhileItReplacesDamageLeavesTheOldBytesOrTheRightOnes kills it at each of its steps.
func TestAProcessKilledWhileItReplacesDamageLeavesTheOldBytesOrTheRightOnes(t *testing.T) {
	files := map[string]string{}
	for i := range 5 {
		files[fmt.Sprint("f", i)] = fmt.Sprint("content ", i)
	}
	for n, done := 0, false; !done; n++ {
		dir := disktest.Memory(t)
		s := open(t, dir)
		testkit.Value(addVersion(s, "x", files))(t)
		bad := image.Sum([]byte(files["f3"]))
		testkit.Must(t, damage(s, blobsDir, bad, damages["a wrong byte"]))
		before := problems(t, s)
		killed := killAfter(t, dir, n)
		b := testkit.Value(killed.Begin())(t)
		_, err := fill(b, files)
		if err == nil {
			err = b.commit(context.Background())
		}
		if done = err == nil; !done && !errors.Is(err, errKilled) {
			t.Fatalf("step %d: %v", n, err)
		}
		b.die()
		s = open(t, dir)
		if p := problems(t, s); p != nil && fmt.Sprint(p) != fmt.Sprint(before) {
			t.Fatalf("killed at step %d: %q, before %q", n, p, before)
		} else if done && p != nil {
			t.Fatalf("at the end: %q", p)
		}
		testkit.Value(addVersion(s, "x", files))(t)
		if p := problems(t, s); p != nil {
			t.Fatalf("killed at step %d, stored again: %q", n, p)
		}
		if n > 200 {
			t.Fatal("there is no end of steps")
		}
	}
}
