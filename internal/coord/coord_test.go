package coord

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/testkit"
)

func open(t *testing.T, dir string) *Coord {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	c, err := Open(t.Context(), Options{Dir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func someVersion(name string, number int) image.Version {
	return image.Version{
		Image: name, Number: number, Digest: image.Sum([]byte{byte(number)}), Files: 3, Bytes: 1 << 40,
		Created: time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC),
		Root: image.Entry{
			Type: image.Directory, Mode: 0o755, Digest: image.Sum([]byte("tree")), Mtime: image.Time{Sec: 1, Nsec: 999},
			Xattrs: []image.Xattr{{Name: "user.x", Value: []byte{0xff, 0}}},
		},
	}
}

func TestPutsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	d := Description{
		Files:  []File{{"cluster.xml", []byte("<cluster/>")}, {"hosts.tmpl", []byte{0xff, 0}}},
		Digest: image.Sum([]byte("d")), Applied: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	rev := testkit.Value(c.PutDescription(t.Context(), d, 0))(t)
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 2)))
	testkit.Must(t, c.PutTag(t.Context(), "compute", "stable", 1))
	put(t, c, Change{
		Desired:  Refs{"n01": ref(t, "compute@1"), "n02": ref(t, "compute@stable")},
		Next:     Refs{"n03": ref(t, "compute@2")},
		Current:  map[string]int{"compute": 2},
		Rollouts: map[int]json.RawMessage{1: json.RawMessage(`{"a":1}`), 2: json.RawMessage(`{}`)},
	})
	watch := Watch{Server: "head", Rollout: "now", Debounce: time.Second, Declared: d.Applied}
	testkit.Must(t, c.PutWatch(t.Context(), "compute", &watch))
	testkit.Must(t, c.PutWatch(t.Context(), "other", &watch))
	testkit.Must(t, c.PutWatch(t.Context(), "other", nil))
	put(t, c, Change{Desired: Refs{"n02": {}}, Rollouts: map[int]json.RawMessage{2: nil}})
	before := testkit.Value(c.Snapshot(t.Context()))(t)
	testkit.Must(t, c.Close())

	after := testkit.Value(open(t, dir).Snapshot(t.Context()))(t)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	d.Revision = rev
	v1, v2 := someVersion("compute", 1), someVersion("compute", 2)
	v1.Tags = []string{"stable"}
	want := State{
		Store: after.Store, Revision: after.Revision, Description: &d,
		Images: map[string]*Image{"compute": {
			Last: 2, Current: 2, Versions: []image.Version{v1, v2}, Tags: map[string]int{"stable": 1},
		}},
		Desired: Refs{"n01": ref(t, "compute@1")}, Next: Refs{"n03": ref(t, "compute@2")},
		Rollouts: map[int]json.RawMessage{1: json.RawMessage(`{"a":1}`)}, Watches: map[string]Watch{"compute": watch},
		Servers: map[string]Server{}, Revoked: map[string]Revocation{},
	}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Error(diff)
	}
}

func ref(t *testing.T, text string) image.Ref {
	t.Helper()
	return testkit.Value(image.ParseRef(text))(t)
}

// put makes a change that does not depend on the state.
func put(t *testing.T, c *Coord, change Change) {
	t.Helper()
	testkit.Must(t, c.Decide(t.Context(), func(State) (Change, error) { return change, nil }))
}

func TestASavedStateIsLoadedUnchanged(t *testing.T) {
	c := open(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "state.json")
	empty := testkit.Value(LoadState(path))(t)
	if empty.Revision != 0 || empty.Images == nil {
		t.Errorf("without a file the state is %+v", empty)
	}
	testkit.Value(c.PutDescription(t.Context(), Description{Files: []File{{"c.xml", []byte("x")}}}, -1))(t)
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	testkit.Must(t, c.PutTag(t.Context(), "compute", "stable", 1))
	testkit.Must(t, c.PutWatch(t.Context(), "compute", &Watch{Server: "head", Debounce: time.Second}))
	put(t, c, Change{
		Next:     Refs{"n01": ref(t, "compute@1")},
		Rollouts: map[int]json.RawMessage{7: json.RawMessage(`{"a":1}`)},
	})
	live := testkit.Value(c.Snapshot(t.Context()))(t)
	testkit.Must(t, SaveState(path, live))
	kept := testkit.Value(LoadState(path))(t)
	if diff := cmp.Diff(live, kept); diff != "" {
		t.Error(diff)
	}
	v, ok := kept.Resolve(image.Ref{Image: "compute", Tag: "stable"})
	if !ok || v.Number != 1 || v.Root.Mode != 0o755 {
		t.Errorf("resolve compute@stable: %+v, %v", v, ok)
	}
	for _, r := range []image.Ref{{Image: "compute", Number: 2}, {Image: "compute", Tag: "none"}, {Image: "other"}} {
		if v, ok := kept.Resolve(r); ok {
			t.Errorf("resolve %s: %+v", r, v)
		}
	}
}

func TestADamagedOrNewerSavedStateIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	testkit.Must(t, os.WriteFile(path, []byte(`{"format": 9}`), 0o600))
	if _, err := LoadState(path); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer: %v", err)
	}
	testkit.Must(t, os.WriteFile(path, []byte(`{"format": 1,`), 0o600))
	if _, err := LoadState(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("damaged: %v", err)
	}
}

func TestConcurrentChangesConflict(t *testing.T) {
	c := open(t, t.TempDir())
	d := Description{Files: []File{{"c.xml", nil}}}
	rev := testkit.Value(c.PutDescription(t.Context(), d, 0))(t)
	if _, err := c.PutDescription(t.Context(), d, 0); !errors.Is(err, ErrConflict) {
		t.Errorf("a first description over another: %v", err)
	}
	rev2 := testkit.Value(c.PutDescription(t.Context(), d, rev))(t)
	if _, err := c.PutDescription(t.Context(), d, rev); !errors.Is(err, ErrConflict) {
		t.Errorf("a description over one that is no longer there: %v", err)
	}
	if rev2 <= rev {
		t.Errorf("revision %d after %d", rev2, rev)
	}
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 3)))
	for _, n := range []int{1, 3} {
		v := someVersion("compute", n)
		v.Digest = image.Sum([]byte("another"))
		if err := c.PutVersion(t.Context(), v); !errors.Is(err, ErrConflict) {
			t.Errorf("version %d after 3: %v", n, err)
		}
	}
	if err := c.PutTag(t.Context(), "compute", "stable", 2); !errors.Is(err, ErrNotFound) {
		t.Errorf("tag of a version that does not exist: %v", err)
	}
}

func TestInvalidNamesAreRefused(t *testing.T) {
	c := open(t, t.TempDir())
	for _, v := range []image.Version{someVersion("a/b", 1), someVersion("", 1), someVersion("a", 0)} {
		if err := c.PutVersion(t.Context(), v); err == nil {
			t.Errorf("%s@%d was put", v.Image, v.Number)
		}
	}
	if err := c.PutTag(t.Context(), "a", "b/c", 1); err == nil {
		t.Error("tag b/c was put")
	}
}

// follow runs Watch and returns its States one by one.
func follow(t *testing.T, c *Coord, since State) (next func() State, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	states, ended := make(chan State), make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, since, func(s State) error {
			select {
			case states <- s:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	next = func() State {
		select {
		case s := <-states:
			return s
		case <-time.After(30 * time.Second):
			t.Fatal("no state was delivered")
			return State{}
		}
	}
	stop = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	}
	return next, stop
}

func TestWatchDeliversThePresentAndLaterStates(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	next, stop := follow(t, c, State{})
	s := next()
	if s.Images["compute"].Last != 1 {
		t.Errorf("first state: %+v", s)
	}
	for n := 2; n < 20; n++ {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n)))
		for last := s.Revision; ; last = s.Revision {
			if s = next(); s.Revision <= last {
				t.Fatalf("revision %d after %d", s.Revision, last)
			}
			if s.Images["compute"].Last == n {
				break
			}
		}
	}
	stop()

	testkit.Must(t, c.PutTag(t.Context(), "compute", "missed", 1))
	next, stop = follow(t, c, s)
	if got := next(); got.Images["compute"].Tags["missed"] != 1 {
		t.Errorf("resumed: %+v", got)
	}
	stop()
}

