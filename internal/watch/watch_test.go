package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/image"
	"dim/internal/store"
)

// lab is a master on a file system with room beside it, a store elsewhere, and what follows the master.
type lab struct {
	t       *testing.T
	fs      string // directory of the file system
	master  string
	store   *store.Store
	follow  *capture.Follower
	exclude image.Patterns
}

func newLab(t *testing.T, fs string) *lab {
	t.Helper()
	l := &lab{t: t, fs: fs, master: filepath.Join(fs, "some where", "master")}
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	must(t, err, os.MkdirAll(l.master, 0o755), os.Mkdir(filepath.Join(fs, "outside"), 0o755))
	t.Cleanup(func() { s.Close() })
	p, err := image.ParsePattern("/a1/*")
	must(t, err)
	l.store, l.exclude = s, image.Patterns{p}
	l.follow = capture.NewFollower(s, l.options("followed"))
	return l
}

func (l *lab) options(name string) capture.Options {
	return capture.Options{Image: name, Dir: l.master, Exclude: l.exclude, Now: func() time.Time { return time.Now().Add(10 * time.Second) }}
}

func (l *lab) in(path string) string { return filepath.Join(l.master, path) }

func (l *lab) put(path, text string) {
	l.t.Helper()
	must(l.t, os.MkdirAll(filepath.Dir(l.in(path)), 0o755), os.WriteFile(l.in(path), []byte(text), 0o644))
}

// skip is what a capture of the lab's master leaves out.
func (l *lab) skip(dir string) bool { return dir == "a1" || l.exclude.Cover(dir) }

// plain captures everything, with nothing noted.
func (l *lab) plain() image.Version {
	l.t.Helper()
	r, err := capture.Run(context.Background(), l.store, l.options("plain"))
	must(l.t, err)
	return r.Version
}

func (l *lab) do(ctx context.Context, c Changes) (bool, error) {
	var touched *capture.Touched
	if !c.All {
		touched = &capture.Touched{Dirs: c.Dirs, Trees: c.Trees, Inodes: c.Inodes}
	}
	r, err := l.follow.Capture(ctx, touched)
	return r.Changed, err
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// disk is a file system of a test.
type disk struct {
	dir   string
	mount []string // what to tell mount(8)
}

// newDisk makes a file system of a kind and mounts it; "" is that of the temporary files.
func newDisk(t *testing.T, kind string) *disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for the events of a file system")
	}
	d := &disk{dir: t.TempDir()}
	if kind == "" {
		return d
	}
	d.mount = []string{"-t", kind, kind, d.dir}
	if kind != "tmpfs" {
		file := filepath.Join(t.TempDir(), "disk")
		must(t, os.WriteFile(file, nil, 0o600), os.Truncate(file, 400<<20))
		if out, err := exec.Command("mkfs."+kind, "-q", file).CombinedOutput(); err != nil {
			t.Skipf("make a file system: %v, %s", err, out)
		}
		d.mount = []string{"-o", "loop", "-t", kind, file, d.dir}
	}
	if err := d.attach(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

func (d *disk) attach() error {
	out, err := exec.Command("mount", d.mount...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount %v: %w, %s", d.mount, err, out)
	}
	return nil
}

// hearing opens the events of the lab's master.
func (l *lab) hearing() (*kernel, *finder) {
	l.t.Helper()
	k, err := openKernel(l.master, unix.FAN_UNLIMITED_QUEUE)
	if _, not := errors.AsType[*UnsupportedError](err); not {
		l.t.Skipf("no events here: %v", err)
	}
	must(l.t, err)
	l.t.Cleanup(k.close)
	return k, newFinder(l.master, l.skip)
}

// heard returns what was told until now: until an event comes of a file that is made now, outside.
func (l *lab) heard(k *kernel, f *finder) Changes {
	l.t.Helper()
	mark, err := os.CreateTemp(filepath.Join(l.fs, "outside"), "mark")
	must(l.t, err, mark.Close())
	defer os.Remove(mark.Name())
	p := newPending(time.Now)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		b, err := k.read(end)
		must(l.t, err, f.begin())
		for marked := false; len(b) > 0; {
			var e event
			e, b, err = nextEvent(b)
			must(l.t, err, f.sort(&e, &p))
			if marked = marked || e.name == filepath.Base(mark.Name()); marked && len(b) == 0 {
				f.end()
				return p.take()
			}
		}
		f.end()
	}
	l.t.Fatal("not within a minute: the event of a file")
	return Changes{}
}

