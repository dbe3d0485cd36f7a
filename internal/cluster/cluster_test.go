package cluster

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const examples = "../../examples"

func load(t testing.TB, name string) *Cluster {
	t.Helper()
	c, err := Load(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSmallExampleIsRead(t *testing.T) {
	c := load(t, "small.xml")
	n, ok := c.Node("n03")
	if !ok {
		t.Fatal("no node n03")
	}
	im := n.Image
	got := []any{
		c.Name, c.Domain, len(c.Nodes), n.Index, n.Position["node"], n.Address().String(), n.Boot().MAC.String(),
		n.Boot().Name,
		string(n.Servers[0].Name), n.Servers[0].Ports, n.Servers[0].DHCP, n.Boot().Network.Gateway.String(),
		string(im.Name), im.Arch, im.Master, len(im.Exclude), len(im.Shared), len(im.Keep), im.Kernel.Append,
		im.Files[0].Path, im.Files[0].Mode, im.Files[0].Template, im.Files[1].Where,
	}
	want := []any{
		"small", "small.example", 4, 2, 3, "10.77.0.13", "52:54:00:4d:00:03", "eth0",
		"head",
		Ports{NFS: 2049, HTTP: 80, TFTP: 69, API: 7117, Etcd: 7118},
		true, "10.77.0.1",
		"compute", "amd64", "dir:/srv/dim/masters/compute", 3, 1, 2, "console=ttyS0",
		"etc/hostname", uint32(0o644), "{{.Node.Name}}\n", "hosts.tmpl",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var sources []string
	for _, s := range c.Sources() {
		sources = append(sources, s.Name)
	}
	if d := cmp.Diff([]string{"small.xml", "hosts.tmpl"}, sources); d != "" {
		t.Error(d)
	}
}

func TestSmallExampleRendersItsFiles(t *testing.T) {
	c := load(t, "small.xml")
	n := c.Nodes[1]
	name, err := n.Image.Files[0].Render(c, n.Image, n)
	if err != nil || string(name.Content) != "n02\n" || name.Common {
		t.Errorf("etc/hostname: got %q, common %v, %v", name.Content, name.Common, err)
	}
	hosts, err := n.Image.Files[1].Render(c, n.Image, n)
	if err != nil || !hosts.Common || !strings.Contains(string(hosts.Content), "\n10.77.0.14 n04.small.example n04\n") {
		t.Errorf("etc/hosts: got %q, common %v, %v", hosts.Content, hosts.Common, err)
	}
}

func TestMarenostrumExampleIsRead(t *testing.T) {
	c := load(t, "marenostrum.xml")
	if len(c.Nodes) != 2560 || len(c.Servers) != 41 {
		t.Fatalf("got %d nodes and %d servers", len(c.Nodes), len(c.Servers))
	}
	first, last := c.Nodes[0], c.Nodes[2559]
	got := []any{
		string(first.Name), string(last.Name), first.Address().String(), last.Address().String(),
		last.Interfaces[1].Address.String(),
		string(first.Servers[0].Name), string(first.Servers[1].Name), string(last.Servers[0].Name),
		string(last.Servers[1].Name),
		string(first.Image.Name), string(last.Image.Name), last.Position, first.Boot().MAC.String(),
		string(c.Servers[40].Name),
		c.Servers[40].Address().String(), first.Groups[0].Name, len(c.Groups[0].Nodes),
	}
	want := []any{
		"s01c1b01", "s31c3b12", "10.128.1.1", "10.128.183.12", "10.129.183.12", "is01", "is02", "is40", "is01",
		"cell", "compute",
		map[string]int{"rack": 31, "chassis": 3, "blade": 12},
		"02:4d:4e:01:01:01", "is40",
		"10.128.254.40", "cell", 168,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLookUpsFindNodes(t *testing.T) {
	c := load(t, "marenostrum.xml")
	mac, _ := net.ParseMAC("02:4d:4e:01:01:03")
	if n, card, ok := c.NodeByMAC(mac); !ok || n.Name != "s01c1b03" || card.Name != "eth0" {
		t.Errorf("by MAC: got %v, %v, %v", n, card, ok)
	}
	for _, text := range []string{"10.129.183.12", "::ffff:10.129.183.12"} {
		n, card, ok := c.NodeByAddress(netip.MustParseAddr(text))
		if !ok || n.Name != "s31c3b12" || card.Name != "eth1" {
			t.Errorf("by address: got %v, %v, %v", n, card, ok)
		}
	}
	if _, _, ok := c.NodeByAddress(netip.MustParseAddr("10.128.254.1")); ok {
		t.Error("a node was found by a server's address")
	}
	if _, ok := c.Server("is07"); !ok {
		t.Error("no server is07")
	}
	if _, ok := c.Image("cell"); !ok {
		t.Error("no image cell")
	}
	if _, _, ok := c.NodeByMAC(nil); ok {
		t.Error("a node was found by no MAC")
	}
}

func TestSelect(t *testing.T) {
	c := load(t, "marenostrum.xml")
	tests := []struct {
		set   string
		count int
		first NodeName
	}{
		{"s01c1b01", 1, "s01c1b01"},
		{"@debug", 5, "s30c6b14"},
		{"rack2", 84, "s02c1b01"},
		{"rack02&chassis3", 14, "s02c3b01"},
		{"rack[2-3]!@cell", 84, "s03c1b01"},
		{"@*", 2560, "s01c1b01"},
		{"", 0, ""},
	}
	for _, tt := range tests {
		nodes, err := c.Select(tt.set)
		if err != nil || len(nodes) != tt.count || tt.count > 0 && nodes[0].Name != tt.first {
			t.Errorf("%q: got %d nodes, %v", tt.set, len(nodes), err)
		}
	}
	for set, want := range map[string]string{
		"s01c1b15": "did you mean", "@cel": `did you mean "cell"`,
		"rack32": "no such node: rack32", "s[": "character 2",
	} {
		if _, err := c.Select(set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q", set, err, want)
		}
	}
	if got := Fold(c.Nodes[:15]); got != "s01c1b[01-14],s01c2b01" {
		t.Errorf("fold: got %q", got)
	}
}

func TestLookUpsWorkOnAClusterMadeByHand(t *testing.T) {
	c := &Cluster{Nodes: []*Node{{Name: "a", Interfaces: []*Interface{{Address: netip.MustParseAddr("10.0.0.1")}}}}}
	if n, _, ok := c.NodeByAddress(netip.MustParseAddr("10.0.0.1")); !ok || n.Name != "a" {
		t.Errorf("got %v, %v", n, ok)
	}
}

func BenchmarkParseMarenostrum(b *testing.B) {
	path := filepath.Join(examples, "marenostrum.xml")
	if _, err := os.Stat(path); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(path); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTemplatesMayUseTheDocumentedFunctionsAndFields(t *testing.T) {
	template := `{{.Node.Name}} {{.Node.Index}} {{.Node.Address}} {{.Node.Boot.MAC}} ` +
		`{{(.Node.Interface "eth1").Address}} {{.Node.Position.rack}} ` +
		`{{(index .Node.Groups 0).Name}} {{.Server.Name}} {{.Server.On .Node.Boot.Network}} ` +
		`{{.Server.Ports.HTTP}} {{.Image.Arch}} ` +
		`{{netmask .Node.Boot.Network.Subnet}} {{fold (nodes .Cluster "@g!n12")}} {{add 1 2}} ` +
		`{{join "," (split "." "a.b")}} {{upper "x"}} {{replace "a" "b" "aa"}}`
	text := strings.Replace(valid, `<image name="gpu" arch="amd64" master="dir:/g"/>`,
		`<image name="gpu" arch="amd64" master="dir:/g"><file path="/etc/x">`+template+`</file></image>`, 1)
	open := openTest(map[string]string{"macs.csv": "node,interface,mac\n"})
	c, err := Parse(Source{Name: "c.xml", XML: []byte(text), Open: open})
	if err != nil {
		t.Fatal(err)
	}
	n, _ := c.Node("n13")
	got, err := n.Image.Files[0].Render(c, n.Image, n)
	want := `n13 2 10.0.0.13 52:54:00:00:01:03 10.1.0.13 1 g head 10.0.0.1 80 amd64 255.255.255.0 n[11,13] 3 a,b X bb`
	if err != nil || string(got.Content) != want {
		t.Errorf("got  %s, %v\nwant %s", got.Content, err, want)
	}
}

func TestTheRootMayReferToTheSchema(t *testing.T) {
	reference := "<cluster xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"\r\n" +
		"\txsi:noNamespaceSchemaLocation='cluster.xsd' name"
	text := strings.Replace(valid, `<cluster name`, reference, 1)
	if err := parseTest(text); err != nil {
		t.Error(err)
	}
	if !lint(t, [][]byte{[]byte(text)})[0] {
		t.Error("the XSD does not accept it")
	}
}

func TestWindowsLineEndsDoNotMovePositions(t *testing.T) {
	text := strings.Replace(valid, `{{.Node.Name}}`, "\n\n  {{.Node.Nome}}", 1)
	err := parseTest(strings.ReplaceAll(text, "\n", "\r\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "c.xml:9:10: template of /etc/a") {
		t.Errorf("got %v", err)
	}
}
