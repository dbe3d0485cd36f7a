package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/capture/remote"
	"dim/internal/disktest"
	"dim/internal/image/pathmatch"
	"dim/internal/testkit"
)

// mount mounts a tmpfs at a path of the master and returns a function that unmounts it. It skips the test if mounts are
// not allowed.
func (l *lab) mount(name string) (unmount func()) {
	l.t.Helper()
	testkit.Must(l.t, os.MkdirAll(l.path(name), 0o755))
	if err := unix.Mount("tmpfs", l.path(name), "tmpfs", 0, "size=16m"); err != nil {
		l.t.Skipf("mount: %v", err)
	}
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			testkit.Must(l.t, unix.Unmount(l.path(name), unix.MNT_DETACH))
		}
	}
	l.t.Cleanup(unmount)
	return unmount
}

// texts returns the problems of r.
func texts(r Result) (list []string) {
	for _, p := range r.Problems {
		list = append(list, p.String())
	}
	return list
}

// held captures and returns what holds it, "PATH: KIND".
func held(t *testing.T, capture func() (Result, error)) []string {
	t.Helper()
	r, err := capture()
	e, ok := errors.AsType[*HeldError](err)
	if !ok {
		t.Fatalf("changed %v, error %v; want a HeldError", r.Changed, err)
	}
	var list []string
	for _, p := range e.Problems {
		list = append(list, fmt.Sprintf("%s: %s", p.Path, p.Kind))
	}
	return list
}

// ways returns the ways to capture the master of l: each by itself, and a watch that reads only what was touched.
func (l *lab) ways() map[string]func(accept ...string) (Result, error) {
	follower := *l
	follower.o.Image, follower.o.CacheDir = "followed", l.t.TempDir()
	f := NewFollower(l.store, follower.o)
	remote := l.overSSH()
	run := func(o Options) func(...string) (Result, error) {
		return func(accept ...string) (Result, error) {
			o.Accept = accept
			return Run(context.Background(), l.store, o)
		}
	}
	return map[string]func(...string) (Result, error){
		"dir": run(l.o),
		"ssh": run(remote.o),
		"watch": func(accept ...string) (Result, error) {
			f.o.Accept = accept
			return f.Capture(context.Background(), nil)
		},
		"watch that reads little": func(accept ...string) (Result, error) {
			f.o.Accept = accept
			return f.Capture(context.Background(), &Touched{Dirs: []string{"", "boot", "var"}})
		},
	}
}

func TestAMountOverADirectoryTakesNothingFromNodes(t *testing.T) {
	testkit.NeedRoot(t, "mounts")
	for _, name := range []string{"dir", "ssh", "watch", "watch that reads little"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.write("boot/vmlinuz-1", "k")
			l.write("var/lib/db", "d")
			capture := l.ways()[name]
			first, err := capture()
			testkit.Must(t, err)
			l.mount("boot")
			unmountVar := l.mount("var")
			got := held(t, func() (Result, error) { return capture() })
			if want := []string{"boot: is a mount point now", "var: is a mount point now"}; !slices.Equal(got, want) {
				t.Errorf("held: %q, want %q", got, want)
			}
			got = held(t, func() (Result, error) { return capture("/boot/") })
			if want := []string{"var: is a mount point now"}; !slices.Equal(got, want) {
				t.Errorf("held with /boot accepted: %q, want %q", got, want)
			}
			unmountVar()
			r, err := capture("boot")
			testkit.Must(t, err)
			if !r.Changed || r.Version.Parent != first.Version.Number || r.Removed != 1 {
				t.Errorf("after a person's word: %+v", r)
			}
			if got := texts(r); !slices.Contains(got, "/boot: is left out: tmpfs is mounted there") {
				t.Errorf("problems: %q", got)
			}
			r, err = capture()
			testkit.Must(t, err)
			if r.Changed || len(r.Problems) != 1 {
				t.Errorf("the next capture: changed %v, problems %v", r.Changed, r.Problems)
			}
		})
	}
}

func TestAnUnmountedDirectoryGivesNodesNothing(t *testing.T) {
	testkit.NeedRoot(t, "mounts")
	for _, name := range []string{"dir", "ssh", "watch", "watch that reads little"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.write("etc/passwd", "root")
			l.write("boot/vmlinuz-0", "below the mount")
			unmount := l.mount("boot")
			capture := l.ways()[name]
			_, err := capture()
			testkit.Must(t, err)
			unmount()
			got := held(t, func() (Result, error) { return capture() })
			if want := []string{"boot: is no mount point any more"}; !slices.Equal(got, want) {
				t.Errorf("held: %q, want %q", got, want)
			}
			r, err := capture("/boot")
			testkit.Must(t, err)
			if r.Added != 1 {
				t.Errorf("after a person's word: %+v", r)
			}
			l.write("boot/vmlinuz-1", "new")
			if _, err := capture(); err != nil {
				t.Errorf("the next capture: %v", err)
			}
		})
	}
}

