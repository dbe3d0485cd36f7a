// Package packages tests what dist/packages builds: the packages are installed in new Debian systems.
package packages

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// later is the version of an upgrade.
const later = "9.9.9"

// build builds the packages of this machine's architecture in a clone, and returns their files by their kind.
func build(t *testing.T, clone, version string) (deb, rpm string) {
	t.Helper()
	run(t, exec.Command("env", "-C", clone, "VERSION="+version, "dist/packages", runtime.GOARCH))
	find := func(pattern string) string {
		list := testkit.Value(filepath.Glob(filepath.Join(clone, "bin/packages", pattern)))(t)
		if len(list) != 1 {
			t.Fatalf("%s: %v", pattern, list)
		}
		to := filepath.Join(t.TempDir(), filepath.Base(list[0]))
		testkit.Must(t, os.Rename(list[0], to))
		return to
	}
	return find("*.deb"), find("*.rpm")
}

func run(t *testing.T, cmd *exec.Cmd) (out string) {
	t.Helper()
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
	}
	return string(b)
}

func sum(t *testing.T, file string) string {
	return fmt.Sprintf("%x", sha256.Sum256(testkit.Value(os.ReadFile(file))(t)))
}

// Two builds of a commit are equal. The deb is installed, upgraded, not downgraded, and removed, in Debian 12 and 13,
// the rpm in a Debian 12 with rpm.
func TestPackagesAreReproducibleAndInstalled(t *testing.T) {
	if os.Getenv("DIM_PACKAGES") == "" {
		t.Skip("builds the packages three times: set DIM_PACKAGES=1")
	}
	testkit.NeedRoot(t, "mmdebstrap, chroot")
	clone := filepath.Join(t.TempDir(), "dim")
	run(t, exec.Command("git", "clone", "-q", "../..", clone))
	deb, rpm := build(t, clone, "")
	again, rpmAgain := build(t, clone, "")
	for _, two := range [][2]string{{deb, again}, {rpm, rpmAgain}} {
		if sum(t, two[0]) != sum(t, two[1]) {
			t.Errorf("two builds of %s differ", filepath.Base(two[0]))
		}
	}
	newer, newerRPM := build(t, clone, later)
	t.Run("rpm", func(t *testing.T) { installedByRPM(t, rpm, newerRPM) })
	for _, release := range []string{"bookworm", "trixie"} {
		t.Run(release, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			run(t, exec.Command("mmdebstrap", "--variant=minbase", release, root))
			s := system{t, root}
			s.install(deb)
			s.works()
			s.install(newer)
			s.works()
			s.refusesOlder(deb)
			s.chroot("dpkg", "-r", "dim")
			s.refusesAfterRemoval(deb)
		})
	}
}

// installedByRPM shows that rpm takes the package and runs its scripts. What it does not show is that a distribution of
// rpm has what the package requires.
func installedByRPM(t *testing.T, rpm, newer string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	run(t, exec.Command("mmdebstrap", "--variant=minbase", "--include=rpm", "bookworm", root))
	s := system{t, root}
	s.chroot("rpm", "--nodeps", "-i", s.put(rpm))
	s.works()
	s.chroot("rpm", "--nodeps", "-U", s.put(newer))
	s.works()
	s.chroot("rpm", "--nodeps", "-V", "dim") // each file as it was packed
	older := s.put(rpm)
	if out, err := exec.Command("chroot", root, "rpm", "--nodeps", "-U", older).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "is already installed") {
		t.Errorf("an older package: %v\n%s", err, out)
	}
	if got := s.chroot("rpm", "-q", "--queryformat", "%{VERSION}", "dim"); got != later {
		t.Errorf("after the refusal version %s is installed", got)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(root, "etc/dim/cluster.xml"), []byte("own\n"), 0o644))
	s.chroot("rpm", "-e", "dim")
	s.chroot("test", "!", "-e", "/usr/sbin/dim")
	s.chroot("test", "-s", "/etc/dim/cluster.xml")
}

// dpkg calls the script with install if the package was removed: what the newer version has written is still there.
func TestAnOlderPackageIsRefused(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("needs dpkg")
	}
	script := string(testkit.Value(os.ReadFile("../../dist/package/preinstall"))(t))
	for _, tt := range []struct {
		args    string
		refused string
	}{
		{"install", ""}, {"1", ""}, {"upgrade 0.9", ""}, {"install 0.9 1.0", ""}, {"upgrade 1.0", ""},
		{"upgrade 1.1", "version 1.1 is installed"}, {"install 1.1 1.0", "version 1.1 was installed"},
	} {
		cmd := exec.Command("sh", append([]string{"-s"}, strings.Fields(tt.args)...)...)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(script, "@VERSION@", "1.0"))
		out, err := cmd.CombinedOutput()
		if (err != nil) != (tt.refused != "") || !strings.Contains(string(out), tt.refused) {
			t.Errorf("%s: %v\n%s", tt.args, err, out)
		}
	}
}

// system is an installed Debian.
type system struct {
	t    *testing.T
	root string
}

func (s system) chroot(args ...string) string {
	s.t.Helper()
	return run(s.t, exec.Command("chroot", append([]string{s.root}, args...)...))
}

// put copies a package into the system.
func (s system) put(file string) string {
	s.t.Helper()
	to := "/dim" + filepath.Ext(file)
	testkit.Must(s.t, os.WriteFile(s.root+to, testkit.Value(os.ReadFile(file))(s.t), 0o644))
	return to
}

func (s system) install(deb string) {
	s.t.Helper()
	s.chroot("dpkg", "-i", s.put(deb))
}

// works runs what a new user runs first.
func (s system) works() {
	s.t.Helper()
	const example = "/usr/share/doc/dim/examples/small.xml"
	if out := s.chroot("dim", "cluster", "check", example); !strings.Contains(out, "4 nodes") {
		s.t.Errorf("check: %s", out)
	}
	s.chroot("bash", "-n", "/usr/share/bash-completion/completions/dim")
	s.chroot("getent", "group", "dim")
	s.chroot("test", "-s", "/usr/share/man/man8/dim-node-ls.8.gz")
	unit := s.chroot("cat", "/usr/lib/systemd/system/dim.service")
	if !strings.Contains(unit, "ExecStart=/usr/sbin/dim serve") {
		s.t.Errorf("unit: %s", unit)
	}
}

func (s system) refusesAfterRemoval(deb string) {
	s.t.Helper()
	out, err := exec.Command("chroot", s.root, "dpkg", "-i", s.put(deb)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "dim: version "+later+" was installed") {
		s.t.Errorf("an older package after the removal: %v\n%s", err, out)
	}
}

func (s system) refusesOlder(deb string) {
	s.t.Helper()
	out, err := exec.Command("chroot", s.root, "dpkg", "-i", s.put(deb)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "dim: version "+later+" is installed") {
		s.t.Errorf("an older package: %v\n%s", err, out)
	}
	s.works()
	if got := s.chroot("dpkg-query", "-W", "-f", "${Version}", "dim"); got != later {
		s.t.Errorf("after the refusal version %s is installed", got)
	}
}
