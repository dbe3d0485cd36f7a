package dhcpconf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// The DHCP servers themselves accept the configurations of all examples.
func TestServersReadTheExamples(t *testing.T) {
	for _, name := range []string{"small", "racks", "gpu", "mixed", "marenostrum"} {
		c := testkit.Value(cluster.Load(filepath.Join("../../../examples", name+".xml")))(t)
		for format, command := range map[string][]string{
			"kea":      {"kea-dhcp4", "-t"},
			"isc-dhcp": {"dhcpd", "-4", "-t", "-q", "-cf"},
			"dnsmasq":  {"dnsmasq", "--test", "-C"},
		} {
			t.Run(name+" "+format, func(t *testing.T) { read(t, c, format, command) })
		}
	}
}

// read writes an export and lets a program check it.
func read(t *testing.T, c *cluster.Cluster, format string, command []string) {
	t.Helper()
	testkit.NeedProgram(t, command[0])
	for _, f := range Formats() {
		if f.Name != format {
			continue
		}
		path := filepath.Join(t.TempDir(), "conf")
		testkit.Must(t, os.WriteFile(path, testkit.Value(f.Files(c, 1))(t)[0].Data, 0o644))
		cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], path)...)
		cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+t.TempDir(), "KEA_LOCKFILE_DIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out[:min(len(out), 2000)])
		}
		return
	}
	t.Fatalf("there is no format %q", format)
}

// What a node has of its own goes before what its network has.
func TestANodeHasItsOwnOptions(t *testing.T) {
	const text = `<cluster name="x"><network name="boot" subnet="10.77.0.0/24" gateway="10.77.0.254" dns="10.77.0.1"/>
<network name="rack" subnet="10.78.0.0/24" gateway="10.78.0.254"/>
<server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
<image name="compute" arch="amd64" master="dir:/m"/>
<node name="n1" image="compute" servers="head" dns="10.77.0.53 2001:db8::53">
<interface name="eth0" network="boot" address="10.77.0.11" mac="52:54:00:4d:00:01" gateway="10.77.0.253" mtu="1400"/>
</node>
<node name="n2" image="compute" servers="head">
<interface name="eth0" network="rack" address="10.78.0.11" mac="52:54:00:4d:00:02"/>
</node></cluster>`
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "x.xml", XML: []byte(text)}))(t)
	for format, want := range map[string][]string{
		"isc-dhcp": {"option routers 10.77.0.253; option domain-name-servers 10.77.0.53; option interface-mtu 1400;",
			"netmask 255.255.255.0 {\n  option routers 10.78.0.254;"},
		"dnsmasq": {"tag:dim-host-n1,3,10.77.0.253", "tag:dim-host-n1,6,10.77.0.53", "tag:dim-host-n1,26,1400",
			",set:dim-host-n1,10.77.0.11", "tag:dim-net-2,option:router,10.78.0.254"},
		"kea": {`"data": "10.77.0.253"`, `"data": "10.77.0.53"`, `"data": "1400"`},
	} {
		for _, f := range Formats() {
			if f.Name != format {
				continue
			}
			got := string(testkit.Value(f.Files(c, 1))(t)[0].Data)
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("%s has no %q:\n%s", format, w, got)
				}
			}
		}
	}
}
