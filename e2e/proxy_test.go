package e2e

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/lab"
	"dim/internal/lab/netns"
	"dim/internal/testkit"
)

// bootFiles is a master with no more than what a loader fetches.
func bootFiles(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "master")
	tree(t, dir, map[string]string{
		"boot/vmlinuz-6.1.0-1-amd64":                "not a kernel",
		"lib/modules/6.1.0-1-amd64/modules.dep":     "",
		"lib/modules/6.1.0-1-amd64/modules.builtin": "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\n",
		"etc/hostname": "golden\n",
	})
	return dir
}

// dnsmasq starts a DHCP server that gives the nodes their declared addresses and knows nothing of boot files.
func dnsmasq(t *testing.T, h *netns.Host) {
	t.Helper()
	args := []string{
		"--conf-file=/dev/null", "--keep-in-foreground", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--no-ping", "--leasefile-ro", "--user=root", "--pid-file=", "--log-facility=-", "--log-dhcp",
		"--dhcp-range=10.77.0.0,static",
	}
	for name, mac := range map[string]string{"n01": "52:54:00:4d:00:01", "n02": "52:54:00:4d:00:02"} {
		args = append(args, "--dhcp-host="+mac+","+nodeAddrs[name].Addr().String()+","+name)
	}
	log := testkit.Value(os.Create(filepath.Join(t.TempDir(), "dnsmasq.log")))(t)
	defer log.Close()
	cmd := h.Command(t.Context(), "dnsmasq", args...)
	cmd.Stdout, cmd.Stderr = log, log
	testkit.Must(t, h.Do(cmd.Start))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("dnsmasq wrote:\n%s", text[max(0, len(text)-4000):])
		}
	})
}

// A BIOS and a UEFI machine get their addresses from Debian's dnsmasq and all else from our proxy, until they have
// fetched the kernel.
func TestMachinesBootBesideAnotherDHCPServer(t *testing.T) {
	needLab(t)
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	text := string(testkit.Value(os.ReadFile("../examples/small.xml"))(t))
	text = strings.Replace(text, `<network name="boot" `, `<network name="boot" dhcp="proxy" `, 1)
	text = strings.Replace(text, `<file    path="/etc/hosts" template="hosts.tmpl"/>`, "", 1)
	xml := filepath.Join(work, "cluster.xml")
	testkit.Must(t, os.WriteFile(xml, []byte(text), 0o600))
	c := startClusterAs(t, work, bootFiles(t), xml)
	site := testkit.Value(c.Net.NewHost("site", netip.MustParsePrefix("10.77.0.66/24")))(t)
	t.Cleanup(func() { testkit.Must(t, site.Close()) })
	dnsmasq(t, site)
	t.Log(dim(t, c, "image", "capture", "compute", "--rollout", "now"))

	machines := []*machine{
		{name: "n01", mac: "52:54:00:4d:00:01", firmware: lab.BIOS},
		{name: "n02", mac: "52:54:00:4d:00:02", firmware: lab.UEFI, noROM: true},
	}
	for _, m := range machines {
		m.start(t, c, work)
	}
	forAll(t, machines, func(m *machine) {
		if !m.fetches(t, c)["dhcp"] {
			t.Errorf("%s has fetched a kernel without our proxy", m.name)
		}
	})
	if out := dim(t, c, "status"); strings.Contains(out, "DHCP server") {
		t.Errorf("the site's DHCP server is a problem:\n%s", out)
	}
}

// fetches waits until the machine has fetched a kernel, checks that it used the loader that it needs, and returns the
// stages of its boot.
func (m *machine) fetches(t *testing.T, c *lab.Cluster) (passed map[string]bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	passed = map[string]bool{}
	var n control.Node
	for ctx.Err() == nil {
		if err := c.DimJSON(ctx, &n, "node", "show", m.name); err == nil && n.Details != nil {
			for _, s := range n.Details.Stages {
				passed[s.Name] = true
			}
		}
		if passed["script"] && passed["kernel"] {
			break
		}
		time.Sleep(time.Second)
	}
	// The ROM of the card is iPXE already. UEFI has a client of its own, which loads iPXE.
	if !passed["script"] || !passed["kernel"] || passed["loader"] != m.noROM {
		t.Errorf("%s has fetched no kernel, or not by its own loader: %v %s %s", m.name, passed, n.Stage, n.Problem)
	}
	return passed
}
