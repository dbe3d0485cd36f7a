package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/lab"
	"dim/internal/lab/master"
	"dim/internal/testkit"
)

// machine is one guest of the boot test.
type machine struct {
	name, mac string
	firmware  lab.Firmware
	noROM     bool // see lab.NIC
	guest     *lab.Guest
}

// debian returns the directory of an ordinary installation. The test may change it.
func debian(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "master")
	if have := os.Getenv("DIM_LAB_MASTER"); have != "" {
		if out, err := exec.Command("cp", "-a", "--reflink=auto", have, dir).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", have, err, out)
		}
		testkit.Must(t, master.Configure(dir, ""))
		return dir
	}
	var log strings.Builder
	if err := master.Build(t.Context(), master.Spec{Dir: dir, Log: &log}); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	return dir
}

func TestDisklessMachinesBootAnUnmodifiedDebian(t *testing.T) {
	needLab(t)
	master := debian(t)
	work := t.TempDir()
	c := startCluster(t, work, master)
	testkit.Must(t, os.WriteFile(filepath.Join(master, "root/.ssh/authorized_keys"), []byte(c.Key+"\n"), 0o600))
	t.Log(dim(t, c, "image", "capture", "compute", "--rollout", "now"))

	machines := []*machine{
		{name: "n01", mac: "52:54:00:4d:00:01", firmware: lab.BIOS},
		{name: "n02", mac: "52:54:00:4d:00:02", firmware: lab.BIOS},
		{name: "n03", mac: "52:54:00:4d:00:03", firmware: lab.UEFI},
	}
	for _, m := range machines {
		m.start(t, c, work)
	}
	forAll(t, machines, func(m *machine) { m.running(t, c) })
	if t.Failed() {
		t.FailNow()
	}
	forAll(t, machines, func(m *machine) {
		if got := strings.TrimSpace(m.ssh(t, c, "hostname")); got != m.name {
			t.Errorf("%s says that it is %q", m.name, got)
		}
		if got := m.ssh(t, c, "systemctl --failed --no-legend"); strings.TrimSpace(got) != "" {
			t.Errorf("%s has failed units: %s", m.name, got)
		}
		if got := m.ssh(t, c, "touch /usr/x 2>&1 || true"); !strings.Contains(got, "Read-only file system") {
			t.Errorf("%s: touch /usr/x: %q", m.name, got)
		}
		m.ssh(t, c, "echo "+m.name+" > /root/state && sync")
	})
	out := dim(t, c, "node", "ls")
	t.Log("\n" + out)
	if n := strings.Count(out, "running"); n != len(machines) {
		t.Errorf("dim node ls shows %d running nodes, want %d", n, len(machines))
	}

	// The server is killed and restarted while the nodes run. Then one node reboots itself, and the others power off.
	restart(t, c)
	forAll(t, machines, func(m *machine) {
		if got := strings.TrimSpace(m.ssh(t, c,
			"cat /root/state; systemctl is-system-running")); got != m.name+"\nrunning" {
			t.Errorf("%s after a restart of the server: %q", m.name, got)
		}
	})
	forAll(t, machines, func(m *machine) {
		verb := "poweroff"
		if m.name == "n01" {
			verb = "reboot" // ends the guest as well: -no-reboot
		}
		m.ends(t, c, verb)
	})
	machines[0].start(t, c, work)
	machines[0].running(t, c)
	if got := strings.TrimSpace(machines[0].ssh(t, c, "cat /root/state")); got != "n01" {
		t.Errorf("n01 after its reboot: state %q", got)
	}
}

// forAll runs do for all machines at the same time.
func forAll(t *testing.T, machines []*machine, do func(*machine)) {
	t.Helper()
	var wg sync.WaitGroup
	for _, m := range machines {
		wg.Go(func() { do(m) })
	}
	wg.Wait()
}

func (m *machine) addr() string { return nodeAddrs[m.name].Addr().String() }

// start powers the machine on. Its tap device stays between starts.
func (m *machine) start(t *testing.T, c *lab.Cluster, work string) {
	t.Helper()
	if m.guest == nil {
		if _, err := c.Net.Tap(m.name); err != nil {
			t.Fatal(err)
		}
	}
	g, err := lab.StartGuest(context.WithoutCancel(t.Context()), lab.GuestSpec{
		Name: m.name, Net: c.Net, Firmware: m.firmware, NICs: []lab.NIC{{Tap: m.name, MAC: m.mac, NoROM: m.noROM}},
		Log: filepath.Join(work, m.name+".log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.guest = g
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console of %s:\n%s", m.name, g.Tail(40))
		}
		g.Kill()
	})
}

// running waits until the machine's init reports that all units are up.
func (m *machine) running(t *testing.T, c *lab.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	if _, err := c.SSH.Await(ctx, m.addr(), "true"); err != nil {
		t.Errorf("%s: no ssh: %v", m.name, err)
		return
	}
	out, err := c.SSH.Run(ctx, m.addr(), "systemctl is-system-running --wait; systemctl --failed --no-legend")
	if strings.TrimSpace(out) != "running" {
		t.Errorf("%s is %q: %v", m.name, out, err)
	}
}

// ends makes the machine reboot or power off, and waits until its process has ended.
func (m *machine) ends(t *testing.T, c *lab.Cluster, verb string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, _ = c.SSH.Run(ctx, m.addr(), "systemctl "+verb) // the connection breaks under the command
	if err := m.guest.Wait(ctx); err != nil {
		t.Errorf("%s: %s does not end: %v", m.name, verb, err)
	}
}

func (m *machine) ssh(t *testing.T, c *lab.Cluster, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := c.SSH.Run(ctx, m.addr(), command)
	if err != nil {
		t.Errorf("%s: %v", m.name, err)
	}
	return out
}
