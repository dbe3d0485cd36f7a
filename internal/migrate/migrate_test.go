package migrate

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/cluster/export"
	"dim/internal/migrate/describe"
	"dim/internal/testkit"
)

// formatNamed returns a format.
func formatNamed(t testing.TB, name string) *Format {
	t.Helper()
	for _, f := range Formats() {
		if f.Name == name {
			return &f
		}
	}
	t.Fatalf("there is no format %s", name)
	return nil
}

// imported describes the files below a directory of testdata.
func imported(t testing.TB, format, dir string) *describe.Result {
	t.Helper()
	var files []File
	root := os.DirFS(filepath.Join("testdata", dir))
	testkit.Must(t, fs.WalkDir(root, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		files = append(files, File{path, data})
		return err
	}))
	return testkit.Value(formatNamed(t, format).Describe(files, Options{Name: "c", Inventory: "macs.csv"}))(t)
}

func expect(t *testing.T, r *describe.Result, xml, notes []string) {
	t.Helper()
	for _, want := range xml {
		if !strings.Contains(string(r.XML), want) {
			t.Errorf("no %s in the description", want)
		}
	}
	var b strings.Builder
	for _, n := range r.Notes {
		b.WriteString(n.String() + "\n")
	}
	for _, want := range notes {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no note %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s\n%s", r.XML, r.Inventory, b.String())
	}
}

func TestWarewulf(t *testing.T) {
	expect(t, imported(t, "warewulf", "warewulf"), []string{
		`subnet="10.0.0.0/22" gateway="10.0.0.254" subnet6="fd00:0:0:1::/64" gateway6="fd00:0:0:1::fe"`,
		`<interface network="net1" address="10.0.0.1"/>`,
		`<image name="rocky-9" arch="amd64" master="dir:/var/lib/warewulf/chroots/rocky-9/rootfs">`,
		`<kernel append="quiet crashkernel=no"/>`, `<kernel append="console=ttyS1"/>`,
		`<nodes name="n{node:02}" each="node" image="rocky-9" servers="head">`,
		`<interface name="eth0" network="net1" address="10.0.1.{node}"/>`,
		`<interface name="ib0" network="net2" address="10.1.0.{node}" type="infiniband"/>`,
		`address="10.0.1.101" address6="fd00:0:0:1::101"/>`,
		`mac="80:00:00:68:fe:80:00:00:00:00:00:00:00:02:c9:03:00:4d:00:01" type="infiniband"/>`,
		`<group name="gpu" nodes="g1"/>`, `address="10.4.0.3" vlan="9" on="eth0"/>`,
	}, []string{
		`nodes.conf:9: "runtime overlay" of profile default is not carried over`,
		`nodes.conf:36: "ipmi" of node n03 is not carried over: power is not managed here`,
		`nodes.conf:41: "mystery" of node g1 is not carried over: there is nothing like it here`,
		`warewulf.conf:5: the range of addresses is not carried over`,
		"the node g2 is not carried over: no address of it is known",
		"nodes.conf:51: card gone.9 of node v1 is not carried over as a VLAN",
	})
}

func TestHostsAndEthers(t *testing.T) {
	r := imported(t, "hosts+ethers", "hosts")
	expect(t, r, []string{
		`domain="lab.example"`, `<nodes name="r{rack}n{node:02}" each="rack node"`,
		`address="10.5.{rack}.{node}" mac="52:54:00:00:{rack:02x}:{node:02x}" address6="fd00::{rack}:{node}"`,
		`<interface name="ib0" network="net2" address="10.6.{rack}.{node}" type="infiniband"/>`,
	}, []string{
		"hosts:13: the host storage is not carried over", "check fd00::/64, and add its gateway6",
		"hosts:3: the host storage is not carried over", "hosts:4: the name s2 of storage is not carried over",
		"hosts:14: the line is not carried over",
		"hosts:15: the host r1n01-bmc is not carried over: power is not managed here",
		"ethers:7: the hardware address of gone is not carried over",
	})
	sameExport(t, r, "hosts", filepath.Join("testdata", "hosts", "hosts"), "r")
	sameExport(t, r, "ethers", filepath.Join("testdata", "hosts", "ethers"), "r")
}

