package replica

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/layer"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// onDisks runs a test on a disk whose files can share blocks, and on one whose files cannot.
func onDisks(t *testing.T, test func(t *testing.T, dir string)) {
	t.Run("xfs", func(t *testing.T) { test(t, disktest.Reflink(t).Dir) })
	t.Run("ext4", func(t *testing.T) { test(t, disktest.New(t, "mkfs.ext4", "-q").Dir) })
}

func none([16]byte) bool { return false }

// stage returns the directory of a staged copy, which is removed at the end of the test.
func (o *site) stage(known func([16]byte) bool) string {
	o.t.Helper()
	path, _, err := o.s.Stage("n01/compute", known)
	testkit.Must(o.t, err)
	o.t.Cleanup(func() { testkit.Must(o.t, o.s.Unstage(path)) })
	return filepath.Join(o.opts.Dir, path)
}

// Two files are written to in turn. In a copy of one moment the first is never behind the second, and the second has
// all that was acknowledged before the copy was asked for.
func TestAStagedCopyIsOfOneMoment(t *testing.T) {
	onDisks(t, func(t *testing.T, dir string) {
		m := newMemory(t)
		o := newSiteIn(t, dir, m.Version(t, 1, v1), m)
		o.WriteFile("first", strings.Repeat("\x00", 8))
		o.WriteFile("second", strings.Repeat("\x00", 8))
		for i := range 50 {
			o.WriteFile("many-"+string(rune('a'+i%26))+string(rune('a'+i/26)), strings.Repeat("x", 9000))
		}
		files := [2]vfs.Handle{o.Handle("first"), o.Handle("second")}
		var acknowledged atomic.Uint64
		var stop atomic.Bool
		ended := make(chan error, 1)
		go func() {
			for n := uint64(1); !stop.Load(); n++ {
				for _, h := range files {
					b := binary.BigEndian.AppendUint64(nil, n)
					if _, err := o.Replica.Write(root, h, b, 0, vfs.FileSync); err != nil {
						ended <- err
						return
					}
				}
				acknowledged.Store(n)
			}
			ended <- nil
		}()
		for range 20 {
			before := acknowledged.Load()
			at := o.stage(none)
			a, b := counter(t, at, "first"), counter(t, at, "second")
			if b < before || a < b || a > b+1 {
				t.Errorf("acknowledged %d, the copy has %d and %d", before, a, b)
			}
		}
		stop.Store(true)
		testkit.Must(t, <-ended)
	})
}

func counter(t *testing.T, at, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(at, "copy/upper", name))
	testkit.Must(t, err)
	return binary.BigEndian.Uint64(b)
}

// A copy has what the journal knew of the replica at its moment, and of which version the layer is over.
func TestAStagedCopyHasTheJournalOfItsMoment(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.WriteFile("own", "own")
	o.to(two)
	at := o.stage(none)
	o.to(one)
	journal, err := os.ReadFile(filepath.Join(at, "journal"))
	testkit.Must(t, err)
	all, err := o.s.ExportJournal()
	testkit.Must(t, err)
	dir := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "switches.log"), append(all, journal...), 0o600))
	j, err := openJournal(dir)
	testkit.Must(t, err)
	defer j.log.Close()
	st := j.states["n01/compute"]
	if st == nil || st.to.Number != 2 || st.steps == nil || st.steps.from.Number != 1 {
		t.Errorf("the state is %+v", st)
	}
	if over := snapshotInfo(t, at).Over; len(over) != 1 || over[0].Number != 2 {
		t.Errorf("the layer is over %v", over)
	}
}

// What the caller has already gets no content, and what changed since does.
func TestAStagedCopyLeavesOutKnownContent(t *testing.T) {
	onDisks(t, func(t *testing.T, dir string) {
		m := newMemory(t)
		o := newSiteIn(t, dir, m.Version(t, 1, v1), m)
		o.WriteFile("known", strings.Repeat("s", 100_000))
		o.WriteFile("changed", strings.Repeat("c", 100_000))
		testkit.Eventually(t, "the files are old enough to be recognized", func() bool {
			var e layer.CopyEntry
			testkit.Must(t, unix.Lstat(filepath.Join(o.opts.Dir, "n01/compute/upper/changed"), &e.Stat))
			_, ok := e.Origin(time.Now())
			return ok
		})
		known := map[[16]byte]bool{}
		first := o.stage(none)
		for _, name := range []string{"known", "changed"} {
			var of [16]byte
			n, err := unix.Lgetxattr(filepath.Join(first, "copy/upper", name), "trusted.dim.of", of[:])
			if err != nil || n != len(of) {
				t.Fatalf("%s has no origin: %v", name, err)
			}
			known[of] = true
		}
		o.WriteFile("changed", "other")
		second := o.stage(func(of [16]byte) bool { return known[of] })
		var st unix.Stat_t
		testkit.Must(t, unix.Lstat(filepath.Join(second, "copy/upper/known"), &st))
		if st.Size != 100_000 || st.Blocks != 0 {
			t.Errorf("a known file has %d bytes, %d blocks", st.Size, st.Blocks)
		}
		b, err := os.ReadFile(filepath.Join(second, "copy/upper/changed"))
		if err != nil || !bytes.HasPrefix(b, []byte("other")) {
			t.Errorf("a changed file has %.10q: %v", b, err)
		}
	})
}

// What a crash leaves of copies is removed at the start, and the layers of nodes that are not attached are copied too.
func TestStagedCopiesEndWithTheServer(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("own", "own")
	o.stage(none)
	o.restart()
	if left, _ := os.ReadDir(filepath.Join(o.opts.Dir, stagingDir)); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
	homes, err := o.s.Homes()
	if err != nil || len(homes) != 1 || homes[0] != "n01/compute" {
		t.Errorf("homes: %q, %v", homes, err)
	}
	o.s.Detach(func(string) bool { return false })
	if b, err := os.ReadFile(filepath.Join(o.stage(none), "copy/upper/own")); err != nil || string(b) != "own" {
		t.Errorf("of a detached replica: %q, %v", b, err)
	}
	for _, bad := range []string{"", "n01", "../x", "n01/..", "n01/a/b"} {
		if _, _, err := o.s.Stage(bad, none); err == nil {
			t.Errorf("%q is staged", bad)
		}
	}
}
