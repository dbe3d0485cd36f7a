package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// firstDescription returns the description that `dim cluster init` writes of the machines of nodeAddrs.
func firstDescription(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	macs, xml := filepath.Join(dir, "macs.txt"), filepath.Join(dir, "cluster.xml")
	testkit.Must(t, os.WriteFile(macs, []byte("52:54:00:4d:00:01\n52-54-00-4D-00-02\n5254.004d.0003\n"), 0o600))
	cmd := exec.Command(testkit.Value(filepath.Abs("../bin/dim"))(t), "cluster", "init", xml,
		"--address", serverAddr.String(), "--nodes", "n[01-03]", "--macs", macs, "--server", "head")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return xml
}

// The description that `dim cluster init` writes is served as it is: a machine is given its address and boot file, and
// a kernel mounts the root of another.
func TestAFirstDescriptionIsServed(t *testing.T) {
	needLab(t)
	c := startClusterAs(t, t.TempDir(), smallMaster(t), firstDescription(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")

	h := testkit.Value(c.Net.NewHost("n02"))(t)
	t.Cleanup(func() { testkit.Must(t, h.Close()) })
	testkit.Must(t, h.Command(t.Context(), "ip", "link", "set", "eth0", "address", "52:54:00:4d:00:02").Run())
	m := &bareMachine{h, t, "52:54:00:4d:00:02"}
	given := testkit.Value(m.ask("30", "-x", "0x5d:0007", "-V", "PXEClient:Arch:00007:UNDI:003016"))(t)
	for _, want := range []string{"ip='10.77.0.12'", "siaddr='10.77.0.1'", "boot_file='", "hostname='n02'"} {
		if !strings.Contains(given, want) {
			t.Errorf("n02 was not given %s:\n%s", want, given)
		}
	}

	g := startGuest(t, c, "n01", nil)
	if got := g.read("/mnt/root/etc/hostname"); got != "n01\n" {
		t.Errorf("hostname: %q", got)
	}
	if got := g.read("/mnt/root/etc/hosts"); !strings.Contains(got, "10.77.0.13\tn03\n") {
		t.Errorf("hosts: %q", got)
	}
}
