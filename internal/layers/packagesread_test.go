package layers

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/confine"
	"dim/internal/layers/pkgread"
)

const readerName = "dim-reader"

func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, map[string]confine.Task{
			pkgread.TaskName: pkgread.Task(),
		}))
	}
	if os.Args[0] == "broken" {
		panic("it crashes")
	}
	os.Exit(m.Run())
}

// comparison returns one that reads in processes of this program.
func (o *site) comparison(old, next pkgread.Version, merged bool) PackageComparison {
	r := pkgread.New(confine.Program{Argv: []string{readerName}})
	o.t.Cleanup(r.Close)
	return PackageComparison{pkgread.Pair{Old: old, Next: next}, r, merged}
}

func TestANodeWhosePackagesCannotBeReadIsNoError(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, tool1), m)
	o.upgrade()
	with := o.comparison(packagesOf(tool1), packagesOf(tool11), true)
	with.Reader = pkgread.New(confine.Program{Argv: []string{"broken"}})
	t.Cleanup(with.Reader.Close)
	got, err := o.PackageConflicts(with)
	if err != nil || !strings.HasPrefix(got.Unread, "package database cannot be read: ") || len(got.List) > 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if diff := cmp.Diff([]string{"var/lib/dpkg/status"}, got.Paths); diff != "" {
		t.Errorf("what the layer has of databases (-want +got):\n%s", diff)
	}
}
