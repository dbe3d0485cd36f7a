package e2e

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/lab"
	"dim/internal/lab/netns"
	"dim/internal/testkit"
)

// otherDHCP is a DHCP server in the place of ours. The configuration is the last operand of its command.
type otherDHCP struct {
	format  string
	command func(dir string) []string
}

func otherDHCPs() []otherDHCP {
	return []otherDHCP{
		{"kea", func(string) []string { return []string{"kea-dhcp4", "-d", "-c"} }},
		{"isc-dhcp", func(dir string) []string {
			return []string{"dhcpd", "-4", "-d", "-f", "--no-pid", "-user", "root", "-group", "root",
				"-lf", filepath.Join(dir, "leases"), "-cf"}
		}},
		{"dnsmasq", func(dir string) []string {
			return []string{"dnsmasq", "--keep-in-foreground", "--user=root", "--pid-file=", "--log-facility=-",
				"--log-dhcp", "--dhcp-leasefile=" + filepath.Join(dir, "leases"), "-C"}
		}},
	}
}

// start starts the server with the export of the applied description, until the test ends.
func (d *otherDHCP) start(t *testing.T, c *lab.Cluster, h *netns.Host) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, d.format+".conf")
	testkit.Must(t, os.WriteFile(conf, []byte(dim(t, c, "cluster", "export", "--format", d.format)), 0o644))
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "leases"), nil, 0o644)) // dhcpd does not make it
	command := d.command(dir)
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatal(err)
	}
	log := testkit.Value(os.Create(filepath.Join(dir, "log")))(t)
	defer log.Close()
	cmd := h.Command(t.Context(), command[0], append(command[1:], conf)...)
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s wrote:\n%s", d.format, text[max(0, len(text)-4000):])
		}
	})
}

// A UEFI machine gets its address, loader and script from Kea in the place of our own DHCP, and a BIOS machine its
// address and script, until they have fetched the kernel. With DIM_LONG the same goes for ISC dhcpd and dnsmasq.
func TestMachinesBootByAnotherDHCPServer(t *testing.T) {
	needLab(t)
	work := t.TempDir()
	text := string(testkit.Value(os.ReadFile("../examples/small.xml"))(t))
	text = strings.Replace(text, `roles="head image"`, `roles="head image" dhcp="off"`, 1)
	text = strings.Replace(text, `<file    path="/etc/hosts" template="hosts.tmpl"/>`, "", 1)
	xml := filepath.Join(work, "cluster.xml")
	testkit.Must(t, os.WriteFile(xml, []byte(text), 0o600))
	c := startClusterAs(t, work, bootFiles(t), xml)
	t.Log(dim(t, c, "image", "capture", "compute", "--rollout", "now"))

	list := otherDHCPs()
	if os.Getenv("DIM_LONG") == "" {
		list = list[:1]
	}
	// Each server has machines of its own: what a machine has fetched by one is not taken for a boot by the next.
	for i, d := range list {
		t.Run(d.format, func(t *testing.T) {
			site := testkit.Value(c.Net.NewHost("site", netip.MustParsePrefix("10.77.0.66/24")))(t)
			t.Cleanup(func() { testkit.Must(t, site.Close()) })
			d.start(t, c, site)
			uefi := []*machine{
				{name: "n01", mac: "52:54:00:4d:00:01", firmware: lab.UEFI, noROM: true},
				{name: "n02", mac: "52:54:00:4d:00:02", firmware: lab.UEFI, noROM: true},
				{name: "n03", mac: "52:54:00:4d:00:03", firmware: lab.UEFI, noROM: true},
			}
			machines := uefi[i : i+1 : i+1]
			if i == 0 {
				machines = append(machines, &machine{name: "n04", mac: "52:54:00:4d:00:04", firmware: lab.BIOS})
			}
			for _, m := range machines {
				m.start(t, c, work)
			}
			forAll(t, machines, func(m *machine) { m.fetches(t, c) })
		})
	}
}
