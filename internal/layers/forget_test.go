package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dim/internal/disktest"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// setAsideTree sets aside a directory of the node's own with n files, and a file that has the id of the
// version's.
func setAsideTree(o *site, n int) {
	o.t.Helper()
	o.MakeDir("dir")
	o.MakeDir("dir/sub")
	for i := range n {
		o.WriteFile(fmt.Sprint("dir/sub/f", i), "mine")
	}
	o.WriteFile("etc/a", "mine")
	if _, err := o.Reset(ResetOptions{}); err != nil {
		o.t.Fatal(err)
	}
}

// discarded lists what is to be removed from the saved area.
func (o *site) discarded() []string {
	o.t.Helper()
	names, err := filepath.Glob(filepath.Join(o.opts.Dir, "n01/compute/saved/#*"))
	if err != nil {
		o.t.Fatal(err)
	}
	return names
}

func countFiles(t *testing.T, dirs []string) (n int) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				n++
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	return n
}

func TestANodeIsServedWhileForgottenEntriesAreRemoved(t *testing.T) {
	for name, remove := range map[string]func(o *site) error{
		"forget": func(o *site) error { _, err := o.Forget(ForgetOptions{}); return err },
		"expire": func(o *site) error {
			o.clock = 100 * 24 * time.Hour
			_, err := o.expire()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			const files = 40
			m := newMemory(t)
			o := newSite(t, m.Version(t, 1, v1), m)
			setAsideTree(o, files)
			removed := false
			o.fault = func(point string) error {
				if point != "in sweep" {
					return nil
				}
				if n := countFiles(t, o.discarded()); n < files && !removed {
					t.Errorf("%d of %d files were removed while the node's calls waited", files-n, files)
				}
				removed = true
				if left := savedOf(o); len(left) != 0 {
					t.Errorf("listed while it is removed: %v", left)
				}
				o.WriteFile("etc/meanwhile", "written")
				return nil
			}
			if err := remove(o); err != nil {
				t.Fatal(err)
			}
			if left := o.discarded(); !removed || len(left) != 0 {
				t.Errorf("removed: %v, left: %v", removed, left)
			}
			o.Want("etc/meanwhile", "written")
			checkClean(t, o)
		})
	}
}

// The server dies at each point: an entry is listed whole or not at all, and what was renamed is removed later.
func TestAnInterruptedForgetLeavesNoPartialEntries(t *testing.T) {
	const files = 5
	m := newMemory(t)
	one := m.Version(t, 1, v1)
	for point := 1; ; point++ {
		o := newSiteIn(t, disktest.Memory(t), one, m)
		setAsideTree(o, files)
		alias := o.Handle("etc/a")
		left := o.dieAt(point)
		_, err := o.Forget(ForgetOptions{})
		if *left > 0 {
			if err != nil || point < 4 {
				t.Errorf("%d points, %v", point-1, err)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.restart()
		saved, err := o.Saved()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range saved {
			if s.Path == "dir" && s.Entries != files+1 {
				t.Errorf("crash at point %d: %d entries in a directory of %d", point, s.Entries, files+1)
			}
		}
		if _, err := o.expire(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, o)
		if _, err := o.Forget(ForgetOptions{}); err != nil {
			t.Fatal(err)
		}
		if left := savedOf(o); len(left) != 0 {
			t.Errorf("crash at point %d, then again: %v", point, left)
		}
		if o.Handle("etc/a") != alias {
			t.Errorf("crash at point %d: the id of the version's file was taken back", point)
		}
		checkClean(t, o)
	}
}

// The names of one file are forgotten together. The last of them keeps the id, wherever the others are.
func TestForgottenHardLinksKeepTheirID(t *testing.T) {
	for _, forget := range []func(o *site) error{
		func(o *site) error { _, err := o.Forget(ForgetOptions{}); return err },
		func(o *site) error { return o.forgetStamps(o.stamps()) },
	} {
		m := newMemory(t)
		links := []vfstest.Entry{{Path: "opt/linked", LinkTo: "etc/a"}, {Path: "same/linked", LinkTo: "etc/a"}}
		seed := append(slices.Clone(v1), links...)
		o := newSite(t, m.Version(t, 1, seed), m)
		o.WriteFile("etc/a", "mine")
		for _, dir := range []string{"etc", "opt", "same"} {
			o.WriteFile(dir+"/own", "mine")
		}
		o.Want("same/linked", "mine")
		if _, err := o.Reset(ResetOptions{}); err != nil {
			t.Fatal(err)
		}
		alias := o.Handle("etc/a")
		if err := forget(o); err != nil {
			t.Fatal(err)
		}
		if left := savedOf(o); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		for range 2 {
			if o.Handle("etc/a") != alias || o.Handle("opt/linked") != alias {
				t.Error("the id of the version's file was taken back")
			}
			o.restart()
		}
		if err := o.Sweep(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, o)
	}
}

func TestDiscardedEntriesAreNoProblemOfLinks(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.MakeDir("dir")
	o.WriteFile("dir/f", "mine")
	if _, err := o.Link(root, o.Handle("dir/f"), o.Handle(""), "link"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Reset(ResetOptions{Paths: []string{"dir"}}); err != nil {
		t.Fatal(err)
	}
	o.dieAt(2) // before the first thing that was moved away is removed
	if _, err := o.Forget(ForgetOptions{}); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	o.restart()
	c, err := o.Check()
	if err != nil || len(c.Problems) != 1 || !c.Problems[0].Repairable ||
		!strings.Contains(c.Problems[0].Text, "left by a crash") {
		t.Errorf("check: %+v, %v", c.Problems, err)
	}
	if _, err := o.expire(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, o)
	o.Want("link", "mine")
	if a := o.Stat("link"); a.Nlink != 1 || a.Type != vfs.Regular {
		t.Errorf("attributes of the other name: %+v", a)
	}
}
