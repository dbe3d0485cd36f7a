package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"dim/internal/control"
	"dim/internal/control/server"
	"dim/internal/control/wire"
	"dim/internal/testkit"
	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// fake is a daemon with one image and one node.
type fake struct {
	control.Backend // calls that no test makes
	diff            []control.Change
}

func (f fake) Status(context.Context) (control.Status, error) {
	return control.Status{Server: "head", Nodes: 1, Images: []control.Image{{Name: "compute"}}}, nil
}

func (f fake) Version(_ context.Context, ref string) (control.Version, error) {
	if ref != "compute@1" {
		err := control.Errorf(control.NotFound, "no such version").WithHint("dim image ls")
		return control.Version{}, fmt.Errorf("resolve %s: %w", ref, err)
	}
	return control.Version{Image: "compute", Number: 1}, nil
}

func (f fake) Node(context.Context, string) (control.Node, error) {
	return control.Node{}, errors.New("disk on fire")
}

func (f fake) Apply(_ context.Context, r control.ApplyRequest) (control.ApplyResult, error) {
	if r.Revision != 7 {
		return control.ApplyResult{}, &control.Error{
			Code: control.Conflict, Message: "applied by another", Details: []string{"a", "b"},
		}
	}
	return control.ApplyResult{Cluster: string(r.Files[r.Main]), Revision: 8}, nil
}

func (f fake) Diff(_ context.Context, from, to string, yield func(control.Change) bool) (control.Comparison, error) {
	whole := control.Comparison{From: from, To: to}
	for _, c := range f.diff {
		if !yield(c) {
			return whole, nil
		}
	}
	return whole, nil
}

func (f fake) Capture(
	ctx context.Context, r control.CaptureRequest, progress func(control.Progress),
) (control.CaptureResult, error) {
	progress(control.Progress{Image: r.Image, Files: 1})
	switch r.Image {
	case "compute":
		progress(control.Progress{Image: r.Image, Files: 2})
		return control.CaptureResult{Version: control.Version{Image: r.Image, Number: 2}}, nil
	case "slow":
		<-ctx.Done()
		return control.CaptureResult{}, ctx.Err()
	}
	return control.CaptureResult{}, control.Errorf(control.NotFound, "no such image")
}

// Mount serves a directory with one file through a real kernel.
func (f fake) Mount(_ context.Context, m control.Mount, fd int) (<-chan struct{}, error) {
	if m.What != "n01" {
		return nil, control.Errorf(control.NotFound, "no such node")
	}
	root := &fs.Inode{}
	s, err := fuse.NewServer(fs.NewNodeFS(root, &fs.Options{OnAdd: func(ctx context.Context) {
		child := root.NewPersistentInode(ctx, &fs.MemRegularFile{Data: []byte("n01\n")}, fs.StableAttr{})
		root.AddChild("hostname", child, true)
	}}), fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve()
	}()
	return done, nil
}

