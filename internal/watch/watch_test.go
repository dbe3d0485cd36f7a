package watch

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/testkit"
)

func TestReportedChangesAreComplete(t *testing.T) {
	for _, kind := range []string{"", "tmpfs", "ext4", "xfs"} {
		t.Run("on "+kind, func(t *testing.T) {
			l := newLab(t, newDisk(t, kind))
			k, f := l.openEvents()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			l.put("a1/left/out", "1")
			l.put("b/c/d", "2")
			l.put(always, "")
			if _, err := l.do(t.Context(), Changes{All: true}); err != nil {
				t.Fatal(err)
			}
			for round := range rounds() {
				for range 1 + r.IntN(4) {
					l.mutate(r)
					if r.IntN(3) == 0 { // directories are located at another time than that of the capture
						testkit.Must(t, f.begin())
						f.end()
					}
				}
				c := l.changesUntilNow(k, f)
				_, err := l.do(t.Context(), c)
				testkit.Must(t, err)
				l.compare(fmt.Sprintf("round %d: %+v", round, c))
				time.Sleep(12 * time.Millisecond) // a tick of the file system's clock
			}
		})
	}
}

func rounds() int {
	if os.Getenv("DIM_TEST_LONG") != "" {
		return 1000
	}
	return 15
}

func TestOnlyChangesInsideAreReported(t *testing.T) {
	l := newLab(t, newDisk(t, "tmpfs")) // no other process links files on it
	l.put("d/f", "1")
	l.put("a1/x", "2")
	out := filepath.Join(l.fs, "outside")
	testkit.Must(t, os.WriteFile(filepath.Join(out, "f"), nil, 0o644))
	k, f := l.openEvents()
	for _, c := range []struct {
		what string
		do   func() error
		want []string // directories
	}{
		{"nothing", func() error { return nil }, nil},
		{"a read", func() error { _, err := os.ReadFile(l.in("d/f")); return err }, nil},
		{"a write", func() error { return os.WriteFile(l.in("d/f"), []byte("2"), 0o644) }, []string{"d"}},
		{"a write outside", func() error { return os.WriteFile(filepath.Join(out, "f"), []byte("2"), 0o644) }, nil},
		{"a new file outside", func() error { return os.WriteFile(filepath.Join(out, "g"), []byte("2"), 0o644) }, nil},
		{"a write in what is left out", func() error { return os.WriteFile(l.in("a1/x"), []byte("3"), 0o644) }, nil},
		{"a mode of what is left out", func() error { return os.Chmod(l.in("a1"), 0o700) }, []string{""}},
		{"a mode", func() error { return os.Chmod(l.in("d"), 0o700) }, []string{"d"}},
		{"the root's mode", func() error { return os.Chmod(l.master, 0o700) }, []string{""}},
		{"a file moved out", func() error { return os.Rename(l.in("d/f"), filepath.Join(out, "m")) }, []string{"d"}},
		{"a file moved in", func() error { return os.Rename(filepath.Join(out, "m"), l.in("d/f")) }, []string{"d"}},
		{"a directory removed", func() error { return os.RemoveAll(l.in("d")) }, []string{"", "d"}},
		{"deep directories outside", func() error { return nest(out) }, nil},
		{"deep directories in what is left out", func() error { return nest(l.in("a1")) }, nil},
	} {
		testkit.Must(t, c.do())
		got := l.changesUntilNow(k, f)
		if !slices.Equal(got.Dirs, c.want) || len(got.Inodes) > 0 || got.All {
			t.Errorf("%s: %+v, want %q", c.what, got, c.want)
		}
	}
}

// nest makes directories in dir whose paths are longer than the kernel reports.
func nest(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	name := strings.Repeat("d", 250)
	for range 20 {
		if err == nil {
			err = unix.Mkdirat(fd, name, 0o755)
		}
		below := -1
		if err == nil {
			below, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		closeOpen(fd)
		fd = below
	}
	closeOpen(fd)
	return err
}

func TestAWriteByANameOutsideIsReported(t *testing.T) {
	l := newLab(t, newDisk(t, "tmpfs")) // no other process links files on it
	l.put("d/f", "1")
	k, f := l.openEvents()
	out := filepath.Join(l.fs, "outside", "link")
	testkit.Must(t, os.Link(l.in("d/f"), out))
	_, err := l.do(t.Context(), Changes{All: true})
	testkit.Must(t, err)
	l.changesUntilNow(k, f)
	testkit.Must(t, os.WriteFile(out, []byte("2, from outside"), 0o644))
	c := l.changesUntilNow(k, f)
	if len(c.Inodes) != 1 {
		t.Fatalf("%+v, want one inode", c)
	}
	_, err = l.do(t.Context(), c)
	testkit.Must(t, err)
	l.compare("a write by a name outside")
}

// running is a Watcher that captures.
type running struct {
	*lab
	w    *Watcher
	mu   sync.Mutex
	seen []Changes
}

func (l *lab) run(queue uint) *running {
	l.t.Helper()
	r := &running{lab: l}
	r.w = New(Options{Dir: l.master, Debounce: 10 * time.Millisecond, Skip: l.skip, Log: slog.New(slog.DiscardHandler),
		Do: func(ctx context.Context, c Changes) (bool, error) {
			r.mu.Lock()
			r.seen = append(r.seen, c)
			r.mu.Unlock()
			return l.do(ctx, c)
		}})
	r.w.queue = queue
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.w.Run(ctx) }()
	l.t.Cleanup(func() { cancel(); <-done })
	return r
}

