package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fake is a daemon with one image and one node.
type fake struct {
	Backend // calls that no test makes
	diff    []Change
}

func (f fake) Status(context.Context) (Status, error) {
	return Status{Server: "head", Nodes: 1, Images: []Image{{Name: "compute"}}}, nil
}

func (f fake) Version(_ context.Context, ref string) (Version, error) {
	if ref != "compute@1" {
		return Version{}, fmt.Errorf("resolve %s: %w", ref, Errorf(NotFound, "no such version").WithHint("dim image ls"))
	}
	return Version{Image: "compute", Number: 1}, nil
}

func (f fake) Node(context.Context, string) (Node, error) { return Node{}, errors.New("disk on fire") }

func (f fake) Apply(_ context.Context, d Description) (Description, error) {
	if d.Revision != 7 {
		return Description{}, &Error{Code: Conflict, Message: "applied by another", Details: []string{"a", "b"}}
	}
	d.Revision = 8
	return d, nil
}

func (f fake) Diff(_ context.Context, from, to string, yield func(Change) bool) (Comparison, error) {
	whole := Comparison{From: from, To: to}
	for _, c := range f.diff {
		if !yield(c) {
			return whole, nil
		}
	}
	return whole, nil
}

func (f fake) Capture(ctx context.Context, r CaptureRequest, progress func(Progress)) (Captured, error) {
	progress(Progress{Image: r.Image, Files: 1})
	switch r.Image {
	case "compute":
		progress(Progress{Image: r.Image, Files: 2})
		return Captured{Version: Version{Image: r.Image, Number: 2}}, nil
	case "slow":
		<-ctx.Done()
		return Captured{}, ctx.Err()
	}
	return Captured{}, Errorf(NotFound, "no such image")
}

// Mount serves a directory with one file through a real kernel.
func (f fake) Mount(_ context.Context, m Mount, fd int) (<-chan struct{}, error) {
	if m.What != "n01" {
		return nil, Errorf(NotFound, "no such node")
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
func serve(t *testing.T, data string, b Backend) (c *Client, stop func()) {
	t.Helper()
	path, release, err := SocketPath(data)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, b, slog.New(slog.DiscardHandler)) }()
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
	return NewClient(data), stop
}

func TestACallAnswersWhatTheBackendSays(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Server != "head" || s.Nodes != 1 {
		t.Errorf("status is %+v", s)
	}
	if s.Problems == nil || s.Stages == nil || s.Machines == nil {
		t.Error("an empty list came as null")
	}
}