// serve runs a daemon with backend b on a data directory until the test or stop ends it.
func serve(t *testing.T, data string, b control.Backend) (c *Client, stop func()) {
	t.Helper()
	path, release, err := wire.SocketPath(data)
	testkit.Must(t, err)
	ln := testkit.Value(net.Listen("unix", path))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	calls := server.NewCalls(nil)
	calls.Open(b)
	go func() { ended <- server.Serve(ctx, ln, calls, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		release()
	}
	t.Cleanup(stop)
	return New(data), stop
}

func TestACallReturnsTheAnswerOfTheBackend(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	s := testkit.Value(c.Status(t.Context()))(t)
	if s.Server != "head" || s.Nodes != 1 {
		t.Errorf("status is %+v", s)
	}
	if s.Problems == nil || s.Stages == nil || s.Machines == nil {
		t.Error("an empty list was sent as null")
	}
}

func TestAnErrorKeepsItsCodeAndHint(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	_, err := c.Version(t.Context(), "compute@2")
	want := &control.Error{Code: control.NotFound, Message: "resolve compute@2: no such version", Hint: "dim image ls"}
	if diff := cmp.Diff(want, err); diff != "" {
		t.Error(diff)
	}
	_, err = c.Node(t.Context(), "n01")
	if diff := cmp.Diff(&control.Error{Code: control.Internal, Message: "disk on fire"}, err); diff != "" {
		t.Error(diff)
	}
	_, err = call[control.Status](t.Context(), c, "GET", "/v2/status", nil)
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.NotFound {
		t.Errorf("unknown call: %v", err)
	}
}

func TestApplyOverAnotherRevisionIsAConflict(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	d := control.Description{
		Main: "cluster.xml", Files: map[string][]byte{"cluster.xml": []byte("<cluster/>")}, Revision: 7,
	}
	got, err := c.Apply(t.Context(), control.ApplyRequest{Description: d})
	if err != nil || got.Revision != 8 || got.Cluster != "<cluster/>" {
		t.Errorf("apply: %+v, %v", got, err)
	}
	_, err = c.Apply(t.Context(), control.ApplyRequest{Description: control.Description{Revision: 6}})
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Code != control.Conflict || len(e.Details) != 2 {
		t.Errorf("apply over another's: %v", err)
	}
}

func TestDiffKeepsPathsThatAreNotUTF8(t *testing.T) {
	want := []control.Change{
		{Path: "etc/motd", Kind: control.Content, Type: "file", Size: 5, Was: 4},
		{Path: "bad\xff\nname", Kind: control.Added, Type: "file"},
	}
	for i := range 5000 {
		want = append(want, control.Change{Path: fmt.Sprintf("usr/%d", i), Kind: control.Removed, Type: "directory"})
	}
	c, _ := serve(t, t.TempDir(), fake{diff: want})
	var got []control.Change
	whole, err := c.Diff(t.Context(), "compute@1", "compute@2", func(ch control.Change) { got = append(got, ch) })
	testkit.Must(t, err)
	if whole.From != "compute@1" {
		t.Errorf("the summary is of %q", whole.From)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestACaptureReportsProgressThenItsResult(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	var seen []uint64
	note := func(p control.Progress) { seen = append(seen, p.Files) }
	done, err := c.Capture(t.Context(), control.CaptureRequest{Image: "compute"}, note)
	if err != nil || done.Version.Number != 2 {
		t.Errorf("capture: %+v, %v", done, err)
	}
	if diff := cmp.Diff([]uint64{1, 2}, seen); diff != "" {
		t.Error(diff)
	}
	_, err = c.Capture(t.Context(), control.CaptureRequest{Image: "other"}, func(control.Progress) {})
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.NotFound {
		t.Errorf("an error after the first line: %v", err)
	}
}

func TestACaptureEndsWithItsCallerOrTheDaemon(t *testing.T) {
	c, stop := serve(t, t.TempDir(), fake{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Capture(ctx, control.CaptureRequest{Image: "slow"}, func(control.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled capture: %v", err)
	}
	begun := make(chan struct{})
	ended := make(chan error)
	go func() {
		_, err := c.Capture(t.Context(), control.CaptureRequest{Image: "slow"}, func(control.Progress) { close(begun) })
		ended <- err
	}()
	<-begun
	stop()
	if err := <-ended; err == nil {
		t.Error("a capture survived its daemon")
	}
}

func TestWithoutADaemonCallsAreUnavailable(t *testing.T) {
	data := t.TempDir()
	_, err := New(data).Status(t.Context())
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Code != control.Unavailable || !strings.Contains(e.Message, data) || e.Hint == "" {
		t.Errorf("no socket: %v", err)
	}
	ln := testkit.Value(net.Listen("unix", filepath.Join(data, "dim.sock")))(t)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close() // as kill -9 leaves it
	if _, err = New(data).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no daemon runs") {
		t.Errorf("stale socket: %v", err)
	}
}

// The answers of other servers must not fill the memory.
func TestAnEndlessAnswerOfAnotherServerIsRefused(t *testing.T) {
	block := bytes.Repeat([]byte("x"), 1<<20)
	var sent atomic.Int64
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write([]byte(`{"node":"`))
		for ; err == nil && sent.Load() < 256<<20; sent.Add(int64(len(block))) {
			_, err = w.Write(block)
		}
	}))
	defer endless.Close()
	c := At(endless.Client(), endless.URL, "is07")
	if _, err := c.Node(t.Context(), "n01"); err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Errorf("one value: %v", err)
	}
	err := c.NodeChanges(t.Context(), "n01", func(control.Change) {})
	if err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Errorf("lines: %v", err)
	}
}

func TestADataDirectoryMayHaveALongPath(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	testkit.Must(t, os.Mkdir(data, 0o700))
	c, stop := serve(t, data, fake{})
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := os.Lstat(filepath.Join(data, "dim.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestAMountIsServedByTheDaemonAndEndsWithItsCaller(t *testing.T) {
	c, dir := mountable(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Mount(ctx, MountRequest{What: "n01", Dir: dir}, func(m control.Mount) {
		defer cancel()
		if m.What != "n01" || m.Dir != dir {
			t.Errorf("mounted %+v", m)
		}
		// Another process reads: a read of this process, which serves the mount, could wait for itself.
		b, err := exec.Command("cat", filepath.Join(dir, "hostname")).Output()
		if err != nil || string(b) != "n01\n" {
			t.Errorf("read through the mount: %q, %v", b, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if mounted(dir) {
		t.Error("still mounted")
	}
}

func TestAMountEndsWhenItIsUnmounted(t *testing.T) {
	c, dir := mountable(t)
	err := c.Mount(t.Context(), MountRequest{What: "n01", Dir: dir}, func(control.Mount) {
		if err := Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if err := Unmount(dir); err == nil {
		t.Error("a directory without a mount was unmounted")
	}
}

func TestAMountIsPrivateUnlessOthersAreAllowed(t *testing.T) {
	c, _ := mountable(t)
	dir := testkit.Value(os.MkdirTemp("", "dim-mount"))(t)
	t.Cleanup(func() { os.Remove(dir) })
	testkit.Must(t, os.Chmod(dir, 0o755))
	for _, allowed := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		err := c.Mount(ctx, MountRequest{What: "n01", Dir: dir, AllowOther: allowed}, func(control.Mount) {
			defer cancel()
			cat := exec.Command("cat", filepath.Join(dir, "hostname"))
			cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if b, err := cat.CombinedOutput(); (err == nil) != allowed {
				t.Errorf("others allowed %t: another user reads %q, %v", allowed, b, err)
			}
		})
		testkit.Must(t, err)
	}
}

func TestARefusedMountLeavesNothing(t *testing.T) {
	c, dir := mountable(t)
	err := c.Mount(t.Context(), MountRequest{What: "n99", Dir: dir}, func(control.Mount) { t.Error("ready") })
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.NotFound {
		t.Errorf("unknown node: %v", err)
	}
	if mounted(dir) {
		t.Error("still mounted")
	}
}

func mountable(t *testing.T) (*Client, string) {
	t.Helper()
	testkit.NeedRoot(t, "mounts")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	c, _ := serve(t, t.TempDir(), fake{})
	dir := filepath.Join(t.TempDir(), "a b") // mountinfo escapes the space
	testkit.Must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { unmountDetached(dir) })
	return c, dir
}
