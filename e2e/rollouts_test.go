package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/lab"
	"dim/internal/testkit"
)

// rolloutStep is one change of the master, and a shell command on a running node whose output must show it.
type rolloutStep struct {
	name   string
	change func(t *testing.T, master string) // nil: the rollout before is undone
	probe  string
	want   string
}

// One machine keeps running through ten rollouts. Another is off meanwhile, and boots into the last one.
func TestAMachineKeepsRunningThroughTenRollouts(t *testing.T) {
	needLab(t)
	master := debian(t)
	work := t.TempDir()
	c := startCluster(t, work, master)
	testkit.Must(t, os.WriteFile(filepath.Join(master, "root/.ssh/authorized_keys"), []byte(c.Key+"\n"), 0o600))
	enablePush(t, c, work)
	dim(t, c, "image", "capture", "compute")

	n01 := &machine{name: "n01", mac: "52:54:00:4d:00:01", firmware: lab.BIOS}
	n01.start(t, c, work)
	if n01.running(t, c); t.Failed() {
		t.FailNow()
	}
	// The node's own writes: a new file, a change of a file that the master never changes, and one of a file
	// that it changes too.
	n01.ssh(t, c, `echo mine > /etc/own; echo '# mine' >> /etc/profile; echo mine > /etc/motd; sync
		nohup python3 -c 'import time
while True:
    open("/run/alive", "a").write("."); time.sleep(1)' > /dev/null 2>&1 & echo $! > /run/alive.pid`)
	for i, s := range rolloutSteps(t, c) {
		if s.change != nil {
			s.change(t, master)
			t.Logf("%d. %s\n%s", i+1, s.name, dim(t, c, "image", "capture", "compute", "--rollout", "now"))
		} else {
			t.Logf("%d. %s\n%s", i+1, s.name, dim(t, c, "rollout", "undo"))
		}
		began := time.Now()
		n01.awaitOutput(t, c, s)
		t.Logf("seen on n01 within %.1f s", time.Since(began).Seconds())
		n01.checkUnharmed(t, c)
		if t.Failed() {
			t.FailNow()
		}
	}
	_, push := pushed(t, c, "n01")
	t.Logf("n01 is notified of switches: %+v", push)
	if push.State != control.PushCurrent || !strings.Contains(fmt.Sprint(push.Restart), "ssh.service") {
		t.Error("the resident process does not report that sshd runs with the old libc")
	}
	if push.Memory == 0 || push.Memory > 6<<10 {
		t.Errorf("the resident process takes %d kB", push.Memory)
	}
	if out := dim(t, c, "node", "saved", "n01"); !strings.Contains(out, "/etc/motd") {
		t.Errorf("the node's own motd, which the master replaced, is not listed as saved:\n%s", out)
	}
	n02 := &machine{name: "n02", mac: "52:54:00:4d:00:02", firmware: lab.BIOS}
	n02.start(t, c, work)
	n02.running(t, c)
	for _, probe := range []string{"cat /etc/motd", "sha256sum /usr/lib/x86_64-linux-gnu/libc.so.6", "id alice",
		"cat /etc/last"} {
		if a, b := n01.ssh(t, c, probe), n02.ssh(t, c, probe); a != b {
			t.Errorf("%s: n01 %q, n02, which was off, %q", probe, a, b)
		}
	}
	forAll(t, []*machine{n01, n02}, func(m *machine) { m.ends(t, c, "poweroff") })
}

// enablePush applies a description in which the nodes of the image are notified of switches and mount with a
// long cache.
func enablePush(t *testing.T, c *lab.Cluster, dir string) {
	t.Helper()
	for _, name := range []string{"small.xml", "hosts.tmpl"} {
		text, err := os.ReadFile(filepath.Join("../examples", name))
		testkit.Must(t, err)
		with := strings.Replace(string(text), `<image name="compute"`, `<image name="compute" push="on"`, 1)
		testkit.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(with), 0o600))
	}
	dim(t, c, "cluster", "apply", filepath.Join(dir, "small.xml"))
}

