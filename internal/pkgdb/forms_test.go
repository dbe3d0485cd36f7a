package pkgdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dim/internal/testkit"
)

// rpmHeaders returns the headers in the database that rpm has made.
func rpmHeaders(t testing.TB) (list [][]byte) {
	t.Helper()
	testkit.Must(t, walkSqlite(rpmdb(t), func(header []byte) error {
		list = append(list, bytes.Clone(header))
		return nil
	}))
	return list
}

// rpmQuery returns what rpm -qa prints of that database.
func rpmQuery(t testing.TB) []string {
	t.Helper()
	text := testkit.Value(os.ReadFile("testdata/rpm-qa.golden"))(t)
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// berkeleyFile returns a hash table that Berkeley DB has made of headers, as rpm has them.
func berkeleyFile(t testing.TB, headers [][]byte, options ...string) []byte {
	t.Helper()
	load, err := exec.LookPath("db5.3_load")
	if err != nil {
		t.Skipf("db5.3_load: %v", err)
	}
	var dump bytes.Buffer
	fmt.Fprint(&dump, "VERSION=3\nformat=bytevalue\ntype=hash\n")
	for _, o := range options {
		fmt.Fprintln(&dump, o)
	}
	fmt.Fprint(&dump, "HEADER=END\n")
	var order binary.AppendByteOrder = binary.LittleEndian
	if strings.Contains(strings.Join(options, " "), "db_lorder=4321") {
		order = binary.BigEndian
	}
	for i, header := range append([][]byte{order.AppendUint32(nil, uint32(len(headers)))}, headers...) {
		fmt.Fprintf(&dump, " %x\n %x\n", order.AppendUint32(nil, uint32(i)), header)
	}
	fmt.Fprint(&dump, "DATA=END\n")
	name := filepath.Join(t.TempDir(), "Packages")
	cmd := exec.Command(load, name)
	cmd.Stdin = &dump
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("db5.3_load: %v: %s", err, out)
	}
	return testkit.Value(os.ReadFile(name))(t)
}

// ndbFile returns a database in the form ndb, as rpm's rpmpkg.c writes it.
func ndbFile(headers [][]byte) []byte {
	const u32 = 4
	le := binary.LittleEndian
	file := make([]byte, ndbPage)
	copy(file, ndbMagic)
	le.PutUint32(file[12:], 1)
	le.PutUint32(file[16:], uint32(len(headers)+1))
	for at := ndbHeaderSize; at < ndbPage; at += ndbUnit {
		copy(file[at:], ndbSlotMagic)
	}
	for i, header := range headers {
		units := (ndbUnit + len(header) + ndbTail + ndbUnit - 1) / ndbUnit
		slot := file[ndbHeaderSize+(2*i+1)*ndbUnit:] // every second one is free
		le.PutUint32(slot[u32:], uint32(i+1))
		le.PutUint32(slot[2*u32:], uint32(len(file)/ndbUnit))
		le.PutUint32(slot[3*u32:], uint32(units))
		block := make([]byte, units*ndbUnit)
		copy(block, ndbBlockMagic)
		le.PutUint32(block[u32:], uint32(i+1))
		le.PutUint32(block[3*u32:], uint32(len(header)))
		copy(block[ndbUnit:], header)
		tail := block[len(block)-ndbTail:]
		le.PutUint32(tail, adler32.Checksum(block[:len(block)-ndbTail]))
		le.PutUint32(tail[u32:], uint32(len(header)))
		copy(tail[2*u32:], "BlbE")
		file = append(file, block...)
	}
	return file
}

