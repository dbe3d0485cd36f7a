package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/recordmerge"
)

// valid is a description without mistakes. The tests below insert some.
const valid = `<cluster name="c" domain="d.example">
<network name="boot" subnet="10.0.0.0/24" gateway="10.0.0.254"/>
<network name="mpi" subnet="10.1.0.0/24"/>
<taxonomy><level name="rack" to="2"/><level name="blade" from="1" to="3"/></taxonomy>
<server name="head" roles="head image"><interface network="boot" address="10.0.0.1"/></server>
<image name="compute" arch="amd64" master="dir:/m">
<file path="/etc/a">{{.Node.Name}}</file>
</image>
<image name="gpu" arch="amd64" master="dir:/g"/>
<nodes name="n{rack}{blade}" each="rack blade" image="compute" servers="head">
<interface name="eth0" network="boot" address="10.0.0.{rack*10+blade}" mac="52:54:00:00:0{rack}:0{blade}"/>
<interface name="eth1" network="mpi" address="10.1.0.{rack*10+blade}"/>
</nodes>
<group name="g" nodes="n1[1-3]" image="gpu"/>
<inventory file="macs.csv"/>
</cluster>
`

func openTest(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
}

func parseTest(text string) error {
	_, err := Parse(Source{Name: "c.xml", XML: []byte(text), Open: openTest(map[string]string{
		"macs.csv": "node,interface,mac\nn11,eth1,52:54:00:00:ff:01\n",
		"bad.csv": "node,interface,mac\nn99,eth0,52:54:00:00:ff:01\nn11,eth9,52:54:00:00:ff:02\nn12,eth1,nonsense\n" +
			"n13,eth1,52:54:00:00:01:01\nn13,eth0,52:54:00:00:ff:04\nn13,eth1\n\"",
		"head.csv":   "node,iface,mac,mac\n",
		"bad.tmpl":   "line one\nline {{.Node.Nome}}\n",
		"empty.csv":  "",
		"dir/x.tmpl": "{{.Cluster.Name}}",
	})})
	return err
}

func TestTheValidDescriptionIsValid(t *testing.T) {
	if err := parseTest(valid); err != nil {
		t.Fatal(err)
	}
}

func TestMistakesAreReportedAtTheirPosition(t *testing.T) {
	for _, tt := range mistakes() {
		if !strings.Contains(valid, tt.old) {
			t.Errorf("%s: the valid description has no %q", tt.name, tt.old)
			continue
		}
		err := parseTest(strings.Replace(valid, tt.old, tt.new, 1))
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		var ps *Problems
		if !errors.As(err, &ps) {
			t.Errorf("%s: the error is not *Problems: %v", tt.name, err)
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, err, tt.want)
		}
	}
}

func TestAllProblemsAreReportedAtOnceInOrder(t *testing.T) {
	text := strings.NewReplacer(`subnet="10.1.0.0/24"`, `subnet="10.1.0.1/24" x="y"`, `{{.Node.Name}}`, `{{`,
		`servers="head"`, `servers="hed"`, `n1[1-3]`, `n9`).Replace(valid)
	err := parseTest(text)
	var got []string
	for _, line := range strings.Split(err.Error(), "\n") {
		got = append(got, strings.Join(strings.SplitN(line, ":", 4)[:3], ":"))
	}
	want := "c.xml:3:29 c.xml:3:42 c.xml:7:21 c.xml:10:73 c.xml:14:24"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s, want %s\n%v", s, want, err)
	}
}

