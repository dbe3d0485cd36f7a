package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// seen is what a client's caches depend on: for each directory its ctime and its entries.
func (o *site) seen() map[string]string {
	o.t.Helper()
	all := make(map[string]string)
	for _, dir := range o.Dirs("", o.Root(), nil) {
		text := fmt.Sprint(o.Stat(dir).Ctime, o.Stat(dir).Mode)
		for _, name := range o.Names(dir) {
			a := o.Stat(image.JoinPath(dir, name))
			text += fmt.Sprint(" ", name, a.ID, a.Mode, a.Type)
		}
		all[dir] = text
	}
	return all
}

// checkChangedDirs checks that a client with the caches before sees everything if it revalidates the
// directories of l in that order.
func (o *site) checkChangedDirs(l ChangedDirs, before map[string]string) {
	o.t.Helper()
	dirs := slices.Collect(l.Dirs)
	dentry := make(map[string]int)
	for i, dir := range dirs {
		dentry[dir] = i
	}
	if len(dentry) != len(dirs) {
		o.t.Errorf("a directory is listed twice: %q", dirs)
	}
	for i, dir := range dirs {
		for up := dir; up != ""; {
			up = parentPath(up)
			if j, ok := dentry[up]; ok && j > i {
				o.t.Errorf("%q comes before %q, which is above it", dir, up)
			}
		}
	}
	for dir, now := range o.seen() {
		if was, known := before[dir]; known && was != now && !slices.Contains(dirs, dir) {
			o.t.Errorf("%q has changed and is not listed: %q", dir, dirs)
		}
	}
}

func randomEntries(r *rand.Rand) []vfstest.Entry {
	var list []vfstest.Entry
	for _, dir := range []string{"a", "a/b", "a/b/c", "d", "d/e"} {
		up := parentPath(dir)
		isUp := func(e vfstest.Entry) bool { return e.Path == up && e.Type == vfs.Directory }
		if up != "" && !slices.ContainsFunc(list, isUp) {
			continue
		}
		switch r.IntN(6) {
		case 0:
		case 1:
			list = append(list, f(dir, "a file"))
		default:
			e := d(dir)
			e.Mode = []uint32{0o755, 0o755, 0o700}[r.IntN(3)]
			list = append(list, e)
			for i := range r.IntN(3) {
				list = append(list, f(fmt.Sprintf("%s/f%d", dir, i), fmt.Sprint(r.IntN(2))))
			}
		}
	}
	return list
}

func TestChangedDirsAreAllThatSwitchesHaveChanged(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, randomEntries(r)), m)
	type past struct {
		stamp int64
		saw   map[string]string
	}
	history := []past{{o.ChangedDirs(0).Stamp, o.seen()}}
	o.MakeDir("own")
	for i := range 40 {
		switch r.IntN(8) {
		case 0:
			o.restart()
		case 1:
			o.toFiles(files(map[string]string{fmt.Sprintf("a/n%d", r.IntN(2)): fmt.Sprint(i), "x/y/z": "deep"}))
		default:
			o.to(m.Version(t, i+2, randomEntries(r)))
		}
		for _, p := range history[max(1, len(history)-6):] {
			l := o.ChangedDirs(p.stamp)
			if l.All {
				t.Fatalf("the history of %d switches is not known", i)
			}
			o.checkChangedDirs(l, p.saw)
		}
		if l := o.ChangedDirs(0); !l.All {
			t.Fatal("stamp 0 returned only some directories")
		}
		o.checkChangedDirs(o.ChangedDirs(0), history[0].saw)
		history = append(history, past{o.ChangedDirs(0).Stamp, o.seen()})
	}
	l := o.ChangedDirs(history[len(history)-1].stamp)
	if dirs := slices.Collect(l.Dirs); len(dirs) > 0 || l.All {
		t.Errorf("nothing has changed, and %q are listed", dirs)
	}
}

func TestOneChangedFileIsOneChangedDirectory(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/own", "x") // so that the journal knows the replica
	stamp := o.ChangedDirs(0).Stamp
	next := slices.Clone(v1)
	for i := range next {
		if next[i].Path == "opt/app/x" {
			next[i].Content = "another"
		}
	}
	o.to(m.Version(t, 2, next))
	o.restart()
	l := o.ChangedDirs(stamp)
	if d := cmp.Diff([]string{"opt/app"}, slices.Collect(l.Dirs)); d != "" || l.All {
		t.Errorf("all %v, dirs (-want +got):\n%s", l.All, d)
	}
	o.mu.Lock()
	o.renewed = o.s.journal.stamp(o.s.now())
	o.mu.Unlock()
	if l = o.ChangedDirs(l.Stamp); !l.All {
		t.Error("not all directories are listed after an Edit")
	}
	if again := o.ChangedDirs(l.Stamp); again.All || len(slices.Collect(again.Dirs)) > 0 {
		t.Error("directories are listed again after all were")
	}
}

func TestASwitchThatWouldDetachAMountIsHeld(t *testing.T) {
	tests := []struct {
		mount string
		own   string // path of a file that the node writes before
		keep  string
		held  bool
	}{
		{mount: "etc/b", held: true},                        // other content
		{mount: "etc/c", held: true},                        // gone
		{mount: "etc/mode", held: false},                    // another mode, the same file
		{mount: "etc/mode", own: "etc/mode", held: true},    // the node's own is set aside
		{mount: "etc/b", keep: "/etc/b", held: false},       // stays what it is
		{mount: "turn", held: true},                         // a file now
		{mount: "gone/sub", held: true},                     // gone with what is above it
		{mount: "etc", held: false},                         // directories keep their ids
		{mount: "opt/other/z", held: false},                 // nothing changes there
		{mount: "etc/new", own: "etc/new", held: true},      // the master's comes to where the node has one
		{mount: "etc/new", held: false},                     // nothing is there
		{mount: "opt/app/y", own: "opt/app/x", held: false}, // beside what changes
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			m := newMemory(t)
			o := newSite(t, m.Version(t, 1, v1), m)
			if tt.own != "" {
				o.WriteFile(tt.own, "mine")
			}
			o.spec.Version = m.Version(t, 2, v2)
			move := o.move()
			move.Mounted = []string{tt.mount}
			if tt.keep != "" {
				keep, err := pathmatch.Parse(tt.keep)
				if err != nil {
					t.Fatal(err)
				}
				move.Keep = pathmatch.List{keep}
			}
			rep, err := o.s.Switch(context.Background(), []Move{move})
			if err != nil {
				t.Fatal(err)
			}
			if held := len(rep.Held) == 1 && rep.Held[0].Path == tt.mount; held != tt.held {
				t.Errorf("held: %+v", rep.Held)
			}
			if shows := o.Version().Number; shows != map[bool]int{true: 1, false: 2}[tt.held] {
				t.Errorf("shows version %d", shows)
			}
			if !tt.held {
				return
			}
			move.Mounted = nil // it is unmounted
			if rep, err = o.s.Switch(context.Background(), []Move{move}); err != nil || rep.Replicas != 1 {
				t.Errorf("after the unmount: %+v, %v", rep, err)
			}
			o.Want("etc/a", "a2")
		})
	}
}

func TestAChangeOfANodeFileUnderAMountIsHeld(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.toFiles(files(map[string]string{"etc/host": "one"}))
	move := o.move()
	move.Files, move.Mounted = files(map[string]string{"etc/host": "two"}), []string{"etc/host"}
	rep, err := o.s.Switch(context.Background(), []Move{move})
	if err != nil || len(rep.Held) != 1 {
		t.Errorf("held: %+v, %v", rep.Held, err)
	}
	o.Want("etc/host", "one")
}
