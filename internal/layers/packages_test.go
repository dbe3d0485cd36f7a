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
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/layers/pkgread"
	"dim/internal/pkgdb"
	"dim/internal/recordmerge"
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
func packagesOf(seed []vfstest.Entry) pkgread.Version {
	files := fstest.MapFS{}
	for _, e := range seed {
		if e.Type == vfs.Regular {
			files[e.Path] = &fstest.MapFile{Data: []byte(e.Content)}
		}
		if e.Type == vfs.Directory {
			files[e.Path] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		}
	}
	return pkgread.Version{Digest: image.Sum(fmt.Append(nil, seed)), Files: files}
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
	got, err := o.PackageConflicts(o.comparison(old, next, true))
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
		Files: []string{
			"etc", "etc/tool.conf", "usr", "usr/lib", "usr/lib/tool", "usr/lib/tool/a", "usr/lib/tool/b",
			"usr/lib/tool/new", "usr/lib/tool/new/c", "var/lib/dpkg/info/tool.list",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("merged record by record (-want +got):\n%s", diff)
	}
	o.WriteFile("etc/tool.conf", "edited by hand")
	whole, err := o.PackageConflicts(o.comparison(old, next, false))
	want.Whole, want.List = true, want.Own
	want.Paths = []string{
		"usr/lib/own", "usr/lib/tool/a", "usr/lib/tool/b", "usr/lib/tool/new", "usr/lib/tool/new/c",
		"var/lib/dpkg/info/own.list", "var/lib/dpkg/info/tool.list",
	}
	want.Files = []string{
		"etc", "etc/tool.conf", "usr", "usr/lib", "usr/lib/own", "usr/lib/tool", "usr/lib/tool/a", "usr/lib/tool/b",
		"usr/lib/tool/new", "usr/lib/tool/new/c", "var/lib/dpkg/info/own.list", "var/lib/dpkg/info/tool.list",
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
		conflicts, err := o.PackageConflicts(o.comparison(old, next, true))
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
		if conflicts, err = o.PackageConflicts(o.comparison(old, next, true)); err != nil {
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

// keptTool returns versions of the package tool of which the master's second one changes a configuration file, adds two
// files, one in a new directory, and removes a directory with a file.
func keptTool() (one, two []vfstest.Entry) {
	const list = "/.\n/etc\n/etc/tool.conf\n/usr\n/usr/lib\n/usr/lib/tool\n/usr/lib/tool/a\n"
	version := func(number, conf, more string, files ...vfstest.Entry) []vfstest.Entry {
		return slices.Concat([]vfstest.Entry{
			replicatest.Dir("etc"), replicatest.File("etc/tool.conf", conf),
			replicatest.Dir("usr"), replicatest.Dir("usr/lib"), replicatest.File("usr/lib/base", "base "+number),
			replicatest.Dir("usr/lib/tool"), replicatest.File("usr/lib/tool/a", "a"+number),
		}, files, []vfstest.Entry{
			replicatest.Dir("var"), replicatest.Dir("var/lib"), replicatest.Dir("var/lib/dpkg"),
			replicatest.Dir("var/lib/dpkg/info"), replicatest.File("var/lib/dpkg/info/tool.list", list+more),
			replicatest.File("var/lib/dpkg/status", stanza("base", number, "b")+stanza("tool", number, conf)),
		})
	}
	one = version("1", "conf1", "/usr/lib/tool/old\n/usr/lib/tool/old/o\n",
		replicatest.Dir("usr/lib/tool/old"), replicatest.File("usr/lib/tool/old/o", "o1"))
	two = version("1.1", "conf1.1", "/usr/lib/tool/b\n/usr/lib/tool/more\n/usr/lib/tool/more/c\n",
		replicatest.File("usr/lib/tool/b", "b1.1"), replicatest.Dir("usr/lib/tool/more"),
		replicatest.File("usr/lib/tool/more/c", "c1.1"))
	return one, two
}

// The node upgrades one file of the package itself, and removes nothing.
func (o *site) upgradeKept() {
	o.WriteFile("usr/lib/tool/a", "a2")
	o.WriteFile("var/lib/dpkg/info/tool.list", "/.\n/etc\n/etc/tool.conf\n/usr\n/usr/lib\n/usr/lib/tool\n"+
		"/usr/lib/tool/a\n/usr/lib/tool/old\n/usr/lib/tool/old/o\n")
	o.WriteFile("var/lib/dpkg/status", stanza("base", "1", "b")+stanza("tool", "2", "conf1"))
}

// newKeepingSite is newSite with the files that are merged without a rule.
func newKeepingSite(t *testing.T, v image.Version, m *replicatest.Memory) *site {
	t.Helper()
	o := newSite(t, v, m)
	o.spec.Rules.Merge = recordmerge.Builtin()
	o.rules()
	return o
}

// stayMove returns the move to v by which packages in conflict stay the node's.
func (o *site) stayMove(v image.Version, old, next []vfstest.Entry) replica.Move {
	o.t.Helper()
	got, err := o.PackageConflicts(o.comparison(packagesOf(old), packagesOf(next), true))
	if err != nil {
		o.t.Fatal(err)
	}
	move := o.moveTo(v, nil)
	if len(got.List) > 0 {
		move.Stay, move.StayPackages = got.Files, []string{got.List[0].Name}
	}
	return move
}

// wantKept checks that the package is as the node has it, over the version with the number.
func (o *site) wantKept(number string) {
	o.t.Helper()
	for path, content := range map[string]string{
		"usr/lib/tool/a": "a2", "usr/lib/tool/b": gone(vfs.ENOENT), "usr/lib/tool/more/c": gone(vfs.ENOENT),
		"usr/lib/tool/old/o": "o1", "etc/tool.conf": "conf1", "usr/lib/base": "base " + number,
		"var/lib/dpkg/status": stanza("base", number, "b") + stanza("tool", "2", "conf1"),
	} {
		o.Want(path, content)
	}
}

func TestAPackageStaysTheNodesAsAWhole(t *testing.T) {
	m := newMemory(t)
	a, b := keptTool()
	one, two := m.Version(t, 1, a), m.Version(t, 2, b)
	o := newKeepingSite(t, one, m)
	o.upgradeKept()
	conf := o.Handle("etc/tool.conf")
	dry := testkit.Value(o.s.Preview(t.Context(), []replica.Move{o.stayMove(two, a, b)}))(t)
	if got := len(dry); got != 1 || dry[0].Path != "var/lib/dpkg/status" {
		t.Errorf("a dry run would set aside %v", dry)
	}
	o.spec.Version = one
	o.wantKept("1")
	if _, err := o.s.Switch(t.Context(), []replica.Move{o.stayMove(two, a, b)}); err != nil {
		t.Fatal(err)
	}
	o.wantKept("1.1")
	if got := o.Handle("etc/tool.conf"); got != conf {
		t.Error("a file that stays has got another handle")
	}
	if diff := cmp.Diff([]string{"var/lib/dpkg/status entry"}, savedOf(o)); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
	o.restart()
	o.wantKept("1.1")

	// Back, and forth again: the next rollout decides again.
	if _, err := o.s.Switch(t.Context(), []replica.Move{o.stayMove(one, b, a)}); err != nil {
		t.Fatal(err)
	}
	o.wantKept("1")
	got, err := o.PackageConflicts(o.comparison(packagesOf(a), packagesOf(b), true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.s.Switch(t.Context(), []replica.Move{o.moveTo(two, got.Paths)}); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		"usr/lib/tool/a": "a1.1", "usr/lib/tool/b": "b1.1", "usr/lib/tool/more/c": "c1.1",
		"usr/lib/tool/old/o": gone(vfs.ENOENT), "etc/tool.conf": "conf1.1",
		"var/lib/dpkg/status": stanza("base", "1.1", "b") + stanza("tool", "1.1", "conf1.1"),
	} {
		o.Want(path, content)
	}
	if found, err := o.Check(); err != nil || len(found.Problems) > 0 {
		t.Errorf("the check finds %v, %v", found, err)
	}
}

// A node that has removed a package with its directory does not get the master's new files of it.
func TestARemovedPackageStaysRemoved(t *testing.T) {
	m := newMemory(t)
	a, b := keptTool()
	one, two := m.Version(t, 1, a), m.Version(t, 2, b)
	for _, foreign := range []bool{false, true} {
		next, want := two, gone(vfs.ENOENT)
		if foreign { // another package brings a file into the directory
			b := slices.Insert(slices.Clone(b), 7, replicatest.File("usr/lib/tool/aa", "foreign"))
			next, want = m.Version(t, 3, b), "foreign"
		}
		o := newKeepingSite(t, one, m)
		o.RemoveAll("usr/lib/tool")
		o.RemoveAll("etc/tool.conf")
		o.RemoveAll("var/lib/dpkg/info/tool.list")
		o.WriteFile("var/lib/dpkg/status", stanza("base", "1", "b"))
		if _, err := o.s.Switch(t.Context(), []replica.Move{o.stayMove(next, a, b)}); err != nil {
			t.Fatal(err)
		}
		for path, content := range map[string]string{
			"usr/lib/tool/a": gone(vfs.ENOENT), "usr/lib/tool/b": gone(vfs.ENOENT), "usr/lib/tool/aa": want,
			"usr/lib/tool/more/c": gone(vfs.ENOENT), "etc/tool.conf": gone(vfs.ENOENT), "usr/lib/base": "base 1.1",
			"var/lib/dpkg/status": stanza("base", "1.1", "b"),
		} {
			o.Want(path, content)
		}
	}
}

// The server dies at each point of a switch in which a package stays the node's.
func TestAnInterruptedSwitchLeavesAPackageTheNodes(t *testing.T) {
	m := newMemory(t)
	a, b := keptTool()
	one, two := m.Version(t, 1, a), m.Version(t, 2, b)
	for point := 1; ; point++ {
		o := newKeepingSite(t, one, m)
		o.upgradeKept()
		move := o.stayMove(two, a, b)
		left := point
		o.fault = func(string) error {
			if left--; left <= 0 {
				return errCrash
			}
			return nil
		}
		_, err := o.s.Switch(context.Background(), []replica.Move{move})
		if left > 0 {
			if err != nil || point < 8 {
				t.Errorf("%d points to crash at, %v", point, err)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.resume = true // as the server attaches a node with packages of its own
		o.restart()
		if o.Version().Number == 1 {
			o.wantKept("1")
			if _, err := o.s.Switch(t.Context(), []replica.Move{o.stayMove(two, a, b)}); err != nil {
				t.Fatal(err)
			}
		}
		o.wantKept("1.1")
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
	got, err := o.PackageConflicts(o.comparison(empty, same, false))
	if err != nil || got.Whole || len(got.List) > 0 || len(got.Own) != 60 {
		t.Errorf("the master has not changed its database: %v, %d conflicts, %d of the node's own, %v",
			got.Whole, len(got.List), len(got.Own), err)
	}
	got, err = o.PackageConflicts(o.comparison(empty, other, false))
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
	got, err := o.PackageConflicts(o.comparison(packagesOf(tool1), packagesOf(tool11), true))
	want := []pkgdb.Conflict{{Name: "tool", Arch: "all", Old: "1", Master: "1.1"}} // as if nothing were installed
	if diff := cmp.Diff(want, got.List); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
