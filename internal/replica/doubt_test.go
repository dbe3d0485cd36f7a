package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// several is a set of replicas in tests, with what is needed to restart its server.
type several struct {
	t    *testing.T
	opts Options
	s    *Set
	all  []*Replica
	errs []error
}

// newSeveral attaches n01 to n03, and n01 and n02 write a file.
func newSeveral(t *testing.T, m *replicatest.Memory, v image.Version) *several {
	t.Helper()
	testkit.NeedRoot(t, needsRoot)
	o := &several{t: t, opts: Options{Dir: filepath.Join(t.TempDir(), "replicas"), Source: m, Durability: Relaxed}}
	o.open(v)
	t.Cleanup(func() { o.s.Close() })
	for i := range 2 {
		o.shell(i).WriteFile("etc/a", "mine")
	}
	return o
}

func (o *several) open(v image.Version) {
	o.t.Helper()
	o.s = testkit.Value(Open(o.opts))(o.t)
	o.attach(v)
}

func (o *several) attach(v image.Version) {
	var specs []Spec
	for i := range 3 {
		specs = append(specs, Spec{Node: fmt.Sprintf("n%02d", i+1), Image: "compute", Version: v})
	}
	o.all, o.errs = o.s.AttachAll(o.t.Context(), specs)
}

func (o *several) shell(i int) *replicatest.Shell {
	o.t.Helper()
	testkit.Must(o.t, o.errs[i])
	s := replicatest.NewShell(o.t, o.all[i])
	return &s
}

func (o *several) switchTo(i int, v image.Version) {
	o.t.Helper()
	_, err := o.s.Switch(context.Background(), []Move{{Replica: o.all[i], Version: v}})
	testkit.Must(o.t, err)
}

// damage closes the set and changes the last record of a kind in the journal beyond repair. It returns what the file
// was then.
func (o *several) damage(kind, with string) []byte {
	o.t.Helper()
	testkit.Must(o.t, o.s.Close())
	path := filepath.Join(o.opts.Dir, "switches.log")
	b := testkit.Value(os.ReadFile(path))(o.t)
	at := bytes.LastIndex(b, []byte(`"kind":"`+kind+`"`))
	if at < 0 {
		o.t.Fatalf("the journal has no record %q", kind)
	}
	copy(b[at+1:], with)
	testkit.Must(o.t, os.WriteFile(path, b, 0o600))
	return b
}

func (o *several) wantRefused(i int) {
	o.t.Helper()
	node := fmt.Sprintf("n%02d", i+1)
	if err := o.errs[i]; err == nil || !strings.Contains(err.Error(), "dim node accept "+node+" ") {
		o.t.Errorf("%s: %v", node, err)
	}
	if copy, is := o.s.Doubt(node, "compute"); !is || !strings.Contains(copy, ".damaged-") {
		o.t.Errorf("%s: the doubt is %t, %q", node, is, copy)
	}
}

func TestDamageToTheJournalRefusesThoseReplicasAloneThatItMayConcern(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSeveral(t, m, one)
	o.switchTo(0, two)
	o.switchTo(1, two)
	o.shell(0).WriteFile("etc/a", "mine again")
	// The last record says that n02 follows version 2. What is left of it still names n02.
	found := o.damage("done", "KiNd")
	o.open(two)
	o.wantRefused(1)
	o.shell(0).Want("etc/a", "mine again")
	o.shell(2).Want("etc/a", "a2")
	if text := o.s.Damage(); !strings.Contains(text, ".damaged-") {
		t.Errorf("what was damaged: %q", text)
	}
	copies, _ := filepath.Glob(filepath.Join(o.opts.Dir, "switches.log.damaged-*"))
	if len(copies) != 1 || !bytes.Equal(testkit.Value(os.ReadFile(copies[0]))(t), found) {
		t.Errorf("copies of the journal: %q", copies)
	}

	t.Run("after another restart too", func(t *testing.T) {
		testkit.Must(t, o.s.Close())
		o.open(two)
		o.wantRefused(1)
		if text := o.s.Damage(); text != "" {
			t.Errorf("what was damaged: %q", text)
		}
	})
	t.Run("until its layer is accepted", func(t *testing.T) {
		mark := filepath.Join(o.opts.Dir, "n02/compute/accept")
		testkit.Must(t, o.s.Accept("n02", "compute"))
		o.attach(two)
		if _, is := o.s.Doubt("n02", "compute"); is {
			t.Error("the layer is still in doubt")
		}
		o.shell(1).Want("etc/a", "a2")
		if _, err := os.Stat(mark); !os.IsNotExist(err) {
			t.Errorf("the mark: %v", err)
		}
		testkit.Must(t, o.s.Close())
		o.open(two)
		o.shell(1).Want("etc/a", "a2")
	})
}

