package layers

import (
	"compress/gzip"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/pkgdb"
	"dim/internal/replica"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// stanza is that of a package in dpkg's database.
func stanza(name, version, conffile string) string {
	return fmt.Sprintf("Package: %s\nStatus: install ok installed\nArchitecture: all\nVersion: %s\nConffiles:\n"+
		" /etc/%s.conf %x\nDescription: d\n\n", name, version, name, md5.Sum([]byte(conffile)))
}

// withTool is a version that has the package tool, with files of the version that f names for each.
func withTool(version string, files map[string]string) []vfstest.Entry {
	list := "/.\n/etc\n/etc/tool.conf\n/usr\n/usr/lib\n/usr/lib/tool\n/usr/lib/tool/a\n/usr/lib/tool/b\n"
	return []vfstest.Entry{
		replicatest.Dir("etc"), replicatest.File("etc/tool.conf", files["conf"]),
		replicatest.Dir("usr"), replicatest.Dir("usr/lib"), replicatest.Dir("usr/lib/tool"),
		replicatest.File("usr/lib/tool/a", files["a"]), replicatest.File("usr/lib/tool/b", files["b"]),
		replicatest.Dir("var"), replicatest.Dir("var/lib"), replicatest.Dir("var/lib/dpkg"),
		replicatest.Dir("var/lib/dpkg/info"), replicatest.File("var/lib/dpkg/info/tool.list", list),
		replicatest.File("var/lib/dpkg/status", stanza("base", "1", "b")+stanza("tool", version, files["conf"])),
	}
}

// upgrade does on the node what dpkg does there: tool 2.0 and the new package own 1.
func (o *site) upgrade() {
	o.WriteFile("usr/lib/tool/a", "a2")
	o.WriteFile("usr/lib/tool/b", "b2")
	o.MakeDir("usr/lib/tool/new")
	o.WriteFile("usr/lib/tool/new/c", "c2")
	o.WriteFile("etc/tool.conf", "conf2")
	o.WriteFile("usr/lib/own", "own")
	list := "/.\n/etc\n/etc/tool.conf\n/usr\n/usr/lib\n/usr/lib/tool\n/usr/lib/tool/a\n/usr/lib/tool/b\n" +
		"/usr/lib/tool/new\n/usr/lib/tool/new/c\n"
	o.WriteFile("var/lib/dpkg/info/tool.list", list)
	o.WriteFile("var/lib/dpkg/info/own.list", "/.\n/usr\n/usr/lib\n/usr/lib/own\n")
	o.WriteFile("var/lib/dpkg/status", stanza("base", "1", "b")+stanza("own", "1", "")+stanza("tool", "2", "conf2"))
}

// touched returns seed with a later time of the list of files, which the master's package manager writes anew.
func touched(seed []vfstest.Entry) []vfstest.Entry {
	seed[11].Mtime.Sec++
	return seed
}

// packagesOf returns the packages of a version that is made from seed.
func packagesOf(seed []vfstest.Entry) *pkgdb.Database {
	files := fstest.MapFS{}
	for _, e := range seed {
		if e.Type == vfs.Regular {
			files[e.Path] = &fstest.MapFile{Data: []byte(e.Content)}
		}
		if e.Type == vfs.Directory {
			files[e.Path] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		}
	}
	return pkgdb.Load(files)
}

func (o *site) moveTo(v image.Version, also []string) replica.Move {
	o.spec.Version = v
	move := o.move()
	move.Extra = also
	return move
}

// The master has changed one of the two files of tool.
var tool1, tool11 = withTool("1", map[string]string{"a": "a1", "b": "b1", "conf": "conf1"}),
	touched(withTool("1.1", map[string]string{"a": "a1.1", "b": "b1", "conf": "conf1"}))

func TestAPackageIsTheMastersAsAWhole(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, tool1), m.Version(t, 2, tool11)
	old, next := packagesOf(tool1), packagesOf(tool11)
	o := newSite(t, one, m)
	if state, err := PackageState(o.s, "n01", "compute"); state != "" || err != nil {
		t.Errorf("a node without a layer has the state %q, %v", state, err)
	}
	o.upgrade()
	first, err := PackageState(o.s, "n01", "compute")
	if first == "" || err != nil {
		t.Errorf("after an upgrade the state is %q, %v", first, err)
	}
	got, err := o.PackageConflicts(PackageComparison{old, next, true})
	if err != nil {
		t.Fatal(err)
	}
	want := PackageConflicts{
		List: []pkgdb.Conflict{{Name: "tool", Arch: "all", Old: "1", Node: "2", Master: "1.1"}},
		Own: []pkgdb.Conflict{
			{Name: "own", Arch: "all", Node: "1"}, {Name: "tool", Arch: "all", Old: "1", Node: "2", Master: "1.1"},
		},
		Paths: []string{
			"etc/tool.conf", "usr/lib/tool/a", "usr/lib/tool/b", "usr/lib/tool/new", "usr/lib/tool/new/c",
			"var/lib/dpkg/info/tool.list",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("merged record by record (-want +got):\n%s", diff)
	}
	o.WriteFile("etc/tool.conf", "edited by hand")
	whole, err := o.PackageConflicts(PackageComparison{old, next, false})
	want.Whole, want.List = true, want.Own
	want.Paths = []string{
		"usr/lib/own", "usr/lib/tool/a", "usr/lib/tool/b", "usr/lib/tool/new", "usr/lib/tool/new/c",
		"var/lib/dpkg/info/own.list", "var/lib/dpkg/info/tool.list",
	}
	if diff := cmp.Diff(want, whole); diff != "" || err != nil {
		t.Errorf("replaced as a whole: %v (-want +got):\n%s", err, diff)
	}
	if _, err := o.s.Switch(t.Context(), []replica.Move{o.moveTo(two, got.Paths[1:])}); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		"usr/lib/tool/a": "a1.1", "usr/lib/tool/b": "b1", "usr/lib/tool/new": gone(vfs.ENOENT),
		"etc/tool.conf": "edited by hand", "usr/lib/own": "own",
		"var/lib/dpkg/info/tool.list": tool1[11].Content,
	} {
		o.Want(path, content)
	}
	saved := []string{
		"usr/lib/tool/a entry", "usr/lib/tool/b entry", "usr/lib/tool/new/c entry",
		"var/lib/dpkg/info/tool.list entry", "var/lib/dpkg/status entry",
	}
	if diff := cmp.Diff(saved, savedOf(o)); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
}

