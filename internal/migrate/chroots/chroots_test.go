package chroots

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// write makes files below a directory, and returns it.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		testkit.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if !strings.HasSuffix(name, "/") {
			testkit.Must(t, os.WriteFile(path, []byte(text), 0o644))
		}
	}
	return dir
}

// program is the header of a program.
func program(machine elf.Machine) string {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[19], h[20], h[52] = 2, byte(machine), byte(machine>>8), 1, 64
	return string(h)
}

func named(t testing.TB, name string) *Program {
	t.Helper()
	for _, p := range Programs() {
		if p.Name == name {
			return &p
		}
	}
	t.Fatal("there is no program " + name)
	return nil
}

func notes(r *Root) string {
	var b strings.Builder
	for _, n := range r.Notes {
		b.WriteString(strings.ReplaceAll(n.String(), r.Path, "ROOT") + "\n")
	}
	return b.String()
}

func TestRootsOfWarewulf(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"rocky 9/rootfs/etc/warewulf/excludes":            "# big\n/boot/\n/usr/share/GeoIP\n/usr/share/doc/*\n*\n[\n",
		"rocky 9/rootfs/usr/bin/bash":                     program(elf.EM_AARCH64),
		"rocky 9/rootfs/usr/lib/modules/5.14/modules.dep": "",
		"rocky 9/rootfs/sbin/init":                        "",
		"rocky 9/rootfs/warewulf/config":                  "",
		"old/etc/passwd":                                  "",
		"old/bin/ls":                                      "",
		"empty/x":                                         "",
	})
	roots := testkit.Value(named(t, "warewulf").Find([]string{dir, filepath.Join(dir, "old")}, nil))(t)
	if len(roots) != 2 || roots[0].Name != "old" || roots[1].Name != "rocky-9" || roots[1].Arch != "arm64" {
		t.Fatalf("%+v", roots)
	}
	want := []string{"/usr/share/GeoIP", "/usr/share/doc/*", "/warewulf"}
	if d := cmp.Diff(want, roots[1].Excludes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(strings.Join([]string{
		"ROOT/etc/warewulf/excludes:2: /boot is not excluded: the kernel that nodes boot is in it",
		`ROOT/etc/warewulf/excludes:5: "/*" is not excluded: it covers the whole root`,
		`ROOT/etc/warewulf/excludes:6: "/[" is not excluded: it is not a pattern that can be used here`, "",
	}, "\n"), notes(&roots[1])); d != "" {
		t.Error(d)
	}
	for _, want := range []string{"has no kernel", "has no init", "architecture of ROOT is not known"} {
		if got := notes(&roots[0]); !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

func TestRootsOfXCAT(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"netboot/rocky9.4/x86_64/compute/rootimg/usr/bin/bash":                   program(elf.EM_X86_64),
		"netboot/rocky9.4/x86_64/compute/rootimg/etc/init.d/statelite":           "",
		"netboot/rocky9.4/x86_64/compute/rootimg/opt/xcat/xcatdsklspost":         "",
		"netboot/rocky9.4/x86_64/compute/rootimg/lib/modules/5.14.1/modules.dep": "",
		"netboot/rocky9.4/x86_64/compute/rootimg.cpio.gz":                        "",
		"lists/rocky/compute.exlist":                                             "./usr/share/none*\n",
		"lists/rocky/compute.rocky9.x86_64.exlist": "./boot*\n./usr/share/man* # pages\n#INCLUDE:more#\n" +
			"./usr/share/locale/*\n+./usr/share/locale/en_US*\n-./var/cache/*\n",
		"lists/rocky/more": "./usr/include*\n./lib/modules/*/kernel/sound*\n",
	})
	paths, lists := []string{filepath.Join(dir, "netboot")}, []string{filepath.Join(dir, "lists")}
	roots := testkit.Value(named(t, "xcat").Find(paths, lists))(t)
	if len(roots) != 1 || roots[0].Name != "rocky9.4-x86_64-netboot-compute" || roots[0].Arch != "amd64" {
		t.Fatalf("%+v", roots)
	}
	want := []string{"/usr/share/man*", "/usr/include*", "/var/cache/*", "/opt/xcat", "/etc/init.d/statelite"}
	if d := cmp.Diff(want, roots[0].Excludes); d != "" {
		t.Error(d)
	}
	for _, want := range []string{
		"x86_64.exlist:1: /boot* is not excluded: the kernel",
		"x86_64.exlist:4: /usr/share/locale/* is not excluded: /usr/share/locale/en_US* in it is kept",
		"more:2: /lib/modules/*/kernel/sound* is not excluded: the kernel",
	} {
		if got := notes(&roots[0]); !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

func TestWhereRootsAreSearched(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"a/b/c/four/etc/hosts": "", "a/b/c/four/bin/ls": "", "a/b/c/d/five/etc/hosts": "", "a/b/c/d/five/bin/ls": "",
		"a/one/etc/hosts": "", "a/one/bin/ls": "", "a/one/srv/inner/etc/hosts": "", "a/one/srv/inner/bin/ls": "",
	})
	testkit.Must(t, os.Symlink("one", filepath.Join(dir, "a/link")))
	roots := testkit.Value(named(t, "warewulf").Find([]string{filepath.Join(dir, "a/one"), dir}, nil))(t)
	var got []string
	for _, r := range roots {
		got = append(got, strings.TrimPrefix(r.Path, dir))
	}
	if d := cmp.Diff([]string{"/a/b/c/four", "/a/one"}, got); d != "" {
		t.Error(d)
	}
}