func TestServersMayShareAnAddressButNoPort(t *testing.T) {
	second := `<server name="two" roles="image" %s><interface network="boot" address="10.0.0.1"/></server>` +
		`<image name="gpu"`
	ok := fmt.Sprintf(second, `nfs-port="2050" http-port="81" tftp-port="70" api-port="7118" dhcp="off"`)
	if err := parseTest(strings.Replace(valid, `<image name="gpu"`, ok, 1)); err != nil {
		t.Error(err)
	}
	err := parseTest(strings.Replace(valid, `<image name="gpu"`, fmt.Sprintf(second, ""), 1))
	heads := strings.Replace(ok, `"image"`, `"head"`, 1)
	if err := parseTest(strings.Replace(valid, `<image name="gpu"`, heads, 1)); err == nil ||
		!strings.Contains(err.Error(), "etcd-port: TCP port 7118 on 10.0.0.1 is already used by api-port of server") {
		t.Errorf("two heads: %v", err)
	}
	for _, want := range []string{
		"server two: http-port: TCP port 80 on 10.0.0.1 is already used by http-port of server head", "api-port",
		"nfs-port", "tftp-port", "dhcp: UDP port 67",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestServersThatNodesCannotReachAreReported(t *testing.T) {
	away := strings.NewReplacer(`<interface network="boot" address="10.0.0.1"/>`,
		`<interface network="mpi" address="10.1.0.1"/>`).Replace(valid)
	if err := parseTest(away); err != nil {
		t.Errorf("through a gateway: %v", err)
	}
	err := parseTest(strings.Replace(away, ` gateway="10.0.0.254"`, "", 1))
	want := `c.xml:10:1: node n11 cannot reach server head: it has no card on network "boot", which has no gateway ` +
		`(and 5 more of the same kind) (a node boots from its first <interface>)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSingleNodesAndForwardReferences(t *testing.T) {
	text := `<cluster name="c"><node name="login{blade}" position="blade2 rack1" image="late" servers="is1">
<interface name="eth0" network="boot" address="10.0.0.{rack*10+blade}"/><interface name="bmc" network="boot"/></node>
<image name="late" arch="arm64" master="ssh://root@h:22/"><file path="/etc/motd" mode="0600" owner="5:6">
Welcome
</file><kernel version="6.1.0-28-arm64" append="quiet" modules="mlx5_core nvme"/>
<builtin name="fstab" enabled="no"/></image>
<servers name="is{i}" count="2" roles="image" dhcp="off"><interface network="boot" address="10.0.0.{i}"/></servers>
<server name="head" roles="head"><interface network="boot" address="10.0.0.100"/></server>
<taxonomy><level name="rack" to="2"/><level name="blade" to="2"/></taxonomy>
<network name="boot" subnet="10.0.0.0/24" admin="yes" mtu="9000" dns="10.0.0.9 10.9.9.9"/></cluster>`
	c, err := Parse(Source{Name: "c.xml", XML: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	n, f, k := c.Nodes[0], c.Images[0].Files[0], c.Images[0].Kernel
	got := fmt.Sprintln(n.Name, n.Position, n.Address(), n.Interface("bmc").Address.IsValid(), n.Servers[0].DHCP,
		c.Networks[0].Admin, c.Networks[0].DNS,
		f.Template, f.Mode, f.UID, f.GID, k.Version, k.Modules, c.Images[0].DisabledBuiltins)
	want := "login2 map[blade:2 rack:1] 10.0.0.12 false false true [10.0.0.9 10.9.9.9] Welcome\n " +
		"384 5 6 6.1.0-28-arm64 [mlx5_core nvme] map[fstab:true]\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMergeRulesChangeTheBuiltInOnes(t *testing.T) {
	rules := `<merge path="/etc/group" by="none"/><merge path="/etc/services" by="line-key"/></image>`
	text := strings.Replace(valid, "</image>", rules, 1)
	macs := openTest(map[string]string{"macs.csv": "node,interface,mac\n"})
	c, err := Parse(Source{Name: "c.xml", XML: []byte(text), Open: macs})
	if err != nil {
		t.Fatal(err)
	}
	want := recordmerge.Builtin()
	delete(want, "etc/group")
	want["etc/services"] = recordmerge.LineKey
	if diff := cmp.Diff(want, c.Images[0].Merge); diff != "" {
		t.Errorf("merged files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(recordmerge.Builtin(), c.Images[1].Merge); diff != "" {
		t.Errorf("without rules (-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte("<cluster/>"))
	f.Add([]byte("\ufeff<?xml version='1.0'?><cluster name='a'>\r\n" +
		"<image name=\"x\"><file path='/a'><![CDATA[{{]]></file></image></cluster>"))
	f.Add([]byte(`<cluster><nodes name="n{i}" count="3"/><node position="x1"/><group nodes="@*!n[1-2]"/></cluster>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		open := openTest(map[string]string{"macs.csv": string(text), "t": string(text)})
		src := Source{Name: "c.xml", XML: text, Open: open}
		c, err := parseLimited(src, limits{nodes: 300, cards: 500, members: 2000})
		var ps *Problems
		switch {
		case err == nil && c == nil:
			t.Fatal("neither a cluster nor an error")
		case err != nil && (!errors.As(err, &ps) || len(ps.List) == 0):
			t.Fatalf("the error is not *Problems: %v", err)
		case err == nil:
			if _, err := c.Select("@*"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
