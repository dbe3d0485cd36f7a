package verdict

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/pkgdb"
)

func file(mode uint32, content string) *image.Entry {
	return &image.Entry{Type: image.Regular, Mode: mode, Size: uint64(len(content)), Digest: image.Sum([]byte(content))}
}

func TestClasses(t *testing.T) {
	a, b := file(0o644, "a"), file(0o644, "b")
	xa, xb := file(0o755, "a"), file(0o755, "b")
	link := &image.Entry{Type: image.Symlink, Target: "x"}
	for _, c := range []struct {
		path     string
		old, new *image.Entry
		want     class
	}{
		{"etc/passwd", a, b, dataClass},
		{"etc/init.d/ssh", xa, xb, dataClass},
		{"usr/share/dict/words", nil, a, dataClass},
		{
			"usr/bin", &image.Entry{Type: image.Directory, Mode: 0o755},
			&image.Entry{Type: image.Directory, Mode: 0o700},
			dataClass,
		},
		{"usr/bin/tool", xa, a, dataClass}, // only another mode
		{"usr/bin/tool", xa, xb, programClass},
		{"usr/bin/tool", xa, nil, programClass},
		{"usr/bin/sh", link, nil, programClass},
		{"opt/app/run", xa, xb, programClass},
		{"usr/lib/x86_64-linux-gnu/libssl.so.3", a, b, programClass},
		{"usr/lib/python3/dist-packages/apt/cache.py", a, b, programClass},
		{"usr/lib/systemd/system/ssh.service", a, b, programClass},
		{"etc/systemd/system/ssh.service.d/local.conf", nil, b, programClass},
		{"etc/systemd/system/ssh.service.d/note.txt", nil, b, dataClass},
		{"etc/systemd/system/multi-user.target.wants/x.service", nil, link, reloadClass},
		{"etc/systemd/system/timers.target.wants/x.timer", link, nil, reloadClass},
		{"usr/lib/systemd/system/x.timer", nil, b, reloadClass},
		{"usr/lib/systemd/system/x.socket.d/y.conf", nil, b, reloadClass},
		{"usr/lib/systemd/system-generators.txt", nil, b, dataClass},
		{"usr/share/dbus-1/system.d/org.x.conf", nil, b, reloadClass},
		{"etc/udev/rules.d/70-x.rules", a, b, reloadClass},
		{"etc/sysctl.conf", a, b, reloadClass},
		{"etc/sysctl.conf.dpkg-old", a, b, dataClass},
		{"usr/lib/tmpfiles.d/x.conf", a, b, reloadClass},
		{"etc/apparmor.d/usr.sbin.x", a, nil, reloadClass},
		{"boot/vmlinuz-6.1.0-40-amd64", nil, a, bootClass},
		{"boot/grub/grub.cfg", a, b, dataClass},
		{"usr/lib/modules/6.1.0-40-amd64/kernel/fs/nfs/nfs.ko", a, b, bootClass},
		{"lib/modules/6.1.0-40-amd64/modules.dep", a, b, bootClass},
		{"usr/lib/modules-load.d/x.conf", a, b, reloadClass},
	} {
		if got := classify(treediff.Change{Path: c.path, Old: c.old, New: c.new}); got != c.want {
			t.Errorf("%s: class %d, want %d", c.path, got, c.want)
		}
	}
}

// root is a directory with programs of this machine and the files that they load.
type root struct {
	t   *testing.T
	dir string
}

func newRoot(t *testing.T) root {
	r := root{t, t.TempDir()}
	r.write("usr/lib/systemd/system/.keep", "")
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} {
		r.check(os.Symlink("usr/"+top, filepath.Join(r.dir, top)))
	}
	return r
}

func (r root) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r root) write(name, content string) {
	r.t.Helper()
	full := filepath.Join(r.dir, name)
	r.check(os.MkdirAll(filepath.Dir(full), 0o755))
	r.check(os.WriteFile(full, []byte(content), 0o755))
}

// program copies a program of this machine and the files that ldd lists. It returns their paths.
func (r root) program(name string) []string {
	r.t.Helper()
	var list []string
	for _, p := range append([]string{name}, ldd(r.t, name)...) {
		real, err := filepath.EvalSymlinks(p)
		r.check(err)
		b, err := os.ReadFile(real)
		r.check(err)
		to := "usr/" + strings.TrimPrefix(strings.TrimPrefix(p, "/"), "usr/")
		r.write(to, string(b))
		list = append(list, to)
	}
	slices.Sort(list)
	return list
}