// mutate does something random in the master or beside it.
func (l *lab) mutate(r *rand.Rand) {
	var dirs, files []string
	must(l.t, filepath.WalkDir(l.fs, func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil || len(path) <= len(l.fs) || path == filepath.Dir(l.master) || e.Name() == "lost+found":
		case e.IsDir():
			dirs = append(dirs, path)
		default:
			files = append(files, path)
		}
		return err
	}))
	dir := dirs[r.IntN(len(dirs))]
	fresh := filepath.Join(dir, fmt.Sprintf("%c%d", 'a'+r.IntN(3), r.IntN(12)))
	file := fresh
	if len(files) > 0 {
		file = files[r.IntN(len(files))]
	}
	movable := dir != l.master && filepath.Dir(dir) != l.fs
	// What cannot be done, such as to rename a directory into itself, is not done.
	switch r.IntN(12) {
	case 0, 1:
		_ = os.WriteFile(fresh, []byte(fmt.Sprint(r.IntN(10))), 0o644)
	case 2:
		_ = os.WriteFile(file, []byte(fmt.Sprint(r.IntN(10))), 0o644)
	case 3:
		_ = os.Mkdir(fresh, 0o755)
	case 4:
		_ = os.Link(file, fresh)
	case 5:
		_ = os.Remove(file)
	case 6:
		_ = os.Rename(file, fresh)
	case 7:
		if movable {
			_ = os.Rename(dir, fresh)
		}
	case 8:
		if movable && r.IntN(4) == 0 {
			_ = os.RemoveAll(dir)
		}
	case 9:
		_ = os.Chmod(dir, os.FileMode(0o700+r.IntN(64)))
		_ = os.Chmod(file, os.FileMode(0o600+r.IntN(64)))
	case 10:
		_ = unix.Setxattr(dir, "trusted.test", []byte{byte('a' + r.IntN(3))}, 0)
	case 11:
		if other := dirs[r.IntN(len(dirs))]; movable && other != l.master && filepath.Dir(other) != l.fs {
			_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		}
	}
}