func TestALargeDirectoryThatIsEmptyNowHoldsTheCapture(t *testing.T) {
	l := newLab(t)
	for i := range largeNames {
		for _, dir := range []string{"srv", "opt/site/build/deep", "var/cache/x", "excluded", "tmp"} {
			l.write(fmt.Sprintf("%s/%d", dir, i), "")
		}
	}
	l.write("boot/vmlinuz", strings.Repeat("k", largeBytes))
	l.write("small/file", "")
	l.capture()
	for _, dir := range []string{"srv", "opt/site/build/deep", "var/cache/x", "excluded", "tmp", "boot", "small"} {
		testkit.Must(t, os.RemoveAll(l.path(dir)), os.Mkdir(l.path(dir), 0o755))
	}
	pattern, err := pathmatch.Parse("/excluded/**")
	testkit.Must(t, err)
	l.o.Exclude = pathmatch.List{pattern}
	run := func() (Result, error) { return Run(context.Background(), l.store, l.o) }
	got := held(t, run)
	if want := []string{"boot: is empty now", "srv: is empty now"}; !slices.Equal(got, want) {
		t.Errorf("held: %q, want %q", got, want)
	}
	l.o.DryRun = true
	r, err := run()
	testkit.Must(t, err)
	if got := texts(r); len(got) != 2 || !strings.HasPrefix(got[0], "/boot: is empty now") {
		t.Errorf("a dry run: %q", got)
	}
	l.o.DryRun, l.o.Accept = false, []string{"/"}
	if r, err := run(); err != nil || !r.Changed {
		t.Errorf("all accepted: %v, %v", r.Changed, err)
	}
}

func TestAnotherDiskWithLittleOfTheMasterHoldsTheCapture(t *testing.T) {
	testkit.NeedRoot(t, "mounts")
	l := newLab(t)
	for _, name := range []string{"a", "b", "c"} {
		l.write(name, "")
	}
	l.capture()
	l.mount("")
	l.write("lost+found/x", "")
	got := held(t, func() (Result, error) { return Run(context.Background(), l.store, l.o) })
	if want := []string{": " + string(OtherDisk)}; !slices.Equal(got, want) {
		t.Errorf("held: %q, want %q", got, want)
	}
}

func TestAMasterThatHasLostMostOfItsNamesHoldsTheCapture(t *testing.T) {
	l := newLab(t)
	for i := range 2 * largeNames {
		l.write(fmt.Sprintf("usr/%d/x", i), "")
		l.write(fmt.Sprintf("opt/%d/x", i), "")
	}
	l.write("etc/x", "")
	l.capture()
	run := func() (Result, error) { return Run(context.Background(), l.store, l.o) }
	testkit.Must(t, os.RemoveAll(l.path("opt"))) // a directory that is gone is no mount point
	if r, err := run(); err != nil || !r.Changed {
		t.Errorf("half of the names: %v, %v", r.Changed, err)
	}
	testkit.Must(t, os.RemoveAll(l.path("usr")))
	got := held(t, run)
	if want := []string{": " + string(Shrunk)}; !slices.Equal(got, want) {
		t.Errorf("held: %q, want %q", got, want)
	}
	l.o.Accept = []string{"/"}
	if r, err := run(); err != nil || !r.Changed {
		t.Errorf("accepted: %v, %v", r.Changed, err)
	}
}

func TestSubvolumesOfBtrfs(t *testing.T) {
	disk := disktest.New(t, "mkfs.btrfs", "-q")
	btrfs := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("btrfs", append([]string{"subvolume"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("btrfs subvolume %q: %v: %s", args, err, out)
		}
	}
	l := newLab(t)
	l.o.Dir = filepath.Join(disk.Dir, "master")
	btrfs("create", l.o.Dir)
	l.write("etc/x", "1")
	btrfs("create", l.path("home"))
	l.write("home/x", "2")
	r := l.capture()
	if got := l.entries(r.Version); got["home/x"] == nil {
		t.Errorf("what is in a subvolume is not captured: %v", got)
	}
	if len(r.Problems) > 0 {
		t.Errorf("problems %v", r.Problems)
	}

	snapshot := filepath.Join(disk.Dir, "snapshot")
	btrfs("snapshot", l.o.Dir, snapshot)
	s := newLab(t)
	s.o.Dir = snapshot
	r = s.capture()
	want := []string{"/home: is left out: in the place of a btrfs subvolume a snapshot has an empty directory"}
	if got := texts(r); !slices.Equal(got, want) {
		t.Errorf("a snapshot: %q, want %q", got, want)
	}

	t.Run("a mount point that is no mount point any more", func(t *testing.T) {
		c := scan{o: &Options{Dir: l.o.Dir}, dev: device{btrfs: true}}
		var x unix.Statx_t
		testkit.Must(t, unix.Statx(unix.AT_FDCWD, l.o.Dir, 0, statxMask, &x))
		c.dev.mount = x.Mnt_id
		for path, want := range map[string]string{"etc": unmountedKind, "home": unmountedKind, "gone": unmountedKind} {
			if got := c.kindOutsideTable(path); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
	})
}

func TestEmptySubvolumesInASnapshotAreLeftOut(t *testing.T) {
	x := unix.Statx_t{Mode: unix.S_IFDIR | 0o755, Ino: emptySubvolume}
	for _, d := range []device{{}, {btrfs: true}} {
		if s := d.stamp(&x); s.flags&flagMount != 0 != d.btrfs {
			t.Errorf("btrfs %v: flags %b", d.btrfs, s.flags)
		}
	}
	for disk, want := range map[string]map[string]string{
		"abc btrfs":     {"home": emptySubvolumeKind},
		"abc ext2/ext3": {},
	} {
		c := remoteCapture{o: &Options{}, list: &remote.Listing{
			Disk: disk, Mounts: map[string]string{},
			Records: []remote.Record{{Kind: 'd', Ino: 256}, {Path: "home", Kind: 'd', Ino: emptySubvolume}},
		}}
		testkit.Must(t, c.filter())
		if !maps.Equal(c.list.Mounts, want) {
			t.Errorf("%s: by ssh %v, want %v", disk, c.list.Mounts, want)
		}
	}
}