// sameExport compares the first two fields of the lines about nodes whose names begin with prefix.
func sameExport(t *testing.T, r *describe.Result, format, path, prefix string) {
	t.Helper()
	open := func(string) ([]byte, error) { return r.Inventory, nil }
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: r.XML, Open: open}))(t)
	lines := func(data []byte) map[string]bool {
		set := map[string]bool{}
		for line := range bytes.Lines(data) {
			f := strings.Fields(string(line))
			if len(f) < 2 {
				continue
			}
			name, _, _ := strings.Cut(f[1], ".")
			if strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, "-bmc") {
				set[strings.ToLower(f[0])+" "+name] = true
			}
		}
		return set
	}
	want := lines(testkit.Value(os.ReadFile(path))(t))
	for _, f := range export.Formats() {
		if f.Name != format {
			continue
		}
		got := lines(testkit.Value(f.Files(c, 1))(t)[0].Data)
		for line := range want {
			if !got[line] {
				t.Errorf("%s: %q is missing in the export", format, line)
			}
		}
		if len(got) != len(want) || len(got) == 0 {
			t.Errorf("%s: %d lines instead of %d", format, len(got), len(want))
		}
	}
}

func TestDHCPD(t *testing.T) {
	expect(t, imported(t, "isc-dhcp", "dhcpd"), []string{
		`<network name="net1" subnet="10.9.0.0/24" gateway="10.9.0.254" subnet6="2001:db8:9::/64"`,
		`dns="10.9.0.2 10.9.0.3"`,
		`<interface network="net1" address="10.9.0.1"/>`, `domain="lab.example"`,
		`<nodes name="c{node}" each="node"`, `address="10.9.0.{10+node}"`, `name="ib0" network="net2"`,
		`address6="2001:db8:9::{10+node}"`,
	}, []string{
		"dhcpd6.conf:1: option dhcp6.name-servers 2001:db8:9::2 is not carried over: write the addresses to dns",
		"dhcpd6.conf:3: range6 2001:db8:9::200 2001:db8:9::250 is not carried over: only declared nodes",
		"dhcpd6.conf:6: host-identifier option dhcp6.client-id 0:1:2:3 is not carried over: nodes are known by their",
		"dhcpd6.conf:7: the IPv6 address of host c03 is not carried over: name.lab.example is none",
		"dhcpd.conf:4: filename pxelinux.0 is not carried over: image servers tell each firmware what it boots",
		"dhcpd.conf:10: range 10.9.0.200 10.9.0.250 is not carried over: only declared nodes get addresses",
		`dhcpd.conf:13: "class" and what is in it are not carried over`,
		"dhcpd.conf:16: the host c3 gets the name c03, which is its option host-name", "c4 is not carried over",
	})
}

func TestInputThatIsNotTheFormat(t *testing.T) {
	for _, tt := range []struct{ format, text, want string }{
		{"isc-dhcp", "subnet 10.0.0.0 netmask 255.0.0.0 {\n", "read f:1: the block \"subnet\" is not closed"},
		{"isc-dhcp", "\n}\n", "read f:2: \"}\" without \"{\""},
		{"isc-dhcp", "x \"a\n", "read f:1: a quote is not closed"},
		{"isc-dhcp", strings.Repeat("group {\n", 40), "more than 32 blocks within blocks"},
		{"warewulf", "nodes: [\n", "read f: "},
		{"warewulf", "nodes:\n  a: &x\n    init: y\n  b: *x\n", "read f:4: aliases are not read"},
		{"warewulf", "[a]\n", "read f:1: it is not a list of keys and values"},
		{"hosts+ethers", "127.0.0.1 localhost\n", "no node"},
	} {
		_, err := formatNamed(t, tt.format).Describe([]File{{"f", []byte(tt.text)}}, Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: %v, want %s", tt.format, tt.text, err, tt.want)
		}
	}
}

// fuzz checks that what is imported passes the check, whatever the input is.
func fuzz(f *testing.F, format string, seeds ...string) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := formatNamed(t, format).Describe([]File{{"f", []byte(text)}}, Options{Inventory: "macs.csv"})
		if err != nil && strings.Contains(err.Error(), " the description: ") {
			t.Fatal(err)
		}
	})
}

func seed(f *testing.F, path ...string) string {
	return string(testkit.Value(os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...)))(f))
}

func FuzzWarewulf(f *testing.F) { fuzz(f, "warewulf", seed(f, "warewulf", "nodes.conf")) }

func FuzzHosts(f *testing.F) {
	fuzz(f, "hosts+ethers", seed(f, "hosts", "hosts"), "10.0.0.1 a1\n10.0.0.2 a2 b.c.d\n2:0:0:0:0:1 a1\n")
}

func FuzzDHCPD(f *testing.F) { fuzz(f, "isc-dhcp", seed(f, "dhcpd", "dhcpd.conf")) }
