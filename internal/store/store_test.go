package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"dim/internal/image"
	"dim/internal/testkit"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func begin(t *testing.T, s *Store) *Batch {
	t.Helper()
	b, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Abort() })
	return b
}

// fill puts files (name to content) under one root and returns the version's digest.
func fill(b *Batch, files map[string]string) (image.Digest, error) {
	var tree image.Tree
	for name, content := range files {
		d, err := b.PutBytes([]byte(content))
		if err != nil {
			return d, err
		}
		tree = append(tree, image.Entry{
			Name: name, Type: image.Regular, Mode: 0o644, Size: uint64(len(content)), Digest: d,
		})
	}
	sortTree(tree)
	d, err := b.PutTree(tree)
	if err != nil {
		return d, err
	}
	return b.PutRoot(image.Entry{Type: image.Directory, Mode: 0o755, Digest: d})
}

func sortTree(t image.Tree) {
	for i := range t {
		for j := i; j > 0 && t[j].Name < t[j-1].Name; j-- {
			t[j], t[j-1] = t[j-1], t[j]
		}
	}
}

func addVersion(s *Store, name string, files map[string]string) (image.Version, error) {
	return addNumbered(s, name, func() int { return nextNumber(s, name) }, files)
}

// addNumbered adds a version with the number that number returns after the commit.
func addNumbered(s *Store, name string, number func() int, files map[string]string) (image.Version, error) {
	b, err := s.Begin()
	if err != nil {
		return image.Version{}, err
	}
	defer b.Abort()
	d, err := fill(b, files)
	if err != nil {
		return image.Version{}, err
	}
	if err := b.Commit(context.Background()); err != nil {
		return image.Version{}, err
	}
	return s.AddVersion(image.Version{Image: name, Number: number(), Digest: d, Files: uint64(len(files))})
}

// nextNumber returns the number after the highest that an image has.
func nextNumber(s *Store, name string) int {
	v, _ := s.Resolve(image.Ref{Image: name})
	return v.Number + 1
}

func TestWhatIsCommittedCanBeRead(t *testing.T) {
	s := open(t, t.TempDir())
	b := begin(t, s)
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	small := testkit.Value(b.PutBytes([]byte("hello")))(t)
	streamed := testkit.Value(b.PutBlob(context.Background(), bytes.NewReader(big)))(t)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, big, 0o600); err != nil {
		t.Fatal(err)
	}
	f := testkit.Value(os.Open(file))(t)
	defer f.Close()
	read := testkit.Value(b.PutFile(context.Background(), int(f.Fd()), f.Name()))(t)
	if d := cmp.Diff(streamed, read); d != "" {
		t.Errorf("the same bytes are not the same content:\n%s", d)
	}
	tree := image.Tree{{Name: "a", Type: image.Regular, Size: 5, Digest: small, Nlink: 1}}
	td := testkit.Value(b.PutTree(tree))(t)

	if s.has(object{blobsDir, small}) || s.has(object{treesDir, td}) {
		t.Error("something is visible before Commit")
	}
	if err := b.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(tree, testkit.Value(s.Tree(td))(t)); d != "" {
		t.Error(d)
	}
	for d, want := range map[image.Digest][]byte{small: []byte("hello"), read.Digest: big} {
		f := testkit.Value(s.OpenBlob(d))(t)
		defer f.Close()
		if got := testkit.Value(io.ReadAll(f))(t); !bytes.Equal(got, want) {
			t.Errorf("blob %s has other bytes", d.Short())
		}
		if image.Sum(want) != d {
			t.Errorf("digest %s is not that of the bytes", d.Short())
		}
	}
	if left := testkit.Value(os.ReadDir(filepath.Join(s.Dir(), stagingDir)))(t); len(left) != 0 {
		t.Errorf("staging is not empty: %v", left)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	b := begin(t, s)
	d := testkit.Value(b.PutBytes([]byte("x")))(t)
	if err := b.Abort(); err != nil {
		t.Fatal(err)
	}
	if s.has(object{blobsDir, d}) {
		t.Error("an aborted blob is there")
	}
	if _, err := b.PutBytes([]byte("y")); err == nil {
		t.Error("a batch takes something after its end")
	}
	if err := b.Commit(context.Background()); err == nil {
		t.Error("an aborted batch commits")
	}
}