func rolloutSteps(t *testing.T, c *lab.Cluster) []rolloutStep {
	debs := t.TempDir()
	return []rolloutStep{
		{"a line of configuration", put("etc/motd", "two\n"), "cat /etc/motd", "two"},
		{"a new user, who can log in at once", func(t *testing.T, master string) {
			runInMaster(t, master, "useradd", "--create-home", "--shell", "/bin/sh", "alice")
			runInMaster(t, master, "install", "-d", "-o", "alice", "-g", "alice", "-m", "0700", "/home/alice/.ssh")
			put("home/alice/.ssh/authorized_keys", c.Key+"\n")(t, master)
			runInMaster(t, master, "chown", "alice:", "/home/alice/.ssh/authorized_keys")
		}, "@alice id -un; pwd", "alice\n/home/alice"},
		{"a package", func(t *testing.T, master string) {
			install(t, master, download(t, debs, "hello"))
		}, "hello", "Hello, world!"},
		{"another libc", func(t *testing.T, master string) {
			install(t, master, rebuild(t, debs, download(t, debs, "libc6")))
		},
			`dpkg-query -W -f '${Version}\n' libc6:amd64 | sed 's/.*+//'; python3 -c 'print(6*7)'`, "rebuilt\n42"},
		{"another password", func(t *testing.T, master string) {
			runInMaster(t, master, "usermod", "--password", "$1$x$x", "alice")
		},
			"getent shadow alice | cut -d: -f2", "$1$x$x"},
		{"a service", func(t *testing.T, master string) {
			put("etc/systemd/system/probe.service",
				"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo served > /run/probe'\n")(t,
				master)
		}, "systemctl daemon-reload && systemctl start probe && cat /run/probe", "served"},
		{"a mode and an owner", func(t *testing.T, master string) {
			testkit.Must(t, os.Chmod(filepath.Join(master, "usr/bin/hello"), 0o700))
			testkit.Must(t, os.Chown(filepath.Join(master, "usr/bin/hello"), 2, 3))
		}, "stat -c '%a %u %g' /usr/bin/hello", "700 2 3"},
		{"back again", nil, "stat -c '%a %u %g' /usr/bin/hello; hello", "755 0 0\nHello, world!"},
		{"the package removed", func(t *testing.T, master string) {
			runInMaster(t, master, "dpkg", "--purge", "hello")
		},
			"command -v hello || echo none", "none"},
		{"a directory where a file was, and a file where a directory was", func(t *testing.T, master string) {
			testkit.Must(t, os.Remove(filepath.Join(master, "etc/debian_version")))
			put("etc/debian_version/is", "a directory\n")(t, master)
			testkit.Must(t, os.RemoveAll(filepath.Join(master, "usr/share/doc")))
			put("usr/share/doc", "a file\n")(t, master)
			put("etc/last", "last\n")(t, master)
		}, "cat /etc/debian_version/is /usr/share/doc", "a directory\na file"},
	}
}

// awaitOutput waits until the command of a step prints what it must. "@user " before the command names the user
// who runs it.
func (m *machine) awaitOutput(t *testing.T, c *lab.Cluster, s rolloutStep) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	who, command := "root", s.probe
	if rest, other := strings.CutPrefix(s.probe, "@"); other {
		who, command, _ = strings.Cut(rest, " ")
	}
	var out string
	var err error
	for ctx.Err() == nil {
		if out, err = c.SSH.RunAs(ctx, who, m.addr(), command); strings.TrimSpace(out) == s.want {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("%s after %q: %s says %q, want %q (%v)", m.name, s.name, s.probe, out, s.want, err)
}

// checkUnharmed checks what was there before the rollouts: the system, a program that has been running all the
// time, also when it reads its files again, and the node's own files.
func (m *machine) checkUnharmed(t *testing.T, c *lab.Cluster) {
	t.Helper()
	const probe = `echo 3 > /proc/sys/vm/drop_caches; before=$(stat -c %s /run/alive)
		for i in $(seq 60); do sleep 1; [ "$(stat -c %s /run/alive)" != "$before" ] && break; done
		[ "$(stat -c %s /run/alive)" != "$before" ] && kill -0 "$(cat /run/alive.pid)" && echo alive
		systemctl is-system-running; cat /etc/own; tail -n 1 /etc/profile`
	if got := strings.TrimSpace(m.ssh(t, c, probe)); got != "alive\nrunning\nmine\n# mine" {
		t.Errorf("%s: %q", m.name, got)
	}
}

// put returns a change that writes a file.
func put(path, text string) func(*testing.T, string) {
	return func(t *testing.T, master string) {
		t.Helper()
		full := filepath.Join(master, path)
		testkit.Must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		testkit.Must(t, os.WriteFile(full, []byte(text), 0o644))
	}
}

// runInMaster runs a program in the root of the master.
func runInMaster(t *testing.T, master string, args ...string) {
	t.Helper()
	run(t, master, append([]string{"chroot", master, "env", "DEBIAN_FRONTEND=noninteractive"}, args...)...)
}

func run(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// download fetches a package of the distribution of this machine, which is also that of the master.
func download(t *testing.T, dir, name string) string {
	t.Helper()
	const get = "apt-get -q -o APT::Sandbox::User=root download "
	run(t, dir, "sh", "-c", get+name+" || { apt-get -q update && "+get+name+"; }")
	found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("download %s: %q, %v", name, found, err)
	}
	return found[0]
}

// rebuild makes a package with a higher version, whose libc has other bytes but the same behaviour.
func rebuild(t *testing.T, dir, deb string) string {
	t.Helper()
	tree, out := filepath.Join(dir, "rebuilt"), filepath.Join(dir, "rebuilt.deb")
	run(t, dir, "sh", "-euc", fmt.Sprintf(`dpkg-deb -R %q %q
		sed -i 's/^Version: .*/&+rebuilt/' %[2]q/DEBIAN/control
		echo rebuilt >> %[2]q/lib/x86_64-linux-gnu/libc.so.6
		dpkg-deb -b -Zgzip -z1 %[2]q %[3]q`, deb, tree, out))
	return out
}

func install(t *testing.T, master, deb string) {
	t.Helper()
	in := filepath.Join(master, "tmp", filepath.Base(deb))
	run(t, master, "cp", deb, in)
	run(t, master, "chroot", master, "env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "-i", "/tmp/"+filepath.Base(deb))
	testkit.Must(t, os.Remove(in))
}
