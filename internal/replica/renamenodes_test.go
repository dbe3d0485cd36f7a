package replica

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

// The server dies at each point of a change of names. A node of one of the new names has left files before.
func TestAChangeOfNamesIsInterrupted(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	list := map[string]string{"m01": "n01", "m02": "n02", "m03": "n03"}
	attach := func(s *Set, node string, number int) *Replica {
		t.Helper()
		v := one
		if number == 2 {
			v = two
		}
		return testkit.Value(s.Attach(Spec{Node: node, Image: "compute", Version: v}))(t)
	}
	for point := 1; ; point++ {
		o := Options{Dir: filepath.Join(t.TempDir(), "r"), Source: m, Durability: Relaxed}
		s := testkit.Value(Open(o))(t)
		for _, node := range []string{"n01", "m02", "n02"} { // n03 has written nothing
			shell := replicatest.NewShell(t, attach(s, node, 1))
			shell.WriteFile("etc/a", "of "+node)
		}
		s.Detach(func(string) bool { return false })
		testkit.Must(t, s.Close())
		left := point
		o.Fault = func(string) error {
			if left--; left <= 0 {
				return errCrash
			}
			return nil
		}
		s = testkit.Value(Open(o))(t)
		err := s.RenameNodes("first", list)
		testkit.Must(t, s.Close())
		if left > 0 && (err != nil || point < 8) {
			t.Fatalf("%d points to crash at, %v", point, err)
		}
		over := left > 0
		o.Fault = nil
		s = testkit.Value(Open(o))(t)
		testkit.Must(t, s.RenameNodes("first", list))
		for node, want := range map[string]string{"m01": "of n01", "m02": "of n02", "m02.before-first": "of m02"} {
			if v, ok := s.Followed(node, "compute"); !ok || v.Number != 1 {
				t.Errorf("point %d: %s follows %d, %v", point, node, v.Number, ok)
			}
			shell := replicatest.NewShell(t, attach(s, node, 1))
			shell.Want("etc/a", want)
		}
		shell := replicatest.NewShell(t, attach(s, "m03", 1))
		shell.Want("etc/a", "a1")
		shell.WriteFile("etc/a", "new")
		testkit.Must(t, s.RenameNodes("first", list)) // as long as others have not heard that it is done
		shell.Want("etc/a", "new")
		for _, node := range []string{"n01", "n02", "n03"} {
			if _, err := os.Stat(filepath.Join(o.Dir, node)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("point %d: %s is there: %v", point, node, err)
			}
		}
		testkit.Must(t, s.Close())
		if over {
			return
		}
	}
}

// What has happened to a replica stays known by its new name: files of its own are set aside when it is switched.
func TestARenamedReplicaIsSwitchedFromWhatItFollowed(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSeveral(t, m, one)
	list := map[string]string{"x01": "n01"}
	if err := o.s.RenameNodes("a", list); err == nil {
		t.Error("a node that is served was renamed")
	}
	o.s.Detach(func(node string) bool { return node != "n01" })
	testkit.Must(t, o.s.RenameNodes("a", list))
	testkit.Must(t, o.s.Close())
	o.s = testkit.Value(Open(o.opts))(t)
	r := testkit.Value(o.s.Attach(Spec{Node: "x01", Image: "compute", Version: two}))(t)
	shell := replicatest.NewShell(t, r)
	shell.Want("etc/a", "a2")
	if saved, _ := filepath.Glob(filepath.Join(o.opts.Dir, "x01/compute/saved/*/etc/a")); len(saved) != 1 {
		t.Errorf("set aside: %v", saved)
	}
	// It is renamed back, and to a third name, in one go as far as this server knows.
	o.s.Detach(func(string) bool { return false })
	testkit.Must(t, o.s.RenameNodes("b", map[string]string{"n01": "x01"}))
	testkit.Must(t, o.s.RenameNodes("c", map[string]string{"y01": "n01"}))
	if v, ok := o.s.Followed("y01", "compute"); !ok || v.Number != 2 {
		t.Errorf("it follows %d, %v", v.Number, ok)
	}
}

func FuzzParseRenames(f *testing.F) {
	f.Add([]byte(`{"format":1,"done":["a"],"id":"b","moves":[{"from":"n01","to":"m01","aside":"m01.before-b"}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRenames(b)
		for _, m := range r.Moves {
			if err == nil && checkDirNames(m.From, m.To) != nil {
				t.Errorf("%+v leads out of the directory", m)
			}
		}
	})
}
