package pkgread

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/image"
	"dim/internal/pkgdb"
)

const readerName = "dim-reader"

func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, map[string]confine.Task{
			TaskName: breakableTask(),
		}))
	}
	os.Exit(m.Run())
}

// breakableTask is Task, which crashes when a node has "crash" in dpkg's lock.
func breakableTask() confine.Task {
	answer := answerRequests()
	return readfs.HandleEach(func(ctx context.Context, text []byte, root func(int) readfs.FS) (any, error) {
		if lock, _ := fs.ReadFile(root(2), "var/lib/dpkg/lock"); string(lock) == "crash" {
			panic("the parser is broken")
		}
		return answer(ctx, text, root)
	})
}

// files has the package tool in a version.
func files(version, lock string) fstest.MapFS {
	text := fmt.Sprintf("Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: %s\n\n", version)
	return fstest.MapFS{
		"var/lib/dpkg/status": &fstest.MapFile{Data: []byte(text)},
		"var/lib/dpkg/lock":   &fstest.MapFile{Data: []byte(lock)},
	}
}

func newReader(t *testing.T) (*Reader, *Pair) {
	r := New(confine.Program{Argv: []string{readerName}})
	t.Cleanup(r.Close)
	return r, &Pair{
		Old: Version{image.Sum([]byte("1")), files("1", "")}, Next: Version{image.Sum([]byte("2")), files("2", "")},
	}
}

func TestADatabaseThatBreaksItsReaderIsThatNodesAlone(t *testing.T) {
	r, pair := newReader(t)
	for range 2 {
		_, err := r.Compare(pair, files("3", "crash"))
		if err == nil || !strings.Contains(err.Error(), "crashed: panic: the parser is broken") {
			t.Fatal(err)
		}
		got, err := r.Compare(pair, files("3", ""))
		if err != nil || len(got.List) != 1 || got.List[0].Node != "3" || got.List[0].Master != "2" {
			t.Fatalf("another node: %+v, %v", got, err)
		}
	}
}

func TestOneProcessReadsTheDatabasesOfManyNodes(t *testing.T) {
	r, pair := newReader(t)
	r.idle = time.Hour
	r.rest.Stop() // the first comparison may take longer than the time that New has set
	for range 20 {
		if got, err := r.Compare(pair, files("3", "")); err != nil || len(got.List) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) != 1 || r.sessions[0].nodes != 20 {
		t.Errorf("%d processes", len(r.sessions))
	}
}

func TestTheDatabaseOfAVersionIsListed(t *testing.T) {
	r, _ := newReader(t)
	got, err := r.List(t.Context(), files("1", ""))
	want := Installed{Packages: []pkgdb.Package{{Name: "tool", Arch: "all", Version: "1"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	root := files("1", "")
	root["var/lib/rpm/Packages"] = &fstest.MapFile{Data: []byte("x")}
	got, err = r.List(t.Context(), root)
	if err != nil || len(got.Packages) != 1 || len(got.Unread) != 1 {
		t.Errorf("beside a database that cannot be read: %+v, %v", got, err)
	}
	broken := New(confine.Program{Argv: []string{"/nonexistent"}})
	t.Cleanup(broken.Close)
	if _, err := broken.List(t.Context(), root); err == nil {
		t.Error("a process that does not start has listed packages")
	}
}

func TestAPathThatIsNoneIsRefused(t *testing.T) {
	for text, good := range map[string]bool{
		`{"files":["\"usr/\\xff\""]}`: true, `{"files":["\"../x\""]}`: false, `{"files":["\"/x\""]}`: false,
		`{"paths":[{"path":"\"a/../../x\""}]}`: false, `{"files":["x"]}`: false,
	} {
		var got Answer
		if err := json.Unmarshal([]byte(text), &got); (err == nil) != good {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