// A mark that cannot be removed leaves the replica unserved, and as it was.
func TestAReplicaWhoseDoubtCannotBeEndedIsNotSwitched(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, append(slices.Clip(v1), f("zz", "new")))
	o := newSeveral(t, m, one)
	o.switchTo(1, two)       // it moves nothing of the layer, so the record is the only one
	o.damage("done", "KiNd") // n02 counts as at version 1 again
	mark := filepath.Join(o.opts.Dir, "n02/compute/accept")
	testkit.Must(t, os.Mkdir(mark, 0o700))
	o.open(two)
	if o.errs[1] == nil {
		t.Error("n02 is served")
	}
	if v, _ := o.s.Followed("n02", "compute"); v.Number != 1 {
		t.Errorf("n02, which is not served, was switched to version %d", v.Number)
	}
	testkit.Must(t, os.Remove(mark))
	o.reopen(Spec{Node: "n02", Image: "compute", Version: two})
	if v, _ := o.s.Followed("n02", "compute"); o.errs[0] != nil || v.Number != 2 {
		t.Errorf("n02 follows version %d, %v", v.Number, o.errs[0])
	}
}

func TestAReplicaIsServedWithoutALayerThatIsInDoubt(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSeveral(t, m, one)
	o.switchTo(0, two)
	o.damage("done", "\x00\x00\x00\x00\x00\x00") // it can no longer be read which replica it was of
	o.open(two)
	o.wantRefused(0)
	o.wantRefused(1)
	o.shell(2).Want("etc/a", "a2")
	dir := filepath.Join(o.opts.Dir, "n01/compute")
	testkit.Must(t, os.Rename(dir, dir+".kept"))
	o.attach(two)
	o.shell(0).Want("etc/a", "a2")
	o.shell(0).WriteFile("etc/a", "anew")
	testkit.Must(t, o.s.Close())
	o.open(two)
	o.shell(0).Want("etc/a", "anew")
	o.wantRefused(1)
}

func TestALaterSwitchEndsTheDoubt(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSeveral(t, m, one)
	o.damage("state", "KiNd") // the first record of n01 and n02
	o.open(one)
	o.wantRefused(0)
	o.wantRefused(1)
	for i := range 2 {
		mark := filepath.Join(o.opts.Dir, fmt.Sprintf("n%02d/compute/accept", i+1))
		testkit.Must(t, os.WriteFile(mark, nil, 0o600))
	}
	o.attach(one)
	o.shell(0).Want("etc/a", "mine")
	o.switchTo(0, two)
	o.switchTo(0, one)
	testkit.Must(t, o.s.Close())
	o.open(one)
	o.shell(0).Want("etc/a", "a1")
	o.shell(1).Want("etc/a", "mine")
}

