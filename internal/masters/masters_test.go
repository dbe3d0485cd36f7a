package masters

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/capture/remote"
	"dim/internal/cluster"
	"dim/internal/compare"
	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/store"
	"dim/internal/testkit"
	"dim/internal/versionfs"
	"dim/internal/versions"
)

const small = `<cluster name="small">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <image name="compute" arch="amd64" master="dir:MASTER">
    <keep path="/var/lib"/><file path="/etc/own.key">rendered</file>
  </image>
  <image name="archive" arch="amd64" master="tar:/master.tar"/>
  <image name="layout" arch="amd64" master="oci:/layout:v1"/>
</cluster>
`

const readerName = "dim-reader"

// TestMain runs the processes that the tests let read.
func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, Tasks()))
	}
	os.Exit(m.Run())
}

// newMasters returns a Masters of a server that has the master dir of the image compute, and the shared state.
func newMasters(t *testing.T) (m *Masters, c *coord.Coord, dir string) {
	t.Helper()
	testkit.NeedRoot(t, "it captures owners")
	log := slog.New(slog.DiscardHandler)
	dir = t.TempDir()
	data := t.TempDir()
	st := testkit.Value(store.Open(filepath.Join(data, "store"), store.Options{}))(t)
	t.Cleanup(func() { testkit.Must(t, st.Close()) })
	registry := versions.New(versions.Options{Server: "head", Store: st, Log: log})
	f, c := followtest.Open(t, strings.Replace(small, "MASTER", dir, 1), func(f *follow.Follower) {
		f.OnRestore(registry.PutPending)
	})
	registry.Follow = f
	reader := confine.Program{Argv: []string{readerName}}
	files := func(root image.Entry) readfs.FS { return versionfs.New(st, root) }
	return New(Options{
		Server: "head", Data: data, Notes: filepath.Join(data, "notes"), Store: st, Follow: f, Versions: registry,
		Reader:   reader,
		Compare:  compare.New(st.Tree, files, reader, log),
		RollOut:  func(context.Context, control.RolloutRequest) error { return nil },
		Problems: new(problems.List), Log: log,
	}), c, dir
}

func TestHowAMasterIsWatchedIsDeclared(t *testing.T) {
	t.Parallel()
	m, c, dir := newMasters(t)
	for _, tt := range []struct {
		name    string
		request control.WatchRequest
		code    control.Code
		message string
	}{
		{"no such image", control.WatchRequest{Image: "none"}, control.NotFound, "has no such image"},
		{"no such image, off", control.WatchRequest{Image: "none", Off: true}, control.NotFound, "has no such image"},
		{"a master that is no directory", control.WatchRequest{Image: "archive"}, control.Invalid, "master is tar:"},
		{
			"a time that does not exist", control.WatchRequest{Image: "compute", Rollout: "soon"},
			control.Invalid, `nodes cannot follow at "soon"`,
		},
		{
			"too short a quiet", control.WatchRequest{Image: "compute", Debounce: 1e-9},
			control.Invalid, "a quiet of 1ns is not between",
		},
		{
			"too long a quiet", control.WatchRequest{Image: "compute", Debounce: 61},
			control.Invalid, "a quiet of 1m1s is not between",
		},
		{
			"less than no quiet", control.WatchRequest{Image: "compute", Debounce: -1},
			control.Invalid, "a quiet of -1s is not between",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := m.Watch(t.Context(), tt.request)
			e, ok := errors.AsType[*control.Error](err)
			if !ok || e.Code != tt.code || !strings.Contains(e.Message, tt.message) {
				t.Errorf("got %v, want %s: %s", err, tt.code, tt.message)
			}
		})
	}
	watched := func() map[string]coord.Watch { return m.Follow.Now().State.Watches }
	request := control.WatchRequest{Image: "compute", Rollout: "boot", DryRun: true}
	dry := testkit.Value(m.Watch(t.Context(), request))(t)
	if !dry.On || dry.Master != "dir:"+dir || dry.Debounce != 0.2 || len(watched()) > 0 {
		t.Errorf("a dry run: %+v; watched are %v", dry, watched())
	}
	request.DryRun = false
	out := testkit.Value(m.Watch(t.Context(), request))(t)
	w := watched()["compute"]
	if !out.On || w.Server != "head" || w.Rollout != "boot" || w.Debounce != defaultDebounce {
		t.Errorf("got %+v, declared %+v", out, w)
	}
	off := control.WatchRequest{Image: "compute", Off: true, DryRun: true}
	if out := testkit.Value(m.Watch(t.Context(), off))(t); out.On || len(watched()) != 1 {
		t.Errorf("a dry run of its end: %+v; watched are %v", out, watched())
	}
	off.DryRun = false
	if out := testkit.Value(m.Watch(t.Context(), off))(t); out.On || len(watched()) > 0 {
		t.Errorf("its end: %+v; watched are %v", out, watched())
	}

	t.Run("the watch of an image that has left the description can be ended", func(t *testing.T) {
		testkit.Must(t, c.PutWatch(t.Context(), "gone", &coord.Watch{Server: "head"}), m.Follow.Refresh(t.Context(), c))
		testkit.Value(m.Watch(t.Context(), control.WatchRequest{Image: "gone", Off: true}))(t)
		if len(watched()) > 0 {
			t.Errorf("watched are %v", watched())
		}
	})
}

const hostKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAA\n"

func TestASecretIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	m, _, dir := newMasters(t)
	im, _ := m.Follow.Cluster().Image("compute")
	put := func(path, text string) {
		t.Helper()
		full := filepath.Join(dir, path)
		testkit.Must(t, os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o600))
	}
	dry := control.CaptureRequest{Image: "compute", DryRun: true}
	whole := control.CaptureRequest{Image: "compute"}
	for _, step := range []struct {
		name       string
		path, text string
		request    control.CaptureRequest
		want       []string
	}{
		{"no secret", "etc/motd", "one", whole, nil},
		{"a dry run warns", "etc/ssh/ssh_host_ed25519_key", hostKey, dry, []string{"/etc/ssh/ssh_host_ed25519_key"}},
		{"and does not count", "etc/motd", "two", whole, []string{"/etc/ssh/ssh_host_ed25519_key"}},
		{"the same key again", "etc/motd", "three", whole, nil},
		{"another key at the same path", "etc/ssh/ssh_host_ed25519_key", hostKey + "more\n", whole,
			[]string{"/etc/ssh/ssh_host_ed25519_key"}},
		{"the same key at another path", "root/id_ed25519", hostKey, whole, []string{"/root/id_ed25519"}},
		{"a machine id, of which each node has its own", "etc/machine-id", strings.Repeat("a", 32), whole, nil},
		{"a node file in its place", "etc/own.key", hostKey, whole, nil},
		{"a random seed that nodes keep", "var/lib/systemd/random-seed", "seed", whole, nil},
	} {
		t.Run(step.name, func(t *testing.T) {
			put(step.path, step.text)
			var got []string
			out, err := m.Capture(t.Context(), im, step.request, func(control.Progress) {})
			testkit.Must(t, err)
			for _, w := range out.Warnings {
				if w.Kind == control.WarnSecret {
					got = append(got, w.Path)
				}
			}
			if diff := cmp.Diff(step.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("without what was kept, it is warned of again", func(t *testing.T) {
		testkit.Must(t, os.WriteFile(filepath.Join(m.Notes, "compute.secrets"), []byte("{"), 0o600))
		testkit.Must(t, os.RemoveAll(filepath.Join(dir, "root")))
		put("root/id_ed25519", hostKey)
		put("root/id_rsa", hostKey+"x\n")
		out := testkit.Value(m.Capture(t.Context(), im, whole, func(control.Progress) {}))(t)
		if !slices.ContainsFunc(out.Warnings, func(w control.Warning) bool { return w.Path == "/root/id_rsa" }) {
			t.Errorf("got %+v", out.Warnings)
		}
	})
	t.Run("a failed capture is a problem until one succeeds", func(t *testing.T) {
		lock := testkit.Value(m.Store.Lock("capture-compute"))(t)
		_, err := m.Capture(t.Context(), im, whole, func(control.Progress) {})
		e, ok := errors.AsType[*control.Error](err)
		if about := problems.Image("compute"); !ok || e.Code != control.Busy || m.Problems.Text(about) == "" {
			t.Errorf("got %v; the problem is %q", err, m.Problems.Text(about))
		}
		lock.Unlock()
		testkit.Value(m.Capture(t.Context(), im, whole, func(control.Progress) {}))(t)
		if text := m.Problems.Text(problems.Image("compute")); text != "" || len(m.Capturing()) > 0 {
			t.Errorf("then the problem is %q, captures run: %v", text, m.Capturing())
		}
	})
}

func TestErrorsOfACaptureGetTheCodesOfTheAPI(t *testing.T) {
	other := errors.New("other")
	for _, tt := range []struct {
		name string
		err  error
		code control.Code
		hint string
	}{
		{"somebody captures it", &store.LockedError{Name: "compute", Holder: "pid 12"}, control.Busy,
			"dim status shows how far it is; ^C where it was started ends it"},
		{"its machine does not answer", &remote.Error{Hint: "is it on?"}, control.Unavailable, "is it on?"},
		{"anything else", other, "", ""},
		{"nothing", nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := apiError("compute", tt.err)
			e, ok := errors.AsType[*control.Error](err)
			if ok != (tt.code != "") || ok && (e.Code != tt.code || e.Hint != tt.hint) || !ok && err != tt.err {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCapturesThatRunAreListedByImage(t *testing.T) {
	m := New(Options{})
	for _, name := range []string{"other", "compute"} {
		m.setProgress(name, &control.Progress{Image: name})
	}
	if got := m.Capturing(); len(got) != 2 || got[0].Image != "compute" {
		t.Errorf("got %+v", got)
	}
	m.setProgress("compute", nil)
	if got := m.Capturing(); len(got) != 1 || got[0].Image != "other" {
		t.Errorf("got %+v", got)
	}
}

func TestAMasterThatAnotherHeadMayHaveIsElsewhere(t *testing.T) {
	m, c, dir := newMasters(t)
	testkit.Must(t, os.RemoveAll(dir))
	try := func(name string) error {
		im, _ := m.Follow.Cluster().Image(cluster.ImageName(name))
		_, err := m.Capture(t.Context(), im, control.CaptureRequest{Image: name}, func(control.Progress) {})
		return err
	}
	elsewhere := func(err error) bool {
		e, ok := errors.AsType[*control.Error](err)
		return ok && e.Code == control.Elsewhere
	}
	if err := try("compute"); err == nil || elsewhere(err) {
		t.Errorf("the only head: %v", err)
	}
	testkit.Must(t, c.PutServer(t.Context(), "head2", coord.Server{ID: "a", Roles: []string{"head"}}),
		m.Follow.Refresh(t.Context(), c))
	for _, name := range []string{"compute", "archive", "layout"} {
		if err := try(name); !elsewhere(err) {
			t.Errorf("capture %s: %v", name, err)
		}
	}
	if _, err := m.Watch(t.Context(), control.WatchRequest{Image: "compute"}); !elsewhere(err) {
		t.Errorf("watch: %v", err)
	}
	testkit.Must(t, os.Mkdir(dir, 0o755))
	if err := try("compute"); err != nil {
		t.Errorf("a master that is here: %v", err)
	}
}