func TestMissingThingsAreErrNotFound(t *testing.T) {
	s := open(t, t.TempDir())
	none := image.Sum([]byte("none"))
	_, blob := s.OpenBlob(none)
	_, tree := s.Tree(none)
	_, root := s.Root(none)
	_, versions := s.Versions("x")
	_, resolve := s.Resolve(image.Ref{Image: "x"})
	_, numbered := s.Resolve(image.Ref{Image: "x", Number: 3})
	_, tagged := s.Resolve(image.Ref{Image: "x", Tag: "y"})
	remove := s.RemoveVersion(image.Ref{Image: "x", Number: 3})
	_, add := s.AddVersion(image.Version{Image: "x", Number: 1, Digest: none})
	for name, err := range map[string]error{
		"blob": blob, "tree": tree, "root": root, "versions": versions, "resolve": resolve, "numbered": numbered,
		"tagged": tagged, "version without its root": add, "remove": remove,
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got error %v, want ErrNotFound", name, err)
		}
	}
}

func TestVersionsAreResolved(t *testing.T) {
	s := open(t, t.TempDir())
	one := testkit.Value(addVersion(s, "compute", map[string]string{"a": "1"}))(t)
	two := testkit.Value(addVersion(s, "compute", map[string]string{"a": "2"}))(t)
	if one.Number != 1 || two.Number != 2 || one.Root.Mode != 0o755 {
		t.Errorf("got numbers %d and %d, root mode %o", one.Number, two.Number, one.Root.Mode)
	}
	for ref, want := range map[string]image.Version{"compute": two, "compute@1": one} {
		r := testkit.Value(image.ParseRef(ref))(t)
		if d := cmp.Diff(want, testkit.Value(s.Resolve(r))(t), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", ref, d)
		}
	}
	all := testkit.Value(s.Versions("compute"))(t)
	if d := cmp.Diff([]image.Version{one, two}, all, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"compute"}, testkit.Value(s.Images())(t)); d != "" {
		t.Error(d)
	}
}

func TestAVersionHasTheNumberThatItsCallerGives(t *testing.T) {
	s := open(t, t.TempDir())
	v := testkit.Value(addVersion(s, "a", map[string]string{"x": "1"}))(t)
	w := testkit.Value(addVersion(s, "b", map[string]string{"x": "2"}))(t)
	if got := testkit.Value(s.AddVersion(image.Version{Image: "a", Number: 7, Digest: w.Digest}))(t); got.Number != 7 {
		t.Errorf("got number %d, want 7", got.Number)
	}
	if _, err := s.AddVersion(image.Version{Image: "a", Number: 7, Digest: w.Digest}); err != nil {
		t.Errorf("adding it again: %v", err)
	}
	if _, err := s.AddVersion(image.Version{Image: "a", Number: 7, Digest: v.Digest}); err == nil {
		t.Error("another version of the same number is accepted")
	}
	for _, n := range []int{0, -1} {
		if _, err := s.AddVersion(image.Version{Image: "a", Number: n, Digest: v.Digest}); err == nil {
			t.Errorf("a version with the number %d is accepted", n)
		}
	}
	if got := testkit.Value(s.Versions("a"))(t); len(got) != 2 || got[0].Number != 1 || got[1].Number != 7 {
		t.Errorf("versions: %v", got)
	}
}

func TestSparseFilesStaySparse(t *testing.T) {
	s := open(t, t.TempDir())
	const size = 16 << 20
	tests := []struct {
		name string
		at   []int64
		want []image.Extent
	}{
		{"all hole", nil, []image.Extent{}},
		{"data in the middle", []int64{1 << 20, 5<<20 + 1},
			[]image.Extent{{Offset: 1 << 20, Length: 4096}, {Offset: 5 << 20, Length: 4096}}},
		{"data at both ends", []int64{0, size - 1},
			[]image.Extent{{Offset: 0, Length: 4096}, {Offset: size - 4096, Length: 4096}}},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "f")
		f := testkit.Value(os.Create(path))(t)
		for _, off := range tt.at {
			testkit.Value(f.WriteAt([]byte("x"), off))(t)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		b := begin(t, s)
		c := testkit.Value(b.PutFile(context.Background(), int(f.Fd()), f.Name()))(t)
		if err := b.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, c.Data); d != "" {
			t.Errorf("%s: extents differ:\n%s", tt.name, d)
		}
		whole := testkit.Value(os.ReadFile(path))(t)
		if image.Sum(whole) != c.Digest || c.Size != size {
			t.Errorf("%s: digest or size is wrong", tt.name)
		}
		stored := testkit.Value(os.ReadFile(s.blobPath(c.Digest)))(t)
		if !bytes.Equal(whole, stored) {
			t.Errorf("%s: other bytes are stored", tt.name)
		}
		if used := blocks(t, s.blobPath(c.Digest)); used > 1<<20 {
			t.Errorf("%s: the blob takes %d bytes on disk", tt.name, used)
		}
		f.Close()
	}
}

func TestAStoreOfANewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{})
	if err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
}

func TestALockedErrorNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	l := testkit.Value(s.Lock("capture-x"))(t)
	_, err := other.Lock("capture-x")
	var held *LockedError
	if !errors.As(err, &held) || !strings.HasPrefix(held.Holder, "pid ") {
		t.Errorf("got %v", err)
	}
	l.Unlock()
	l, err = other.Lock("capture-x")
	if err != nil {
		t.Fatal(err)
	}
	l.Unlock()
}

func TestATreeThatWasChangedOnDiskIsCorrupt(t *testing.T) {
	s := open(t, t.TempDir())
	v := testkit.Value(addVersion(s, "x", map[string]string{"a": "1"}))(t)
	path := filepath.Join(s.Dir(), objectPath(treesDir, v.Root.Digest))
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte{1, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tree(v.Root.Digest); !errors.Is(err, errCorrupt) {
		t.Errorf("got %v, want an error that it is corrupt", err)
	}
}

func TestADamagedVersionLeavesTheOthersAlone(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 4 {
		testkit.Value(addVersion(s, "x", map[string]string{"a": strconv.Itoa(i)}))(t)
	}
	path := func(number int) string { return s.path(versionsDir, "x", strconv.Itoa(number)+".json") }
	newest := testkit.Value(s.Resolve(image.Ref{Image: "x"}))(t)
	testkit.Must(t, os.Remove(filepath.Join(s.Dir(), objectPath(treesDir, newest.Digest))), os.Remove(path(2)),
		os.WriteFile(path(2), []byte("{"), 0o600))
	if v, err := s.Resolve(image.Ref{Image: "x"}); err != nil || v.Number != 3 {
		t.Errorf("the newest version is %d, %v", v.Number, err)
	}
	versions, err := s.Versions("x")
	if err != nil || len(versions) != 2 || versions[0].Number != 1 || versions[1].Number != 3 {
		t.Errorf("versions %v, %v", versions, err)
	}
	damaged := testkit.Value(s.Damaged())(t)
	if len(damaged) != 2 || damaged[0].Ref.Number != 2 || damaged[1].Ref.Number != 4 {
		t.Errorf("damaged are %v", damaged)
	}
	if _, err := s.Garbage(t.Context(), nil, nil); err == nil {
		t.Error("what a damaged version leads to may be removed")
	}
	text := testkit.Value(os.ReadFile(path(3)))(t)
	testkit.Must(t, os.WriteFile(path(3), bytes.Replace(text, []byte(`"format": 1`), []byte(`"format": 9`), 1), 0o600))
	if left, err := s.Versions("x"); err != nil || len(left) != 1 || left[0].Number != 1 {
		t.Errorf("besides one in a later format: versions %v, %v", left, err)
	}
	if _, err := s.RewriteVersion(versions[1]); err == nil {
		t.Error("a record in a later format was overwritten")
	}
}

// BenchmarkLoadVersion loads 7,100 trees of 90,000 names in all, by as many goroutines as there are processors.
func BenchmarkLoadVersion(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	batch, err := s.Begin()
	if err != nil {
		b.Fatal(err)
	}
	var digests []image.Digest
	for i := range 7100 {
		var tree image.Tree
		for j := range 13 {
			tree = append(tree, image.Entry{
				Name: fmt.Sprintf("%02d-some-file-%d.so", j, i), Type: image.Regular, Mode: 0o644, Size: 1,
				Mtime: image.Time{Sec: 1700000000}, Digest: image.Sum([]byte{byte(i)}),
			})
		}
		d, err := batch.PutTree(tree)
		if err != nil {
			b.Fatal(err)
		}
		digests = append(digests, d)
	}
	if err := batch.Commit(context.Background()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var g errgroup.Group
		n := runtime.GOMAXPROCS(0)
		for w := range n {
			g.Go(func() error {
				for i := w; i < len(digests); i += n {
					if _, err := s.Tree(digests[i]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}