func TestAWrongBitOfTheJournalLosesNothing(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, []vfstest.Entry{d("etc"), f("etc/a", "a1")}), m.Version(t, 2, v2)
	o := newSeveral(t, m, one)
	o.switchTo(0, two)
	testkit.Must(t, o.s.Close())
	dir := t.TempDir()
	whole := testkit.Value(os.ReadFile(filepath.Join(o.opts.Dir, "switches.log")))(t)
	for bit := 0; bit < len(whole)*8; bit += 31 { // package durable tests each
		bad := bytes.Clone(whole)
		bad[bit/8] ^= 1 << (bit % 8)
		testkit.Must(t, os.WriteFile(filepath.Join(dir, "switches.log"), bad, 0o600))
		j, err := openJournal(dir)
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		to := j.states["n01/compute"].to.Digest
		if j.foundDamaged == "" || j.damaged != "" || to != two.Digest || len(j.states) != 3 {
			t.Fatalf("bit %d: copy %q, lost %q, %d replicas", bit, j.foundDamaged, j.damaged, len(j.states))
		}
		j.log.Close()
		os.Remove(j.foundDamaged)
	}
}

func TestOneReplicasErrorLeavesTheOthersAlone(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSeveral(t, m, one)
	o.switchTo(2, two) // n03 alone shows another version
	testkit.Must(t, o.s.Close())
	lost := errors.New("the tree is damaged")
	o.opts.Compare = func(ctx context.Context, from, to *image.Version) ([]treediff.Change, error) {
		if from.Number == 1 {
			return nil, lost
		}
		return compareTrees(m)(ctx, from, to)
	}
	o.s = testkit.Value(Open(o.opts))(t)
	next := slices.Clone(v1)
	next[1] = f("etc/a", "a3")
	three := m.Version(t, 3, next)

	t.Run("at the start", func(t *testing.T) {
		o.attach(three)
		for i := range 2 {
			if err := o.errs[i]; !errors.Is(err, lost) {
				t.Errorf("n%02d: %v", i+1, err)
			}
		}
		o.shell(2).Want("etc/a", "a3")
	})
	t.Run("in a switch", func(t *testing.T) {
		first := testkit.Value(o.s.Attach(Spec{Node: "n01", Image: "compute", Version: one}))(t)
		report, err := o.s.Switch(t.Context(), []Move{
			{Replica: first, Version: two}, {Replica: o.all[2], Version: two},
		})
		if !errors.Is(err, lost) || !errors.Is(report.Failed[first], lost) || report.Replicas != 1 {
			t.Errorf("report %+v, %v", report, err)
		}
		o.shell(2).Want("etc/a", "a2")
	})
}

// A record that names all replicas with their node files may be larger than a record can be.
func TestRecordsOfManyNodeFilesAreSplit(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	s := newTestSet(t, m)
	files := func(content string) NodeFiles {
		n := NodeFiles{Content: func(string) ([]byte, error) { return []byte(content), nil }}
		for i := range 200 {
			n.List = append(n.List, NodeFile{
				Path: fmt.Sprintf("etc/%s%03d", strings.Repeat("long", 30), i), Mode: 0o644,
				Size: uint64(len(content)), Digest: image.Sum([]byte(content)),
			})
		}
		return n
	}
	var specs []Spec
	for i := range 600 {
		specs = append(specs, Spec{Node: fmt.Sprintf("n%d", i), Image: "compute", Version: one, Files: files("1")})
	}
	var moves []Move
	all, errs := s.AttachAll(t.Context(), specs)
	testkit.Must(t, errs...)
	for _, r := range all {
		moves = append(moves, Move{Replica: r, Version: two, Files: files("2")})
	}
	testkit.Must(t, s.journal.flush())
	testkit.Value(s.Switch(t.Context(), moves))(t)
	last := moves[len(moves)-1].Replica
	shell := replicatest.NewShell(t, last)
	shell.Want(moves[0].Files.List[7].Path, "2")
	if _, _, err := shell.Find("etc/new"); errors.Is(err, vfs.ENOENT) {
		t.Error("the last replica does not show version 2")
	}
	for _, part := range records(make([]replicaRecord, 3)) {
		if len(part) != 3 {
			t.Errorf("three small records are in parts of %d", len(part))
		}
	}
}
