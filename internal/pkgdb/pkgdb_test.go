package pkgdb

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dim/internal/testkit"
)

func names(list []Package) []string {
	var lines []string
	for _, p := range list {
		lines = append(lines, p.Name+" "+p.Arch+" "+p.Version)
	}
	return lines
}

func TestPackagesAreThoseOfDpkgQuery(t *testing.T) {
	out, err := exec.Command("dpkg-query", "-W", "-f",
		`${db:Status-Status} ${Package} ${Architecture} ${Version}`+"\n").Output()
	if err != nil {
		t.Skipf("dpkg-query: %v", err)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			want = append(want, p)
		}
	}
	slices.Sort(want)
	d := Load(os.DirFS("/"))
	got := names(d.Packages)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(d.Unread) > 0 {
		t.Errorf("%s %q", diff, d.Unread)
	}
}

func TestOwnersAreThoseOfDpkgQuery(t *testing.T) {
	out, err := exec.Command("dpkg-query", "-S", "*/dpkg-query").Output()
	if err != nil || !strings.Contains(string(out), "dpkg: /usr/bin/dpkg-query\n") {
		t.Skipf("dpkg-query: %v", err)
	}
	got := Load(os.DirFS("/")).Owners(map[string]bool{"usr/bin/dpkg-query": true, "usr/bin/no-such-program": true})
	if diff := cmp.Diff(map[string]string{"usr/bin/dpkg-query": "dpkg"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPackageStatesOfDpkg(t *testing.T) {
	status := `Package: there
Status: install ok installed
Architecture: amd64
Description: a package
 Version: 9 is not its version
Version: 1:2.0-1

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: half
Status: install reinstreq half-configured
Architecture: all
Version: 3
Conffiles:
 /etc/half 0123

Status: install ok installed
Version: nameless
`
	root := fstest.MapFS{
		"var/lib/dpkg/status":                     {Data: []byte(status)},
		"var/lib/dpkg/status.d/base":              {Data: []byte("Package: base\nVersion: 12\nArchitecture: all\n")},
		"var/lib/dpkg/status.d/base.md5sums":      {Data: []byte("Package: no\nVersion: 1\n")},
		"var/lib/dpkg/info/there:amd64.list":      {Data: []byte("/.\n/lib\n/lib/libthere.so.1\n/etc/there\n")},
		"var/lib/dpkg/info/there:amd64.md5sums":   {Data: []byte("/usr/bin/half\n")},
		"var/lib/dpkg/info/half.list":             {Data: []byte("/usr/bin/half\n")},
		"lib":                                     {Data: []byte("usr/lib"), Mode: os.ModeSymlink | 0o777},
		"usr/lib/libthere.so.1":                   {},
		"var/lib/dpkg/status.d/subdirectory/file": {},
	}
	d := Load(root)
	want := []string{"base all 12", "half all 3", "there amd64 1:2.0-1"}
	if diff := cmp.Diff(want, names(d.Packages)); diff != "" || len(d.Unread) > 0 {
		t.Errorf("%s %q", diff, d.Unread)
	}
	owners := d.Owners(map[string]bool{"usr/lib/libthere.so.1": true, "usr/bin/half": true, "etc/other": true})
	wantOwners := map[string]string{"usr/lib/libthere.so.1": "there", "usr/bin/half": "half"}
	if diff := cmp.Diff(wantOwners, owners); diff != "" {
		t.Error(diff)
	}
}

// rpmdb returns a database made by rpm 4.18. It has 60 packages, some with so many files that their headers need
// overflow pages. rpm-qa.golden is the output of rpm -qa.
func rpmdb(t testing.TB) []byte {
	f, err := os.Open("testdata/rpmdb.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackagesAreThoseOfRpmQuery(t *testing.T) {
	want, err := os.ReadFile("testdata/rpm-qa.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range rpmDirs {
		d := Load(fstest.MapFS{dir + "/rpmdb.sqlite": {Data: rpmdb(t)}, dir + "/rpmdb.sqlite-wal": {}})
		diff := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), names(d.Packages))
		if diff != "" || len(d.Unread) > 0 {
			t.Errorf("%s: %s %q", dir, diff, d.Unread)
		}
		all := map[string]bool{}
		for i := range 301 {
			all[fmt.Sprintf("usr/lib/pkg50/f%d", i)] = true
		}
		owners := d.Owners(all)
		if len(owners) != 300 || owners["usr/lib/pkg50/f300"] != "pkg50" {
			t.Errorf("%s: %d files of pkg50 have an owner, want 300", dir, len(owners))
		}
	}
}

func TestUnreadableDatabasesAreReported(t *testing.T) {
	for name, root := range map[string]fstest.MapFS{
		"Berkeley DB": {"var/lib/rpm/Packages": {Data: []byte("x")}},
		"ndb":         {"usr/lib/sysimage/rpm/Packages.db": {Data: []byte("x")}},
		"no SQLite":   {"usr/lib/sysimage/rpm/rpmdb.sqlite": {Data: []byte("x")}},
		"cut off":     {"usr/lib/sysimage/rpm/rpmdb.sqlite": {Data: rpmdb(t)[:9000]}},
		"a log": {
			"var/lib/rpm/rpmdb.sqlite":     {Data: rpmdb(t)},
			"var/lib/rpm/rpmdb.sqlite-wal": {Data: []byte("x")},
		},
	} {
		if d := Load(root); len(d.Unread) != 1 {
			t.Errorf("%s: %q", name, d.Unread)
		}
	}
	if d := Load(fstest.MapFS{"etc/motd": {}}); len(d.Unread) > 0 || len(d.Packages) > 0 {
		t.Errorf("no database: %v", d)
	}
}

// The bytes of all records together are at most those of the file.
func TestRecordsOfSQLiteShareNoBytes(t *testing.T) {
	for name, want := range map[string]error{"as it is": nil, "overlapping": errSqlite} {
		file := rpmdb(t)
		if want != nil {
			file = overlapping(file)
		}
		s, err := openSqlite(file)
		testkit.Must(t, err)
		sum := 0
		err = s.table("Packages", func(record []byte) error {
			sum += len(record)
			return nil
		})
		if !errors.Is(err, want) || sum > len(file) {
			t.Errorf("%s: %v, %d bytes of %d", name, err, sum, len(file))
		}
	}
}

// overlapping returns a database whose leaves, apart from that of the schema, have one record as often as they have
// room for its place.
func overlapping(file []byte) []byte {
	be := binary.BigEndian
	size := int(be.Uint16(file[16:]))
	for page := file[size:]; len(page) >= size; page = page[size:] {
		if page[0] != pageLeaf || be.Uint16(page[3:]) == 0 {
			continue
		}
		at := be.Uint16(page[8:])
		n := (int(at) - 8) / 2
		be.PutUint16(page[3:], uint16(n))
		for i := range n {
			be.PutUint16(page[8+2*i:], at)
		}
	}
	return file
}

func TestOddStatusFilesOfDpkg(t *testing.T) {
	const a, b = "Package: a\nStatus: install ok installed\nVersion: 1\n", "package: b\nVERSION: 2\nArchitecture: all\n"
	for name, text := range map[string]string{
		"lines that end with CR LF":   strings.ReplaceAll(a+"\n"+b, "\n", "\r\n"),
		"a blank in the parting line": a + " \n" + b,
		"a tab in the parting line":   a + "\t\n\n" + b,
		"no parting line":             a + b,
	} {
		d := Load(fstest.MapFS{"var/lib/dpkg/status": {Data: []byte(text)}})
		if diff := cmp.Diff([]string{"a  1", "b all 2"}, names(d.Packages)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestFilesOfPackagesInStatusDAreThoseOfTheirSums(t *testing.T) {
	d := Load(fstest.MapFS{
		"var/lib/dpkg/status.d/foo":         {Data: []byte("Package: foo\nVersion: 12\n")},
		"var/lib/dpkg/status.d/foo.md5sums": {Data: []byte("0123  usr/bin/food\n4567  ./usr/lib/a b\n")},
	})
	got := d.Owners(map[string]bool{"usr/bin/food": true, "usr/lib/a b": true, "usr/bin/other": true})
	if d := cmp.Diff(map[string]string{"usr/bin/food": "foo", "usr/lib/a b": "foo"}, got); d != "" {
		t.Error(d)
	}
}

func TestADatabaseOfRpmIsFoundInAllItsPlacesOnce(t *testing.T) {
	file := &fstest.MapFile{Data: rpmdb(t)}
	for name, root := range map[string]fstest.MapFS{
		"ostree":           {"usr/share/rpm/rpmdb.sqlite": file},
		"left over beside": {"var/lib/rpm/rpmdb.sqlite": file, "var/lib/rpm/Packages": {Data: []byte("x")}},
		"left over elsewhere": {
			"usr/lib/sysimage/rpm/Packages.db": {Data: []byte("x")}, "var/lib/rpm/rpmdb.sqlite": file,
		},
	} {
		if d := Load(root); len(d.Packages) != 60 || len(d.Unread) > 0 {
			t.Errorf("%s: %d packages, unread %q", name, len(d.Packages), d.Unread)
		}
	}
	linked := fstest.MapFS{
		"usr/lib/sysimage/rpm/Packages.db": {Data: []byte("x")}, "var/lib/rpm/Packages.db": {Data: []byte("x")},
	}
	if d := Load(linked); len(d.Unread) != 1 {
		t.Errorf("an old database in a linked directory: %q", d.Unread)
	}
}

func TestAnUnreadDatabaseAddsAndRemovesNothing(t *testing.T) {
	dpkg := func(list ...string) (b []byte) {
		for _, p := range list {
			b = fmt.Appendf(b, "Package: %s\nVersion: 1\n\n", p)
		}
		return b
	}
	read := fstest.MapFS{"var/lib/rpm/rpmdb.sqlite": {Data: rpmdb(t)}}
	old := fstest.MapFS{"var/lib/rpm/Packages": {Data: []byte("x")}}
	for name, pair := range map[string][2]fstest.MapFS{
		"from Berkeley DB": {old, read},
		"to Berkeley DB":   {read, old},
		"gone":             {read, {"var/lib/rpm/other": {}}},
		"dpkg's is gone":   {{"var/lib/dpkg/status": {Data: dpkg("a", "b")}}, {"var/lib/dpkg/status": {}}},
	} {
		changes, unread := Compare(Load(pair[0]), Load(pair[1]))
		if len(changes) > 0 || len(unread) != 1 {
			t.Errorf("%s: %d changes, unread %q", name, len(changes), unread)
		}
	}
	changes, unread := Compare(Load(fstest.MapFS{}), Load(read))
	if len(changes) != 60 || len(unread) > 0 {
		t.Errorf("a first database: %d changes, unread %q", len(changes), unread)
	}
}

func TestDiff(t *testing.T) {
	p := func(name, version string) Package { return Package{name, "amd64", version} }
	old := []Package{
		p("gone", "1"), p("kernel", "5"), p("kernel", "6"), p("openssl", "3.0.16"), p("same", "1"),
		{"lib", "i386", "1"},
		{"lib", "amd64", "1"},
	}
	new := []Package{
		p("came", "1"), p("kernel", "6"), p("kernel", "7"), p("openssl", "3.0.17"), p("same", "1"),
		{"lib", "i386", "1"},
		{"lib", "amd64", "2"},
	}
	want := []Change{
		{"came", "amd64", "", "1"},
		{"gone", "amd64", "1", ""},
		{"kernel", "amd64", "5", "7"},
		{"lib", "amd64", "1", "2"},
		{"openssl", "amd64", "3.0.16", "3.0.17"},
	}
	if d := cmp.Diff(want, diff(old, new)); d != "" {
		t.Error(d)
	}
	if list := diff(old, old); list != nil {
		t.Errorf("of equal lists: %v", list)
	}
}

func FuzzDpkg(f *testing.F) {
	f.Add([]byte("Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nVersion:\n"))
	f.Add([]byte("\n\n\n \n\t:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range parseStatus(b) {
			if p.Name == "" || p.Version == "" || !bytes.Contains(b, []byte(p.Name)) {
				t.Errorf("%+v", p)
			}
		}
	})
}

func FuzzRpm(f *testing.F) {
	db := rpmdb(f)
	f.Add(db[:200_000], uint32(0), []byte{})
	f.Add(db[:50_000], uint32(4096), []byte{5, 0, 0, 0, 9})
	f.Fuzz(func(_ *testing.T, b []byte, at uint32, patch []byte) {
		if int(at) < len(b) {
			copy(b[at:], patch)
		}
		d := Database{files: map[string][]string{}}
		_ = walkSqlite(b, d.addHeader) // only checks that it returns
	})
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x02" +
		"\x00\x00\x03\xe8\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x01a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, _, ok := parseHeader(b); ok && p.Name == "" {
			t.Error("a package without a name")
		}
	})
}

func TestDatabasesAreRecognized(t *testing.T) {
	for name, want := range map[string]string{
		"usr/share/rpm/rpmdb.sqlite": "rpm", "var/lib/rpm/Packages": "rpm", "usr/lib/sysimage/rpm/Packages.db": "rpm",
		"var/lib/rpm/Group": "", "rpmdb.sqlite": "", "var/lib/dpkg/status": "dpkg", "var/lib/dpkg/status.d/a": "dpkg",
		"lib/apk/db/installed": "apk", "lib/apk/db/scripts.tar": "", "var/lib/pacman/local/a-1/desc": "pacman",
	} {
		if got := ManagerOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