func TestPackagesOfRpmAreTheSameInAllFormsAndPlaces(t *testing.T) {
	headers := rpmHeaders(t)
	files := map[string][]byte{"Packages.db": ndbFile(headers)}
	if _, err := exec.LookPath("db5.3_load"); err == nil {
		files["Packages"] = berkeleyFile(t, headers)
	} else {
		t.Logf("Berkeley DB is not checked: %v", err)
	}
	for name, file := range files {
		for _, dir := range rpmDirs {
			d := Load(fstest.MapFS{dir + "/" + name: {Data: file}})
			if diff := cmp.Diff(rpmQuery(t), names(d.Packages)); diff != "" || len(d.Unread) > 0 {
				t.Errorf("%s/%s: %s %q", dir, name, diff, d.Unread)
			}
			const path = "usr/lib/pkg50/f300"
			if owners := d.Owners(map[string]bool{path: true}); owners[path] != "pkg50" {
				t.Errorf("%s/%s: owners %v", dir, name, owners)
			}
		}
	}
}

func TestBerkeleyDBOfAllPageSizesAndByteOrders(t *testing.T) {
	headers := rpmHeaders(t)
	for _, options := range [][]string{
		{"db_pagesize=512"}, {"db_pagesize=4096"}, {"db_pagesize=65536"}, {"db_lorder=4321", "db_pagesize=1024"},
	} {
		d := Load(fstest.MapFS{"var/lib/rpm/Packages": {Data: berkeleyFile(t, headers, options...)}})
		if diff := cmp.Diff(rpmQuery(t), names(d.Packages)); diff != "" || len(d.Unread) > 0 {
			t.Errorf("%s: %s %q", options, diff, d.Unread)
		}
	}
}

func TestDamagedFormsOfRpmAreReported(t *testing.T) {
	headers := rpmHeaders(t)
	ndb := ndbFile(headers)
	other := bytes.Clone(ndb)
	copy(other[ndbPage+4:], "\xff\xff") // the block says that it is of another package
	later := append([]byte("RpmP\x01"), ndb[5:]...)
	files := map[string]fstest.MapFS{
		"ndb, cut off":                      {"var/lib/rpm/Packages.db": {Data: ndb[:len(ndb)-20]}},
		"ndb, no slots":                     {"var/lib/rpm/Packages.db": {Data: ndb[:100]}},
		"ndb, a block of another":           {"var/lib/rpm/Packages.db": {Data: other}},
		"ndb, of a later version":           {"var/lib/rpm/Packages.db": {Data: later}},
		"Berkeley DB, only a first page":    {"var/lib/rpm/Packages": {Data: make([]byte, 512)}},
		"Berkeley DB, nothing of it":        {"var/lib/rpm/Packages": {Data: []byte{}}},
		"Berkeley DB in the place of newer": {"var/lib/rpm/Packages": {Data: ndb}},
	}
	for name, root := range files {
		if d := Load(root); len(d.Unread) != 1 {
			t.Errorf("%s: unread %q", name, d.Unread)
		}
	}
	berkeley := berkeleyFile(t, headers)
	for name, cut := range map[string]func([]byte) []byte{
		"cut off":      func(b []byte) []byte { return b[:len(b)-4096] },
		"sums":         func(b []byte) []byte { b[atFlags] |= flagSums; return b },
		"a btree":      func(b []byte) []byte { b[atType] = 9; return b },
		"a large page": func(b []byte) []byte { b[atPageSize+2] = 2; return b },
	} {
		d := Load(fstest.MapFS{"var/lib/rpm/Packages": {Data: cut(bytes.Clone(berkeley))}})
		if len(d.Unread) != 1 {
			t.Errorf("Berkeley DB, %s: unread %q", name, d.Unread)
		}
	}
}

const apkText = `C:Q1abc=
P:musl
V:1.2.5-r9
A:x86_64
S:400000
o:musl
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1def=
F:usr

P:alpine-baselayout
V:3.6.8-r1
A:noarch
F:
R:top
F:etc
R:motd

C:Q1nameless
V:1
`