// A list includes others of the directories that were given, whatever it names.
func TestAListIncludesNothingElse(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"netboot/rocky9.4/x86_64/compute/rootimg/usr/bin/bash": program(elf.EM_X86_64),
		"netboot/rocky9.4/x86_64/compute/rootimg/etc/passwd":   "",
		"secret": "/secret\n", "more/b": "/b\n", "given/a": "/a\n",
	})
	text := "#INCLUDE:../secret#\n#INCLUDE:DIR/secret#\n#INCLUDE:link#\n#INCLUDE:DIR/more/b#\n#INCLUDE:a#\n/c\n"
	list := filepath.Join(dir, "given/list")
	write(t, dir, map[string]string{"given/list": strings.ReplaceAll(text, "DIR", dir)})
	testkit.Must(t, os.Symlink("../secret", filepath.Join(dir, "given/link")))
	roots := testkit.Value(named(t, "xcat").Find([]string{filepath.Join(dir, "netboot")},
		[]string{list, filepath.Join(dir, "more")}))(t)
	if d := cmp.Diff([]string{"/b", "/a", "/c"}, roots[0].Excludes); d != "" {
		t.Error(d)
	}
	got := notes(&roots[0])
	if strings.Count(got, "secret: it is not in "+dir) != 2 || !strings.Contains(got, "link: path escapes") {
		t.Error(got)
	}
}

func TestNoRoots(t *testing.T) {
	dir := t.TempDir()
	_, err := named(t, "xcat").Find([]string{dir, filepath.Join(dir, "none")}, nil)
	for _, want := range []string{"no directory in it has an installed system", "no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// What cannot be read as a file is not waited for, whoever made the root.
func TestAFIFOInARootIsNotWaitedFor(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"x/etc/warewulf/a": "", "x/usr/bin/a": "", "x/bin/a": ""})
	for _, name := range []string{"x/etc/warewulf/excludes", "x/usr/bin/bash", "list"} {
		testkit.Must(t, unix.Mkfifo(filepath.Join(dir, name), 0o600))
	}
	x := exlist{root: &Root{Path: filepath.Join(dir, "x")}}
	x.read(filepath.Join(dir, "list"), 0)
	if got := notes(x.root); !strings.Contains(got, "list: it is not a regular file") {
		t.Error(got)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "x/bin/ls"), []byte(program(elf.EM_AARCH64)), 0o755))
	roots := testkit.Value(named(t, "warewulf").Find([]string{dir}, nil))(t)
	if len(roots) != 1 || roots[0].Arch != "arm64" {
		t.Fatalf("%+v", roots)
	}
	if got := notes(&roots[0]); !strings.Contains(got, "excludes: it is not a regular file") {
		t.Error(got)
	}
}