// catchesUp waits until the newest version equals the master.
func (r *running) catchesUp(what string) {
	r.t.Helper()
	var got image.Version
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var err error
		if got, err = r.store.Resolve(image.Ref{Image: "followed"}); err == nil && got.Digest == r.plain().Digest {
			return
		}
	}
	r.compare(what)
}

// walked counts the calls for the whole directory.
func (r *running) walked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.seen {
		if c.All {
			n++
		}
	}
	return n
}

// needEvents skips the test if the kernel does not report events.
func (r *running) needEvents() {
	r.t.Helper()
	if s := r.w.State(); s.Polling != "" {
		r.t.Skipf("no events here: %s", s.Polling)
	}
}

func TestAWatcherFollows(t *testing.T) {
	l := newLab(t, newDisk(t, "tmpfs"))
	l.put("d/f", "1")
	r := l.run(unix.FAN_UNLIMITED_QUEUE)
	r.catchesUp("the start")
	r.needEvents()
	walked := r.walked()
	for i := range 5 {
		l.put("d/f", fmt.Sprint("edit ", i))
		r.catchesUp("an edit")
	}
	if n := r.walked(); n != walked {
		t.Errorf("the whole directory was read %d times for edits of one file", n-walked)
	}
	testkit.Must(t, os.Rename(l.master, l.master+".old"), os.Mkdir(l.master, 0o755))
	l.put("d/f", "another master")
	r.catchesUp("another master at the same path")
	l.put("d/f", "an edit of it")
	r.catchesUp("an edit of the other master")
}

func TestARemountedFileSystemIsWatched(t *testing.T) {
	d := disktest.New(t, "mkfs.ext4", "-q")
	l := newLab(t, d.Dir)
	l.put("d/f", "1")
	r := l.run(unix.FAN_UNLIMITED_QUEUE)
	r.catchesUp("the start")
	r.needEvents()
	// The watcher opens it for moments.
	testkit.Eventually(t, "it can be unmounted", func() bool { return d.Unmount() == nil })
	d.Mount()
	l.put("d/f", "2")
	r.catchesUp("an edit after it was mounted anew")
	l.put("d/f", "3")
	r.catchesUp("another edit")
}

func TestADirectoryWithoutEventsIsPolled(t *testing.T) {
	l := newLab(t, newDisk(t, ""))
	over := filepath.Join(l.fs, "over")
	for _, dir := range []string{"lower", "upper", "work", "over"} {
		testkit.Must(t, os.Mkdir(filepath.Join(l.fs, dir), 0o755))
	}
	if err := unix.Mount("overlay", over, "overlay", 0,
		fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", l.fs, l.fs, l.fs)); err != nil {
		t.Skipf("mount an overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(over, unix.MNT_DETACH) })
	l = newLab(t, over)
	l.put("d/f", "1")
	r := l.run(unix.FAN_UNLIMITED_QUEUE)
	r.catchesUp("the start")
	if s := r.w.State(); s.Polling == "" {
		t.Skip("the kernel reports events of an overlay")
	}
	l.put("d/f", "2")
	r.catchesUp("an edit")
}

func TestLostEventsAreNoticed(t *testing.T) {
	l := newLab(t, newDisk(t, "tmpfs"))
	l.put("d/f", "1")
	k, err := openEvents(l.master, 0)
	if err != nil {
		t.Skip(err)
	}
	defer k.close()
	limit := 16384
	if b, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events"); err == nil {
		_, _ = fmt.Sscan(string(b), &limit)
	}
	if limit > 1<<17 {
		t.Skipf("the queue takes %d events", limit)
	}
	for i := range limit + 10 {
		testkit.Must(t, os.Symlink("x", l.in(fmt.Sprintf("d/%06d", i))))
	}
	w := New(Options{Dir: l.master, Skip: l.skip, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.readEvents(ctx, k) }()
	testkit.Eventually(t, "lost events are noticed", func() bool { return w.State().Lost > 0 })
	cancel()
	<-done
	if c := w.pending.drain(); !c.All {
		t.Errorf("%+v, want all", c)
	}
}

func FuzzNextEvent(f *testing.F) {
	seed := func(name string) []byte {
		info := append([]byte{unix.FAN_EVENT_INFO_TYPE_DFID_NAME, 0, 36, 0}, make([]byte, 8)...)
		info = append(info, 8, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
		info = append(append(info, name...), make([]byte, 8-len(name))...)
		head := []byte{60, 0, 0, 0, unix.FANOTIFY_METADATA_VERSION, 0, 24, 0, 2, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255,
			255, 1, 0, 0, 0}
		return append(head, info...)
	}
	e, rest, err := nextEvent(seed("file"))
	if err != nil || e.name != "file" || len(e.dir) != 12 || !e.is(unix.FAN_MODIFY) || len(rest) > 0 {
		f.Fatalf("%+v, %v", e, err)
	}
	f.Add(seed("."))
	f.Add(seed("")[:30])
	f.Fuzz(func(_ *testing.T, b []byte) {
		for len(b) > 0 {
			e, rest, err := nextEvent(b)
			if err != nil {
				return
			}
			if e.dir != "" {
				_ = e.dir.file()
			}
			b = rest
		}
	})
}