func TestWatchDeliversNothingWhileNothingChanges(t *testing.T) {
	c := open(t, t.TempDir())
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	next, stop := follow(t, c, s)
	defer stop()
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	if got := next(); got.Images["compute"] == nil || got.Revision != s.Revision+1 {
		t.Errorf("the first state delivered is %+v", got)
	}
}

func TestWatchEndsWithItsCallbacksError(t *testing.T) {
	c := open(t, t.TempDir())
	want := errors.New("enough")
	if err := c.Watch(t.Context(), State{}, func(State) error { return want }); err != want {
		t.Errorf("Watch: %v", err)
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(t.Context(), Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("second Open: %v", err)
	}
}

func TestDamagedDataIsAnErrorNotACrash(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"log":      func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "member", "wal", "*.wal")) },
		"database": func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "member", "snap", "db")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := testkit.Value(os.MkdirTemp("", "coord"))(t)
			t.Cleanup(func() { os.RemoveAll(dir) }) // etcd may still create a file in it
			c := open(t, dir)
			testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
			testkit.Must(t, c.Close())
			damage(t, dir)
			c, err := Open(t.Context(), Options{Dir: dir})
			if err == nil {
				s, serr := c.Snapshot(t.Context())
				c.Close()
				t.Fatalf("opened, with %+v, %v", s, serr)
			}
			if !strings.Contains(err.Error(), dir+": ") || !strings.Contains(err.Error(), "etcd ") {
				t.Errorf("error does not say what is wrong where: %v", err)
			}
		})
	}
}

func overwrite(t *testing.T, pattern string) {
	t.Helper()
	names := testkit.Value(filepath.Glob(pattern))(t)
	for _, name := range names {
		b := testkit.Value(os.ReadFile(name))(t)
		for i := range min(len(b), 1<<20) {
			b[i] ^= 0x5a
		}
		testkit.Must(t, os.WriteFile(name, b, 0o600))
	}
	if len(names) == 0 {
		t.Fatalf("no files %s", pattern)
	}
}

func TestAStateOfANewerProgramIsRefused(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	testkit.Value(c.client.Put(t.Context(), c.prefix+"format", "2"))(t)
	if _, err := c.Snapshot(t.Context()); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("Snapshot: %v", err)
	}
	testkit.Must(t, c.Close())
	if _, err := Open(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("Open: %v", err)
	}
}

func TestWithoutQuorumCallsReturnAClearErrorInTime(t *testing.T) {
	// It accepts connections and never answers.
	ln := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer ln.Close()
	endpoint := "http://" + ln.Addr().String()
	remote := Remote{Endpoints: []string{endpoint}}
	c := testkit.Value(Open(t.Context(), Options{Remote: remote, Timeout: 300 * time.Millisecond}))(t)
	defer c.Close()
	_, err := c.Snapshot(t.Context())
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), endpoint) {
		t.Errorf("Snapshot: %v", err)
	}
	if err := c.PutVersion(t.Context(), someVersion("compute", 1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("PutVersion: %v", err)
	}
	if err := c.Check(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Check: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if err := c.Watch(ctx, State{}, func(State) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Watch: %v", err)
	}
}

func TestOpenNeedsEitherADirectoryOrEndpoints(t *testing.T) {
	for _, o := range []Options{{}, {Dir: "x", Remote: Remote{Endpoints: []string{"y"}}}} {
		if _, err := Open(t.Context(), o); err == nil {
			t.Errorf("Open(%+v) worked", o)
		}
	}
}

func TestAChangeThatEtcdDoesNotTakeIsRefusedWithItsSize(t *testing.T) {
	c := open(t, t.TempDir())
	_, err := c.PutDescription(t.Context(), Description{Files: []File{{Name: "c.xml", Data: make([]byte, 8<<20)}}}, -1)
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "too large: 11184975 bytes") {
		t.Errorf("8 MB: %v", err)
	}
	_, err = c.PutDescription(t.Context(), Description{Files: []File{{Name: "c.xml", Data: make([]byte, 7<<20)}}}, -1)
	if err != nil {
		t.Errorf("7 MB: %v", err)
	}
}