// XML has no control characters: written anyhow, they would be another path.
func TestControlCharactersAreNotWritten(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"x/bin/ls": "", "x/etc/warewulf/excludes": "/a\x1bb\n/c\xffd\n/e\n"})
	roots := testkit.Value(named(t, "warewulf").Find([]string{dir}, nil))(t)
	if d := cmp.Diff([]string{"/e"}, roots[0].Excludes); d != "" || len(roots[0].Notes) < 2 {
		t.Error(d, notes(&roots[0]))
	}
	write(t, dir, map[string]string{"y\x1b[m/bin/ls": "", "y\x1b[m/etc/a": ""})
	_, err := named(t, "warewulf").Find([]string{dir}, nil)
	if err == nil || !strings.Contains(err.Error(), `y\x1b[m" cannot be written as XML`) {
		t.Error(err)
	}
}

const description = `<cluster name="c">
  <network name="boot" subnet="10.0.0.0/24"/>
  <server name="head" roles="head image"><interface network="boot" address="10.0.0.1"/></server>
  <image name="a" arch="amd64" master="dir:/a/rootimg" />
  <image name="b" arch="amd64" master="dir:/b"><!-- kept -->
    <exclude path="/tmp/*"/>
  </image>
  <node name="n1" image="a" servers="head"><interface name="eth0" network="boot" address="10.0.0.2"/></node>
</cluster>
`

func excludes(patterns ...string) string {
	return "    <exclude path=\"" + strings.Join(patterns, "\"/>\n    <exclude path=\"") + "\"/>\n"
}

func TestInsert(t *testing.T) {
	roots := []Root{
		{Name: "x", Path: "/a/rootimg", Excludes: []string{"/usr/share/doc", "/a&b"}},
		{Name: "y", Path: "/b", Excludes: []string{"/tmp/*", "/var/cache/*"}},
		{Name: "z", Path: "/z", Arch: "arm64", Excludes: []string{"/opt/xcat"}},
	}
	got := string(testkit.Value(Insert([]byte(description), roots))(t))
	for _, want := range []string{
		"master=\"dir:/a/rootimg\" >\n" + excludes("/usr/share/doc", "/a&amp;b") + "  </image>\n",
		"master=\"dir:/b\">\n    <exclude path=\"/var/cache/*\"/><!-- kept -->\n" + excludes("/tmp/*") + "  </image>\n",
		"arch=\"arm64\" master=\"dir:/z\">\n" + excludes("/opt/xcat") + "  </image>\n</cluster>\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if _, err := cluster.Parse(cluster.Source{Name: "f", XML: []byte(got)}); err != nil {
		t.Error(err)
	}
	again := string(testkit.Value(Insert([]byte(got), roots))(t))
	if d := cmp.Diff(got, again); d != "" {
		t.Errorf("the second time: %s", d)
	}
	_, err := Insert([]byte(description), []Root{{Name: "a", Path: "/other"}})
	if err == nil || err.Error() != "image a has another master, dir:/a/rootimg" {
		t.Error(err)
	}
}

func FuzzLists(f *testing.F) {
	f.Add("./boot*\n./usr/share/locale/*\n+./usr/share/locale/en_US*\n#INCLUDE:list#\n/*\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := write(t, t.TempDir(), map[string]string{"list": text, "root/etc/warewulf/excludes": text})
		r := Root{Name: "x", Path: filepath.Join(dir, "root")}
		xcatExcludes(&r, nil, []string{filepath.Join(dir, "list")})
		root := testkit.Value(os.OpenRoot(r.Path))(t)
		warewulfExcludes(&r, root, nil)
		testkit.Must(t, root.Close())
		xml := strings.ReplaceAll(description, "</cluster>", r.XML()+"</cluster>")
		if _, err := cluster.Parse(cluster.Source{Name: "f", XML: []byte(xml)}); err != nil {
			t.Error(err)
		}
	})
}
