package readfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"dim/internal/confine"
	"dim/internal/testkit"
)

const readerName = "dim-reader"

func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, map[string]confine.Task{
			"test": Handle(testFS), "crash": Handle(crash), "large": Handle(large),
		}))
	}
	os.Exit(m.Run())
}

// testFS lets the standard library's test try the file system.
func testFS(_ context.Context, c *confine.Child, root func(int) FS) (any, error) {
	var names []string
	if err := c.Request(&names); err != nil {
		return nil, err
	}
	r := root(0)
	problems := []string{}
	for _, name := range names {
		want, err := fs.ReadFile(r, name)
		if err != nil {
			return nil, err
		}
		f, err := r.Open(name)
		if err != nil {
			return nil, err
		}
		got, err := io.ReadAll(io.NewSectionReader(f.(io.ReaderAt), 0, 1<<30))
		if err != nil || !bytes.Equal(got, want) {
			problems = append(problems, name)
		}
	}
	if target, err := r.ReadLink("link"); err != nil || target != "dir" {
		problems = append(problems, "link "+target)
	}
	if entries, err := r.ReadDir("dir"); err != nil || len(entries) != 2 {
		problems = append(problems, "dir")
	}
	for _, absent := range []string{"none", "dir/none"} {
		if _, err := r.Lstat(absent); !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, absent)
		}
	}
	if _, err := r.Open("../passwd"); err == nil {
		problems = append(problems, "a name that leads out")
	}
	if _, err := root(7).Stat("dir"); err == nil {
		problems = append(problems, "a root that there is not")
	}
	return problems, nil
}

func crash(_ context.Context, _ *confine.Child, root func(int) FS) (any, error) {
	if _, err := root(0).Open("dir/large"); err != nil {
		return nil, err
	}
	panic("slice bounds out of range")
}

func large(context.Context, *confine.Child, func(int) FS) (any, error) {
	return strings.Repeat("x", 3<<20), nil
}

func call(task string, root FS) *Call {
	return &Call{
		Program: confine.Program{Argv: []string{readerName}}, Task: task, Request: []string{"dir/a", "dir/large"},
		Roots: []FS{root}, Most: 1 << 20, Limits: confine.Limits{Memory: 256 << 20, Silence: time.Minute},
	}
}

func newRoot(t *testing.T) FS {
	t.Helper()
	dir := t.TempDir()
	testkit.Must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755), os.Symlink("dir", filepath.Join(dir, "link")),
		os.WriteFile(filepath.Join(dir, "dir/a"), []byte("a"), 0o644),
		os.WriteFile(filepath.Join(dir, "dir/large"), bytes.Repeat([]byte("0123456789"), 300_000), 0o644))
	root := testkit.Value(os.OpenRoot(dir))(t)
	t.Cleanup(func() { root.Close() })
	return root.FS().(FS)
}

func TestAChildReadsWhatItsParentHas(t *testing.T) {
	var problems []string
	testkit.Must(t, call("test", newRoot(t)).Do(t.Context(), &problems))
	if len(problems) > 0 {
		t.Errorf("wrong are %q", problems)
	}
}

func TestACrashNamesTheFile(t *testing.T) {
	err := call("crash", newRoot(t)).Do(t.Context(), new(string))
	if _, ok := errors.AsType[*confine.Failure](err); !ok || !strings.HasPrefix(err.Error(), "/dir/large: ") {
		t.Errorf("error %v", err)
	}
}

func TestAResultIsBounded(t *testing.T) {
	if err := call("large", newRoot(t)).Do(t.Context(), new(string)); err == nil ||
		!strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("error %v", err)
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add((&question{op: opRead, name: "a", length: 1}).encode())
	f.Add((&question{op: opReadDir, name: "..", offset: 1 << 63}).encode())
	s := &server{roots: []FS{fstest.MapFS{"a": {Data: []byte("a")}, "d/b": {}}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseQuestion(b)
		if err != nil {
			return
		}
		if !slices.Equal(q.encode(), b) {
			t.Fatalf("%x is encoded as %x", b, q.encode())
		}
		if answer, err := s.answer(&q); err == nil && q.op == opRead && len(answer) > confine.MaxPayload {
			t.Fatalf("%d bytes", len(answer))
		}
	})
}
