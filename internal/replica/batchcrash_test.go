package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/recordmerge"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs/vfstest"
)

// The server dies at each point of a start at which several replicas are switched together. Each of them has a file
// that is merged and one that is set aside.
func TestAStartThatSwitchesManyIsInterrupted(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	one := m.Version(t, 1, []vfstest.Entry{d("etc"), f("etc/motd", "1"), f("etc/passwd", rootUser)})
	two := m.Version(t, 2, []vfstest.Entry{d("etc"), f("etc/motd", "2"), f("etc/passwd", rootUser+alice)})
	var specs []Spec
	for i := range 3 {
		specs = append(specs, Spec{Node: fmt.Sprintf("n%02d", i), Image: "compute", Version: one})
		specs[i].Rules.Merge = recordmerge.Builtin()
	}
	for point := 1; ; point++ {
		dir := filepath.Join(t.TempDir(), "r")
		attach := func(fault func(string) error) (*Set, []*Replica, error) {
			s := testkit.Value(Open(Options{Dir: dir, Source: m, Fault: fault}))(t)
			all, errs := s.AttachAll(t.Context(), specs)
			return s, all, errors.Join(errs...)
		}
		for i := range specs {
			specs[i].Version = one
		}
		s, all, err := attach(nil)
		testkit.Must(t, err)
		for _, r := range all {
			shell := replicatest.NewShell(t, r)
			shell.WriteFile("etc/motd", "mine")
			shell.WriteFile("etc/passwd", rootUser+nodesUser)
		}
		testkit.Must(t, s.Close())
		for i := range specs {
			specs[i].Version = two
		}
		left := point
		s, _, err = attach(func(string) error {
			if left--; left <= 0 {
				return errCrash
			}
			return nil
		})
		testkit.Must(t, s.Close())
		if left > 0 {
			if err != nil || point < 12 {
				t.Errorf("%d points to crash at, %v", point, err)
			}
			return
		}
		s, all, err = attach(nil)
		testkit.Must(t, err)
		for i, r := range all {
			shell := replicatest.NewShell(t, r)
			shell.Want("etc/motd", "2")
			shell.Want("etc/passwd", rootUser+nodesUser+alice)
			for path, want := range map[string]string{"motd": "mine", "passwd": rootUser + nodesUser} {
				saved, _ := filepath.Glob(fmt.Sprintf("%s/n%02d/compute/saved/2*/etc/%s", dir, i, path))
				if len(saved) != 1 {
					t.Fatalf("point %d: n%02d has %d saved copies of /etc/%s", point, i, len(saved), path)
				}
				if got := testkit.Value(os.ReadFile(saved[0]))(t); string(got) != want {
					t.Errorf("point %d: n%02d has saved %q of /etc/%s", point, i, got, path)
				}
			}
			if work, _ := os.ReadDir(filepath.Join(dir, fmt.Sprintf("n%02d/compute/work", i))); len(work) > 0 {
				t.Errorf("point %d: %d files are left in work/", point, len(work))
			}
		}
		testkit.Must(t, s.Close())
	}
}