// The server dies at each point of a switch that moves a package as a whole.
func TestAnInterruptedSwitchMovesAPackageAsAWhole(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, tool1), m.Version(t, 2, tool11)
	old, next := packagesOf(tool1), packagesOf(tool11)
	for point := 1; ; point++ {
		o := newSite(t, one, m)
		o.upgrade()
		conflicts, err := o.PackageConflicts(PackageComparison{old, next, true})
		if err != nil {
			t.Fatal(err)
		}
		left := point
		o.fault = func(string) error {
			if left--; left <= 0 {
				return errCrash
			}
			return nil
		}
		_, err = o.s.Switch(context.Background(), []replica.Move{o.moveTo(two, conflicts.Paths)})
		if left > 0 {
			if err != nil || point < 8 {
				t.Errorf("%d points to crash at, %v", point, err)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.spec.Version = one
		o.restart() // it completes a switch that was begun, and goes back to one
		if conflicts, err = o.PackageConflicts(PackageComparison{old, next, true}); err != nil {
			t.Fatal(err)
		}
		if _, err := o.s.Switch(t.Context(), []replica.Move{o.moveTo(two, conflicts.Paths)}); err != nil {
			t.Fatal(err)
		}
		o.Want("usr/lib/tool/b", "b1")
		o.Want("usr/lib/tool/a", "a1.1")
		o.Want("usr/lib/tool/new", gone(vfs.ENOENT))
	}
}

// rpm's database is one file: what the node has installed is in conflict as soon as the master's is another one.
func TestPackagesOfRpmAreInConflictAsAWhole(t *testing.T) {
	packed := testkit.Value(os.Open("../pkgdb/testdata/rpmdb.sqlite.gz"))(t)
	defer packed.Close()
	database := testkit.Value(io.ReadAll(testkit.Value(gzip.NewReader(packed))(t)))(t)
	const path = "usr/lib/sysimage/rpm/rpmdb.sqlite"
	with := func(content string) []vfstest.Entry {
		return []vfstest.Entry{
			replicatest.Dir("usr"), replicatest.Dir("usr/lib"), replicatest.Dir("usr/lib/pkg50"),
			replicatest.Dir("usr/lib/sysimage"), replicatest.Dir("usr/lib/sysimage/rpm"),
			replicatest.File(path, content),
		}
	}
	m := newMemory(t)
	empty, same, other := packagesOf(with("")), packagesOf(with("")), packagesOf(with("another database"))
	o := newSite(t, m.Version(t, 1, with("")), m)
	o.WriteFile(path, string(database))
	o.WriteFile("usr/lib/pkg50/f1", "of pkg50")
	o.WriteFile("usr/lib/pkg50/mine", "of nobody")
	got, err := o.PackageConflicts(PackageComparison{Old: empty, Next: same})
	if err != nil || got.Whole || len(got.List) > 0 || len(got.Own) != 60 {
		t.Errorf("the master has not changed its database: %v, %d conflicts, %d of the node's own, %v",
			got.Whole, len(got.List), len(got.Own), err)
	}
	got, err = o.PackageConflicts(PackageComparison{Old: empty, Next: other})
	if err != nil || !got.Whole || len(got.List) != 60 {
		t.Errorf("the master has changed its database: %v, %d conflicts, %v", got.Whole, len(got.List), err)
	}
	if diff := cmp.Diff([]string{"usr/lib/pkg50/f1"}, got.Paths); diff != "" {
		t.Errorf("what goes with the packages (-want +got):\n%s", diff)
	}
}

func TestADatabaseThatIsTooLargeIsNotRead(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, tool1), m)
	o.upgrade()
	size := vfs.SetAttr{Valid: vfs.SetSize, Size: nodeFileMax + 1} // a hole
	if _, err := o.SetAttr(root, o.Handle("var/lib/dpkg/status"), &size); err != nil {
		t.Fatal(err)
	}
	got, err := o.PackageConflicts(PackageComparison{packagesOf(tool1), packagesOf(tool11), true})
	want := []pkgdb.Conflict{{Name: "tool", Arch: "all", Old: "1", Master: "1.1"}} // as if nothing were installed
	if diff := cmp.Diff(want, got.List); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