func TestPackagesOfApk(t *testing.T) {
	for _, place := range apkInstalled {
		d := Load(fstest.MapFS{place: {Data: []byte(apkText)}})
		want := []string{"alpine-baselayout noarch 3.6.8-r1", "musl x86_64 1.2.5-r9"}
		if diff := cmp.Diff(want, names(d.Packages)); diff != "" || len(d.Unread) > 0 {
			t.Errorf("%s: %s %q", place, diff, d.Unread)
		}
		got := d.Owners(map[string]bool{"lib/ld-musl-x86_64.so.1": true, "top": true, "etc/motd": true, "etc": true})
		wantOwners := map[string]string{
			"lib/ld-musl-x86_64.so.1": "musl", "top": "alpine-baselayout", "etc/motd": "alpine-baselayout",
		}
		if diff := cmp.Diff(wantOwners, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPackagesOfPacman(t *testing.T) {
	const bash = PacmanLocal + "/bash-5.2.037-1/"
	d := Load(fstest.MapFS{
		PacmanLocal + "/ALPM_DB_VERSION": {Data: []byte("9\n")},
		bash + "desc": {Data: []byte("%NAME%\nbash\n\n%VERSION%\n5.2.037-1\n\n%DEPENDS%\nreadline\nglibc\n\n" +
			"%ARCH%\nx86_64\n\n%SIZE%\n9\n")},
		bash + "files": {Data: []byte("%FILES%\nusr/\nusr/bin/\nusr/bin/bash\n\n%BACKUP%\n" +
			"etc/bash.bashrc\tabc\n")},
		PacmanLocal + "/interrupted-1/mtree": {},
	})
	if diff := cmp.Diff([]string{"bash x86_64 5.2.037-1"}, names(d.Packages)); diff != "" || len(d.Unread) > 0 {
		t.Errorf("%s %q", diff, d.Unread)
	}
	got := d.Owners(map[string]bool{"usr/bin/bash": true, "etc/bash.bashrc\tabc": true, bash + "desc": true})
	want := map[string]string{"usr/bin/bash": "bash", bash + "desc": "bash"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzForms(f *testing.F) {
	few := rpmHeaders(f)[:2]
	f.Add(ndbFile(few), uint32(0), []byte{})
	f.Add(ndbFile(few), uint32(40), []byte{9, 0, 0, 0, 9})
	f.Add(berkeleyPages(few[0][:300]), uint32(0), []byte{})
	f.Add(berkeleyPages(few[0][:300]), uint32(512+berkeleyHead), []byte{1, 2})
	f.Fuzz(func(_ *testing.T, b []byte, at uint32, patch []byte) {
		if int64(at) < int64(len(b)) {
			copy(b[at:], patch)
		}
		d := Database{files: map[string][]string{}}
		_, _ = walkNdb(b, d.addHeader), walkBerkeley(b, d.addHeader) // only checks that they return
		_ = d.parseApk(b)
		_ = pacmanSections(b)
	})
}

// berkeleyPages returns a hash table of one package with pages of 512 bytes. A fuzz test does not run other programs.
func berkeleyPages(header []byte) []byte {
	le := binary.LittleEndian
	file := make([]byte, 3*512)
	le.PutUint32(file[atMagic:], berkeleyMagic)
	le.PutUint32(file[atPageSize:], 512)
	le.PutUint32(file[atLastPage:], 2)
	file[atType] = hashFirst
	page := file[512:1024]
	page[atType] = hashSorted
	le.PutUint16(page[atEntries:], 2)
	le.PutUint16(page[berkeleyHead:], 512-5)
	le.PutUint16(page[berkeleyHead+2:], 512-5-longItemSize)
	copy(page[512-5:], "\x01\x01\x00\x00\x00")
	item := page[512-5-longItemSize:]
	item[0] = itemLong
	le.PutUint32(item[4:], 2)
	le.PutUint32(item[8:], uint32(len(header)))
	long := file[1024:]
	long[atType] = longValue
	le.PutUint16(long[atLength:], uint16(len(header)))
	copy(long[berkeleyHead:], header)
	return file
}