// ldd returns the libraries and the interpreter of a program that the dynamic linker finds.
func ldd(t *testing.T, name string) []string {
	t.Helper()
	out, err := exec.Command("ldd", name).Output()
	if err != nil {
		t.Skipf("ldd: %v", err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		for word := range strings.FieldsSeq(line) {
			if filepath.IsAbs(word) {
				list = append(list, word)
				break
			}
		}
	}
	return list
}

func TestLinkerFindsTheFilesThatLddLists(t *testing.T) {
	tried := 0
	for _, name := range []string{
		"/usr/bin/sleep", "/usr/bin/ssh", "/usr/bin/git", "/usr/bin/apt-get", "/usr/sbin/xfs_repair",
	} {
		if _, err := os.Stat(name); err != nil {
			continue
		}
		tried++
		r := newRoot(t)
		want := r.program(name)
		var got []string
		for _, p := range newLinker(tree{os.DirFS(r.dir)}).files(strings.TrimPrefix(name, "/")) {
			if fi, err := os.Lstat(filepath.Join(r.dir, p)); err == nil && fi.Mode().IsRegular() {
				got = append(got, p)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if tried == 0 {
		t.Skip("none of the programs is here")
	}
}

// dpkgStatus returns a database with package app in that version.
func dpkgStatus(version string) string {
	return "Package: app\nStatus: install ok installed\nVersion: " + version + "\n\n" +
		"Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n"
}

// host makes a root with services, among them one that sleeps, a script in a package, and one of type oneshot.
func host(t *testing.T) (root, string) {
	r := newRoot(t)
	files := r.program("/usr/bin/sleep")
	lib := ""
	for _, p := range files {
		if strings.Contains(p, "/libc.so.") {
			lib = p
		}
	}
	const units = "usr/lib/systemd/system/"
	r.write(units+"sleeper.service", "[Service]\nType=simple\nExecStart=-/bin/sleep 1000\n")
	r.write(units+"once.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 1\n")
	r.write(units+"idle.service", "[Service]\nExecStart=/bin/sleep 1\n")
	r.write(units+"getty@.service", "[Service]\nExecStart=/usr/sbin/agetty %I\n")
	r.write(units+"app.service", "[Service]\nExecStart=/usr/lib/app/main --serve\n")
	r.write("usr/lib/app/main", "#!/usr/bin/python3 -u\nimport app\n")
	r.write("usr/lib/app/plugin.py", "1")
	r.write("usr/bin/python3", "no ELF file")
	r.write("usr/sbin/agetty", "1")
	r.write("etc/systemd/system/multi-user.target.wants/.keep", "")
	for _, name := range []string{"sleeper.service", "once.service", "app.service", "getty@tty1.service"} {
		r.check(os.Symlink("/"+units+baseOf(name),
			filepath.Join(r.dir, "etc/systemd/system/multi-user.target.wants", name)))
	}
	r.write(busDir+"/org.example.Bus.service",
		"[D-BUS Service]\nName=org.example.Bus\nSystemdService=dbus-org.example.Bus.service\n")
	r.write(busDir+"/org.example.Off.service", "[D-BUS Service]\nSystemdService=dbus-org.example.Off.service\n")
	r.write("usr/bin/bus", "1")
	r.write(units+"bus.service", "[Service]\nType=dbus\nBusName=org.example.Bus\nExecStart=/usr/bin/bus\n")
	r.write(units+"off.service", "[Service]\nType=dbus\nBusName=org.example.Off\nExecStart=/usr/bin/bus\n")
	r.check(os.Symlink("bus.service", filepath.Join(r.dir, units+"dbus-org.example.Bus.service")))
	r.write("var/lib/dpkg/status", dpkgStatus("1.0"))
	r.write("var/lib/dpkg/info/app.list",
		"/lib/systemd/system/app.service\n/usr/lib/app/main\n/usr/lib/app/plugin.py\n")
	r.write("var/lib/dpkg/info/libc6:amd64.list", "/"+strings.TrimPrefix(lib, "usr/")+"\n")
	return r, lib
}

// judged returns the verdict of a change from one root to another.
func judged(t *testing.T, col *Collector, old, new root) Verdict {
	t.Helper()
	v, err := col.Verdict(Find(os.DirFS(old.dir), os.DirFS(new.dir), col.Replaced()))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestServicesThatNeedARestart(t *testing.T) {
	r, lib := host(t)
	after := newRoot(t)
	after.write("var/lib/dpkg/status", dpkgStatus("1.1"))
	upgrade := []pkgdb.Change{{Name: "app", From: "1.0", To: "1.1"}}
	restart := func(unit, reason string) Verdict {
		return Verdict{Programs: 1, Packages: upgrade, Restart: []Service{{unit, []string{reason}}}}
	}
	library := restart("sleeper.service", "libc6")
	library.Library = true
	const dropIn = "etc/systemd/system/sleeper.service.d/x.conf"
	for _, c := range []struct {
		name string
		path string
		want Verdict
	}{
		{"a configuration file", "etc/motd", Verdict{Data: 1, Packages: upgrade}},
		{"a library", lib, library},
		{"a program", "usr/bin/sleep", restart("sleeper.service", "/usr/bin/sleep")},
		{"a file of the program's package", "usr/lib/app/plugin.py", restart("app.service", "app")},
		{"an interpreter", "usr/bin/python3", restart("app.service", "/usr/bin/python3")},
		{"a unit", "usr/lib/systemd/system/app.service", restart("app.service", "app")},
		{"a part of a unit", dropIn, restart("sleeper.service", "/"+dropIn)},
		{"a program of an instance", "usr/sbin/agetty", restart("getty@tty1.service", "/usr/sbin/agetty")},
		{"a program that D-Bus starts", "usr/bin/bus", restart("bus.service", "/usr/bin/bus")},
		{"a program that no service runs", "usr/bin/unused", Verdict{Programs: 1, Packages: upgrade}},
		{"a kernel", "boot/vmlinuz-6.1", Verdict{Boot: 1, Packages: upgrade}},
	} {
		j := New()
		j.Add(treediff.Change{Path: c.path, Old: file(0o755, "1"), New: file(0o755, "2")})
		if diff := cmp.Diff(c.want, judged(t, j, r, after)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestReplacedLibraryOfInit(t *testing.T) {
	r, lib := host(t)
	sleep, err := os.ReadFile(filepath.Join(r.dir, "usr/bin/sleep"))
	r.check(err)
	r.write("usr/lib/systemd/systemd", string(sleep))
	r.write("usr/sbin/.keep", "")
	r.check(os.Symlink("../lib/systemd/systemd", filepath.Join(r.dir, "usr/sbin/init")))
	j := New()
	j.Add(treediff.Change{Path: lib, Old: file(0o644, "1"), New: file(0o644, "2")})
	if v := judged(t, j, r, r); !v.Init || v.Reboot() {
		t.Errorf("%+v", v)
	}
	j = New()
	j.Add(treediff.Change{Path: "usr/bin/sleep", Old: file(0o755, "1"), New: file(0o755, "2")})
	if v := judged(t, j, r, r); v.Init {
		t.Errorf("%+v", v)
	}
}

func TestSymbolicLinksAreResolvedInTheTree(t *testing.T) {
	r := newRoot(t)
	r.check(os.Symlink("loop", filepath.Join(r.dir, "loop")))
	r.check(os.Symlink("../../../../usr/bin/up", filepath.Join(r.dir, "up")))
	r.write("usr/bin/up", "#! ")
	tr := tree{os.DirFS(r.dir)}
	for name, want := range map[string]string{
		"loop": "", "up": "usr/bin/up", "bin/../lib/../bin/up": "usr/bin/up", "no/where": "", "": "",
	} {
		if got, _, _ := tr.resolve(name); got != want {
			t.Errorf("%s leads to %q, want %q", name, got, want)
		}
	}
	if list := newLinker(tr).files("up"); !slices.Equal(list, []string{"up", "usr/bin/up"}) {
		t.Errorf("%q", list)
	}
}

func FuzzELF(f *testing.F) {
	for _, name := range []string{"/usr/bin/sleep", "/usr/bin/ldd"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b[:min(len(b), 64<<10)])
		}
	}
	f.Add([]byte("\x7fELF\x02\x01" + strings.Repeat("\xff", 200)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e := parseELF(bytes.NewReader(b)); len(e.needed) > maxNeeded {
			t.Errorf("%d libraries", len(e.needed))
		}
	})
}

func FuzzUnit(f *testing.F) {
	f.Add("[Service]\nType=notify\nExecStart=@-/bin/sh sh -c 'x'\n", "a@b.service")
	f.Fuzz(func(t *testing.T, text, name string) {
		dir := t.TempDir()
		if !fs.ValidPath(name) || strings.ContainsAny(name, "/\x00\\") || len(name) > 200 {
			return
		}
		if os.MkdirAll(dir+"/"+unitDirs[0], 0o755) != nil ||
			os.WriteFile(dir+"/"+unitDirs[0]+"/"+name, []byte(text), 0o644) != nil {
			return
		}
		if u, ok := (tree{os.DirFS(dir)}).unit(name); ok && len(u.programs) == 0 {
			t.Error("a service without a program")
		}
	})
}

func TestWhatHasToBeReadAgain(t *testing.T) {
	r := newRoot(t)
	for _, program := range []string{"usr/lib/systemd/systemd", "usr/bin/dbus-daemon", "usr/bin/udevadm"} {
		r.write(program, "")
	}
	col := New()
	a, b := file(0o644, "a"), file(0o644, "b")
	for _, p := range []string{
		"usr/lib/systemd/system/x.service", "usr/lib/systemd/system/x.timer", "usr/share/dbus-1/system.d/x.conf",
		"etc/apparmor.d/x", "etc/motd",
	} {
		col.Add(treediff.Change{Path: p, Old: a, New: b})
	}
	v := judged(t, col, r, r)
	want := []Reload{{"systemctl daemon-reload", 2}, {"systemctl reload dbus", 1}}
	if d := cmp.Diff(want, v.Reload); d != "" {
		t.Error(d)
	}
	// Nothing reads the profile of AppArmor on a machine that lacks its parser.
	if v.Data != 2 || v.Load != 2 || v.Programs != 1 || v.Library {
		t.Errorf("%+v", v)
	}
	col.Add(treediff.Change{Path: "usr/lib/x86_64-linux-gnu/libx.so.1", New: a})
	if !judged(t, col, r, r).Library {
		t.Error("a new library is none")
	}
	v = col.VerdictWithout("it is not known")
	want = append(want, Reload{"systemctl reload apparmor", 1})
	if d := cmp.Diff(want, v.Reload); d != "" || v.Data != 1 || v.Load != 3 || v.Unknown == "" {
		t.Errorf("without a look at the files: %s %+v", d, v)
	}
}

func TestFindingsThatCannotBeAreRefused(t *testing.T) {
	full := make([]bool, len(reloadRules))
	for _, c := range []struct {
		name string
		in   Findings
		good bool
	}{
		{"all", Findings{Readers: full, Restart: []Service{{Unit: `getty@tty1\x2d.service`}}}, true},
		{"nothing", Findings{}, false},
		{"a command", Findings{Readers: full, Restart: []Service{{Unit: "x.service;reboot"}}}, false},
		{"an option", Findings{Readers: full, Restart: []Service{{Unit: "--now"}}}, false},
		{"no name", Findings{Readers: full, Restart: []Service{{Unit: ""}}}, false},
		{"a long name", Findings{Readers: full, Restart: []Service{{Unit: strings.Repeat("x", 256)}}}, false},
	} {
		if _, err := New().Verdict(&c.in); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAServiceWhoseNameSystemdRefusesIsNone(t *testing.T) {
	r, _ := host(t)
	r.write("usr/lib/systemd/system/a;b.service", "[Service]\nExecStart=/usr/bin/bus\n")
	r.write("etc/systemd/system/multi-user.target.wants/a;b.service", "")
	col := New()
	col.Add(treediff.Change{Path: "usr/bin/bus", Old: file(0o755, "1"), New: file(0o755, "2")})
	if v := judged(t, col, r, r); len(v.Restart) != 1 || v.Restart[0].Unit != "bus.service" {
		t.Errorf("%+v", v.Restart)
	}
}