func TestAnErrorKeepsItsCodeAndHint(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	_, err := c.Version(t.Context(), "compute@2")
	want := &Error{Code: NotFound, Message: "resolve compute@2: no such version", Hint: "dim image ls"}
	if diff := cmp.Diff(want, err); diff != "" {
		t.Error(diff)
	}
	_, err = c.Node(t.Context(), "n01")
	if diff := cmp.Diff(&Error{Code: Internal, Message: "disk on fire"}, err); diff != "" {
		t.Error(diff)
	}
	_, err = call[Status](t.Context(), c, "GET", "/v2/status", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != NotFound {
		t.Errorf("unknown call: %v", err)
	}
}

func TestApplyOverAnotherRevisionIsAConflict(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	d := Description{Main: "cluster.xml", Files: map[string][]byte{"cluster.xml": []byte("<cluster/>\xff")}, Revision: 7}
	got, err := c.Apply(t.Context(), d)
	if err != nil || got.Revision != 8 || string(got.Files["cluster.xml"]) != "<cluster/>\xff" {
		t.Errorf("apply: %+v, %v", got, err)
	}
	_, err = c.Apply(t.Context(), Description{Revision: 6})
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != Conflict || len(e.Details) != 2 {
		t.Errorf("apply over another's: %v", err)
	}
}

func TestNamesThatAreNotTextComeThroughDiff(t *testing.T) {
	want := []Change{
		{Path: "etc/motd", Kind: Content, Type: "file", Size: 5, Was: 4},
		{Path: "bad\xff\nname", Kind: Added, Type: "file"},
	}
	for i := range 5000 {
		want = append(want, Change{Path: fmt.Sprintf("usr/%d", i), Kind: Removed, Type: "directory"})
	}
	c, _ := serve(t, t.TempDir(), fake{diff: want})
	var got []Change
	whole, err := c.Diff(t.Context(), "compute@1", "compute@2", func(ch Change) { got = append(got, ch) })
	if err != nil || whole.From != "compute@1" {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestACaptureReportsProgressThenItsResult(t *testing.T) {
	c, _ := serve(t, t.TempDir(), fake{})
	var seen []uint64
	done, err := c.Capture(t.Context(), CaptureRequest{Image: "compute"}, func(p Progress) { seen = append(seen, p.Files) })
	if err != nil || done.Version.Number != 2 {
		t.Errorf("capture: %+v, %v", done, err)
	}
	if diff := cmp.Diff([]uint64{1, 2}, seen); diff != "" {
		t.Error(diff)
	}
	_, err = c.Capture(t.Context(), CaptureRequest{Image: "other"}, func(Progress) {})
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != NotFound {
		t.Errorf("an error after the first line: %v", err)
	}
}

func TestACaptureEndsWithItsCallerOrTheDaemon(t *testing.T) {
	c, stop := serve(t, t.TempDir(), fake{})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Capture(ctx, CaptureRequest{Image: "slow"}, func(Progress) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled capture: %v", err)
	}
	begun := make(chan struct{})
	ended := make(chan error)
	go func() {
		_, err := c.Capture(t.Context(), CaptureRequest{Image: "slow"}, func(Progress) { close(begun) })
		ended <- err
	}()
	<-begun
	stop()
	if err := <-ended; err == nil {
		t.Error("a capture survived its daemon")
	}
}

func TestWithoutADaemonThePersonIsToldSo(t *testing.T) {
	data := t.TempDir()
	_, err := NewClient(data).Status(t.Context())
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != Unavailable || !strings.Contains(e.Message, data) || e.Hint == "" {
		t.Errorf("no socket: %v", err)
	}
	ln, err := net.Listen("unix", filepath.Join(data, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close() // as kill -9 leaves it
	if _, err = NewClient(data).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no daemon runs") {
		t.Errorf("stale socket: %v", err)
	}
}

func TestADataDirectoryMayHaveALongPath(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	c, stop := serve(t, data, fake{})
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := os.Lstat(filepath.Join(data, SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: becomes another user")
	}
	data := t.TempDir()
	for _, dir := range []string{filepath.Dir(data), data} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, data, fake{})
	path := filepath.Join(data, SocketName)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread that became another user dies with this goroutine
		answer <- talkAs(65534, path)
	}()
	if got := <-answer; !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, `"denied"`) {
		t.Errorf("another user got %q", got)
	}
}

// talkAs makes one request as another user, which this thread becomes.
func talkAs(uid uintptr, path string) string {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return errno.Error()
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/status HTTP/1.0\r\n\r\n"); err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(c)
	return fmt.Sprint(string(b), err)
}

func TestAMountIsServedByTheDaemonAndEndsWithItsCaller(t *testing.T) {
	c, dir := mountable(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Mount(ctx, "n01", dir, func(m Mount) {
		defer cancel()
		if m.What != "n01" || m.Dir != dir {
			t.Errorf("mounted %+v", m)
		}
		// Another process reads: Go's own poller would wait for the answer of this one while it keeps it from answering.
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

func TestAMountEndsWhenAnotherUnmountsIt(t *testing.T) {
	c, dir := mountable(t)
	err := c.Mount(t.Context(), "n01", dir, func(Mount) {
		if err := Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if err := Unmount(dir); err == nil {
		t.Error("what is not mounted was unmounted")
	}
}

func TestARefusedMountLeavesNothing(t *testing.T) {
	c, dir := mountable(t)
	err := c.Mount(t.Context(), "n99", dir, func(Mount) { t.Error("ready") })
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != NotFound {
		t.Errorf("unknown node: %v", err)
	}
	if mounted(dir) {
		t.Error("still mounted")
	}
}

func mountable(t *testing.T) (*Client, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	c, _ := serve(t, t.TempDir(), fake{})
	dir := filepath.Join(t.TempDir(), "a b") // mountinfo escapes the space
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountDetached(dir) })
	return c, dir
}

func TestWithoutNullsLeavesTheOriginalAlone(t *testing.T) {
	in := []Image{{Newest: &Version{}}}
	out := withoutNulls(in).([]Image)
	if out[0].Newest.Tags == nil || in[0].Newest.Tags != nil {
		t.Errorf("out %v, in %v", out[0].Newest.Tags, in[0].Newest.Tags)
	}
}