func TestWhatTheKernelTellsIsEnough(t *testing.T) {
	for _, kind := range []string{"", "tmpfs", "ext4", "xfs"} {
		t.Run("on "+kind, func(t *testing.T) {
			l := newLab(t, newDisk(t, kind).dir)
			k, f := l.hearing()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			l.put("a1/left/out", "1")
			l.put("b/c/d", "2")
			if _, err := l.do(t.Context(), Changes{All: true}); err != nil {
				t.Fatal(err)
			}
			for round := range rounds() {
				for range 1 + r.IntN(4) {
					l.mutate(r)
					if r.IntN(3) == 0 { // found at another time than that of the capture
						must(t, f.begin())
						f.end()
					}
				}
				c := l.heard(k, f)
				_, err := l.do(t.Context(), c)
				must(t, err)
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

// compare compares the newest version with a capture of everything.
func (l *lab) compare(what string) {
	l.t.Helper()
	got, err := l.store.Resolve(image.Ref{Image: "followed"})
	must(l.t, err)
	want := l.plain()
	if got.Digest == want.Digest && got.Files == want.Files && got.Bytes == want.Bytes {
		return
	}
	l.t.Errorf("%s: %d names and %d bytes, want %d and %d", what, got.Files, got.Bytes, want.Files, want.Bytes)
	d := image.Differ{Load: l.store.Tree}
	must(l.t, d.Diff(context.Background(), &want.Root, &got.Root, func(c image.Change) error {
		l.t.Errorf("%q: want %+v, got %+v", c.Path, c.Old, c.New)
		return nil
	}))
	l.t.FailNow()
}

func TestOnlyWhatHappensInsideIsTold(t *testing.T) {
	l := newLab(t, newDisk(t, "").dir)
	l.put("d/f", "1")
	l.put("a1/x", "2")
	out := filepath.Join(l.fs, "outside")
	must(t, os.WriteFile(filepath.Join(out, "f"), nil, 0o644))
	k, f := l.hearing()
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
	} {
		must(t, c.do())
		got := l.heard(k, f)
		if !slices.Equal(got.Dirs, c.want) || len(got.Inodes) > 0 || got.All {
			t.Errorf("%s: %+v, want %q", c.what, got, c.want)
		}
	}
}

func TestAWriteByANameOutsideIsTold(t *testing.T) {
	l := newLab(t, newDisk(t, "").dir)
	l.put("d/f", "1")
	k, f := l.hearing()
	out := filepath.Join(l.fs, "outside", "link")
	must(t, os.Link(l.in("d/f"), out))
	_, err := l.do(t.Context(), Changes{All: true})
	must(t, err)
	l.heard(k, f)
	must(t, os.WriteFile(out, []byte("2, from outside"), 0o644))
	c := l.heard(k, f)
	if len(c.Inodes) != 1 {
		t.Fatalf("%+v, want one inode", c)
	}
	_, err = l.do(t.Context(), c)
	must(t, err)
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
	r.w = New(Options{Dir: l.master, Debounce: 10 * time.Millisecond, Skip: l.skip, Log: slog.New(slog.DiscardHandler), Do: func(ctx context.Context, c Changes) (bool, error) {
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

// catchesUp waits until the newest version is what is in the master.
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

// walked counts how often everything was looked at.
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

// told skips a test where the kernel does not tell.
func (r *running) told() {
	r.t.Helper()
	if s := r.w.State(); s.Polling != "" {
		r.t.Skipf("no events here: %s", s.Polling)
	}
}

func TestAWatcherFollows(t *testing.T) {
	l := newLab(t, newDisk(t, "").dir)
	l.put("d/f", "1")
	r := l.run(unix.FAN_UNLIMITED_QUEUE)
	r.catchesUp("the start")
	r.told()
	walked := r.walked()
	for i := range 5 {
		l.put("d/f", fmt.Sprint("edit ", i))
		r.catchesUp("an edit")
	}
	if n := r.walked(); n != walked {
		t.Errorf("%d looks at everything for edits of one file", n-walked)
	}
	must(t, os.Rename(l.master, l.master+".old"), os.Mkdir(l.master, 0o755))
	l.put("d/f", "another master")
	r.catchesUp("another master at the same place")
	l.put("d/f", "an edit of it")
	r.catchesUp("an edit of the other master")
}

func TestAFileSystemThatIsMountedAnewIsFollowed(t *testing.T) {
	d := newDisk(t, "ext4")
	l := newLab(t, d.dir)
	l.put("d/f", "1")
	r := l.run(unix.FAN_UNLIMITED_QUEUE)
	r.catchesUp("the start")
	r.told()
	eventually(t, "it can be unmounted", func() bool { return unix.Unmount(d.dir, 0) == nil }) // now and then somebody has it open
	must(t, d.attach())
	l.put("d/f", "2")
	r.catchesUp("an edit after it was mounted anew")
	l.put("d/f", "3")
	r.catchesUp("another edit")
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if check() {
			return
		}
	}
	t.Fatalf("not within a minute: %s", what)
}

func TestWhereTheKernelCannotTellEverythingIsLookedAt(t *testing.T) {
	l := newLab(t, newDisk(t, "").dir)
	over := filepath.Join(l.fs, "over")
	for _, dir := range []string{"lower", "upper", "work", "over"} {
		must(t, os.Mkdir(filepath.Join(l.fs, dir), 0o755))
	}
	if err := unix.Mount("overlay", over, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", l.fs, l.fs, l.fs)); err != nil {
		t.Skipf("mount an overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(over, unix.MNT_DETACH) })
	l = newLab(t, over)
	l.put("d/f", "1")
	r := l.run(unix.FAN_UNLIMITED_QUEUE)
	r.catchesUp("the start")
	if s := r.w.State(); s.Polling == "" {
		t.Skip("events of an overlay can be had here")
	}
	l.put("d/f", "2")
	r.catchesUp("an edit")
}

func TestLostEventsAreNoticed(t *testing.T) {
	l := newLab(t, newDisk(t, "tmpfs").dir)
	l.put("d/f", "1")
	k, err := openKernel(l.master, 0)
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
		must(t, os.Symlink("x", l.in(fmt.Sprintf("d/%06d", i))))
	}
	w := New(Options{Dir: l.master, Skip: l.skip, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.hear(ctx, k) }()
	eventually(t, "lost events are noticed", func() bool { return w.State().Lost > 0 })
	cancel()
	<-done
	if c := w.pending.take(); !c.All {
		t.Errorf("%+v, want all", c)
	}
}

func TestWhenChangesAreDue(t *testing.T) {
	now := time.Unix(1000, 0)
	start := now
	at := func(ms int) { now = start.Add(time.Duration(ms) * time.Millisecond) }
	const quiet = 200 * time.Millisecond
	for _, c := range []struct {
		what  string
		tell  func(p *pending)
		after int // milliseconds after the start; -1: never
	}{
		{"nothing", func(*pending) {}, -1},
		{"one change", func(p *pending) { p.add(Changes{Dirs: []string{"a"}}) }, 200},
		{"a second one", func(p *pending) {
			p.add(Changes{Dirs: []string{"a"}})
			at(150)
			p.add(Changes{Dirs: []string{"b"}})
		}, 350},
		{"changes that do not end", func(p *pending) {
			for i := range 12 {
				at(i * 100)
				p.add(Changes{Dirs: []string{"a"}})
			}
		}, 1000},
		{"a file that is being written", func(p *pending) {
			for i := range 200 {
				at(i * 100)
				p.add(Changes{Dirs: []string{"a"}})
				p.write(&event{mask: unix.FAN_MODIFY, dir: "h", name: "f"})
			}
		}, 10000},
		{"a file that was written", func(p *pending) {
			p.add(Changes{Dirs: []string{"a"}})
			p.write(&event{mask: unix.FAN_MODIFY, dir: "h", name: "f"})
			p.write(&event{mask: unix.FAN_CLOSE_WRITE, dir: "h", name: "f"})
			at(1100)
			p.add(Changes{Dirs: []string{"a"}})
		}, 1000},
		{"everything", func(p *pending) { p.add(Changes{All: true}) }, 0},
		{"more than is kept", func(p *pending) {
			for i := range maxPending + 2 {
				p.add(Changes{Inodes: []uint64{uint64(i)}})
			}
		}, 0},
	} {
		at(0)
		p := newPending(func() time.Time { return now })
		c.tell(&p)
		due, any := p.due(quiet)
		if any != (c.after >= 0) || any && due.Sub(start) != time.Duration(c.after)*time.Millisecond {
			t.Errorf("%s: due %v, after %v", c.what, any, due.Sub(start))
		}
		if !p.take().Since.Equal(start) && any {
			t.Errorf("%s: the first change is forgotten", c.what)
		}
		if _, any := p.due(quiet); any {
			t.Errorf("%s: due again after it was taken", c.what)
		}
	}
}

func TestVersionsAreNotMadeWithoutEnd(t *testing.T) {
	now := time.Unix(1000, 0)
	var p pace
	made := 0
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Second) {
		if !p.next().After(now) {
			made++
			p.spend(now)
		}
	}
	if want := paceBurst + int(24*time.Hour/paceEvery); made < want-2 || made > want+2 {
		t.Errorf("%d versions in a day, want about %d", made, want)
	}
}

func FuzzNextEvent(f *testing.F) {
	seed := func(name string) []byte {
		info := append([]byte{unix.FAN_EVENT_INFO_TYPE_DFID_NAME, 0, 36, 0}, make([]byte, 8)...)
		info = append(info, 8, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
		info = append(append(info, name...), make([]byte, 8-len(name))...)
		head := []byte{60, 0, 0, 0, unix.FANOTIFY_METADATA_VERSION, 0, 24, 0, 2, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0}
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
