package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// valid is a description with nothing wrong; the tests below break it.
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
		"macs.csv":   "node,interface,mac\nn11,eth1,52:54:00:00:ff:01\n",
		"bad.csv":    "node,interface,mac\nn99,eth0,52:54:00:00:ff:01\nn11,eth9,52:54:00:00:ff:02\nn12,eth1,nonsense\nn13,eth1,52:54:00:00:01:01\nn13,eth0,52:54:00:00:ff:04\nn13,eth1\n\"",
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

type mistake struct{ name, old, new, want string }

// mistakes are ways to break the valid description, and what is then reported.
func mistakes() []mistake {
	return []mistake{
		{"unknown element", `<inventory file="macs.csv"/>`, `<inventroy file="macs.csv"/>`, `c.xml:15:1: unknown element <inventroy> in <cluster> (did you mean "inventory"?)`},
		{"unknown attribute", `gateway=`, `getaway=`, `c.xml:2:43: unknown attribute getaway of <network> (did you mean "gateway"?)`},
		{"missing attribute", ` subnet="10.1.0.0/24"`, ``, `c.xml:3:1: <network> has no attribute subnet`},
		{"attribute twice", `<level name="rack"`, `<level name="rack" name="rock"`, `c.xml:4:30: attribute name of <level> is given twice`},
		{"malformed value", `arch="amd64" master="dir:/m"`, `arch="x86" master="dir:/m"`, `c.xml:6:29: arch="x86": want one of amd64, arm64, ppc64le`},
		{"bad role", `roles="head image"`, `roles="head images"`, `c.xml:5:28: roles="head images": want "head", "image" or both`},
		{"bad port", `roles="head image"`, `roles="head image" nfs-port="70000"`, `c.xml:5:50: nfs-port="70000": want 1 to 65535`},
		{"no interface", `<interface network="boot" address="10.0.0.1"/>`, ``, `c.xml:5:1: <server> has no <interface>`},
		{"second taxonomy", `</taxonomy>`, `</taxonomy><taxonomy><level name="x" to="1"/></taxonomy>`, `c.xml:4:86: a second <taxonomy> in <cluster>`},
		{"text", `<inventory`, `word <inventory`, `c.xml:15:1: text where only elements may stand`},
		{"broken XML", `</nodes>`, `</node>`, `c.xml:13:8: broken XML: element <nodes> closed by </node>`},
		{"document type", `<cluster name`, `<!DOCTYPE cluster [<!ENTITY a "b">]><cluster name`, `c.xml:1:1: document types and entities are not allowed`},
		{"entity", `name="boot"`, `name="&boot;"`, `c.xml:2:22: broken XML: invalid character entity &boot;`},
		{"second root", "</cluster>\n", "</cluster>\n<cluster/>", `c.xml:17:1: a second root element <cluster>`},
		{"root", "<cluster name", "<clutter name", `broken XML`},

		{"second network", `name="mpi"`, `name="boot"`, `c.xml:3:16: a second network "boot"`},
		{"overlap", `10.1.0.0/24`, `10.0.0.0/16`, `c.xml:3:29: network "mpi" (10.0.0.0/16) overlaps network "boot" (10.0.0.0/24)`},
		{"host bits", `10.1.0.0/24`, `10.1.0.1/24`, `c.xml:3:29: subnet="10.1.0.1/24" has bits set beyond its prefix (did you mean "10.1.0.0/24"?)`},
		{"gateway elsewhere", `10.0.0.254`, `10.9.0.254`, `c.xml:2:52: gateway: address 10.9.0.254 is outside network "boot" (10.0.0.0/24)`},
		{"levels backwards", `from="1" to="3"`, `from="4" to="3"`, `c.xml:4:71: level "blade" runs backwards, from 4 to 3`},
		{"level twice", `name="blade"`, `name="rack"`, `c.xml:4:51: a second level "rack"`},
		{"level called index", `name="blade"`, `name="index"`, `c.xml:4:51: a level cannot be called "index": that counts nodes`},

		{"unknown network", `<interface network="boot"`, `<interface network="bot"`, `c.xml:5:60: network "bot" is not defined (did you mean "boot"?)`},
		{"server outside", `address="10.0.0.1"`, `address="10.7.0.1"`, `c.xml:5:75: server head: address 10.7.0.1 is outside network "boot" (10.0.0.0/24)`},
		{"no image role", `roles="head image"`, `roles="head"`, `c.xml:10:73: node n11: server head does not have the role "image" (and 5 more like it)`},
		{"no head", `roles="head image"`, `roles="image"`, `c.xml:1:1: no server has the role "head"`},
		{"ports clash", `roles="head image"`, `roles="head image" nfs-port="80"`, `nfs-port: TCP port 80 on 10.0.0.1 is taken by its own http-port`},

		{"second image", `name="gpu"`, `name="compute"`, `c.xml:9:14: a second image "compute"`},
		{"bad pattern", `</image>`, `<shared path="/a/../b"/></image>`, `c.xml:8:15: parse pattern "/a/../b"`},
		{"bad path", `path="/etc/a"`, `path="/etc//a"`, `c.xml:7:13: path "/etc//a": want a clean absolute path of a file`},
		{"mount twice", `</image>`, `<mount path="/srv/x"/><mount path="/srv/x"/></image>`, `c.xml:8:36: <mount path="/srv/x"> is given twice`},
		{"mount that is not clean", `</image>`, `<mount path="/srv/../x"/></image>`, `c.xml:8:14: path "/srv/../x": want a clean absolute path`},
		{"file twice", `</image>`, `<file path="/etc/a">x</file></image>`, `c.xml:8:13: a second <file path="/etc/a"> in image "compute"`},
		{"file below a file", `</image>`, `<file path="/etc/a/b">x</file></image>`, `c.xml:8:13: <file path="/etc/a/b">: one of it and "/etc/a" would have to be a directory`},
		{"unknown builtin", `</image>`, `<builtin name="fstap" enabled="no"/></image>`, `(did you mean "fstab"?)`},
		{"second kernel", `</image>`, `<kernel/><kernel/></image>`, `c.xml:8:10: a second <kernel> in <image>`},
		{"bad owner", `path="/etc/a"`, `path="/etc/a" owner="4294967295:0"`, `c.xml:7:28: owner="4294967295:0": want numbers below 4294967295`},
		{"template syntax", `{{.Node.Name}}`, `{{.Node.Name`, `template of /etc/a: unclosed action`},
		{"template function", `{{.Node.Name}}`, `{{nodename}}`, `c.xml:7:21: template of /etc/a: function "nodename" not defined`},
		{"template field", `{{.Node.Name}}`, `{{.Node.Nmae}}`, `c.xml:7:28: template of /etc/a: <.Node.Nmae>: can't evaluate field Nmae in type *cluster.Node`},
		{"template file", `>{{.Node.Name}}<`, ` template="bad.tmpl"><`, `bad.tmpl:2:13: template of /etc/a: <.Node.Nome>: can't evaluate field Nome`},
		{"template twice", `>{{.Node.Name}}<`, ` template="bad.tmpl">x<`, `c.xml:7:1: <file path="/etc/a"> has both a text and a template file`},
		{"no such template", `>{{.Node.Name}}<`, ` template="none.tmpl"><`, `c.xml:7:31: open none.tmpl: file does not exist`},
		{"template outside", `>{{.Node.Name}}<`, ` template="../none.tmpl"><`, `c.xml:7:31: file "../none.tmpl": want a path below the description's directory`},
		{"endless template", `{{.Node.Name}}`, `{{range 100000000000}}{{end}}`, `the template runs for too long`},
		{"endless recursion", `{{.Node.Name}}`, `{{define "a"}}{{template "b"}}{{template "b"}}{{end}}{{define "b"}}{{template "a"}}{{end}}{{template "a"}}`, `template of /etc/a`},

		{"unknown image", `image="compute"`, `image="comptue"`, `c.xml:10:55: image "comptue" is not defined (did you mean "compute"?)`},
		{"unknown server", `servers="head"`, `servers="haed"`, `c.xml:10:73: node n11: server "haed" is not defined (and 5 more like it) (did you mean "head"?)`},
		{"no servers", ` servers="head"`, ``, `c.xml:10:1: node n11 has no server with the role "image" (and 5 more like it)`},
		{"position: level", `<group`, `<node name="x" position="rock1" image="compute" servers="head"><interface name="e" network="boot" address="10.0.0.99"/></node><group`, `c.xml:14:26: level "rock" is not defined (did you mean "rack"?)`},
		{"position: twice", `<group`, `<node name="x" position="rack1 rack2" image="compute" servers="head"><interface name="e" network="boot" address="10.0.0.99"/></node><group`, `c.xml:14:26: level "rack" is given twice`},
		{"position: range", `<group`, `<node name="x" position="rack3" image="compute" servers="head"><interface name="e" network="boot" address="10.0.0.99"/></node><group`, `c.xml:14:26: rack3 is outside the level's range, 1 to 2`},
		{"each twice", `each="rack blade"`, `each="rack rack"`, `c.xml:10:36: level "rack" is given twice`},
		{"bad expression in servers", `servers="head"`, `servers="head {"`, `c.xml:10:78: "{" without "}"`},
		{"role twice", `roles="head image"`, `roles="head image head"`, `c.xml:5:28: role "head" is given twice`},
		{"server's address twice", `address="10.0.0.1"/>`, `address="10.0.0.1"/><interface network="boot" address="10.0.0.1"/>`, `c.xml:5:121: server head: two cards have address 10.0.0.1`},
		{"server's MAC", `address="10.0.0.1"/>`, `address="10.0.0.1" mac="52:54:00:00:01:01"/>`, `node n11: hardware address 52:54:00:00:01:01 is taken by server head at c.xml:5:90`},
		{"too many servers", `<image name="gpu"`, `<servers name="x{i}" count="10000" roles="image"><interface network="boot" address="10.0.0.9"/></servers><image name="gpu"`, `c.xml:9:29: count="10000": want 1 to 10000 servers in all`},
		{"subnet", `10.1.0.0/24`, `10.1.0.0/33`, `c.xml:3:29: subnet="10.1.0.0/33": want an IPv4 subnet such as 10.77.0.0/24`},
		{"encoding", `<cluster name`, `<?xml version="1.0" encoding="latin1"?><cluster name`, `only UTF-8 can be read`},
		{"no image", ` image="compute" servers`, ` servers`, `c.xml:10:1: node n21 has no image, neither its own nor a group's (and 2 more like it)`},
		{"server twice", `servers="head"`, `servers="head head"`, `c.xml:10:78: node n11: server head is named twice (and 5 more like it)`},
		{"unknown level", `each="rack blade"`, `each="rack blades"`, `c.xml:10:36: level "blades" is not defined (did you mean "blade"?)`},
		{"each and count", `each="rack blade"`, `each="rack blade" count="2"`, `c.xml:10:1: <nodes> has one of the attributes each and count`},
		{"neither", `each="rack blade" `, ``, `c.xml:10:1: <nodes> has one of the attributes each and count`},
		{"too many", `each="rack blade"`, `count="999999999"`, `c.xml:10:37: want 1 to 100000 nodes in all`},
		{"too many by levels", `from="1" to="3"`, `from="1" to="999999999"`, `c.xml:10:36: want 1 to 100000 nodes in all`},
		{"unknown variable", `n{rack}{blade}`, `n{rack}{blode}`, `c.xml:10:22: "blode" is not defined here (did you mean "blade"?)`},
		{"division by zero", `n{rack}{blade}`, `n{rack}{blade/(rack-1)}`, `c.xml:10:21: the expression divides by zero (and 2 more like it)`},
		{"name twice", `n{rack}{blade}`, `n{blade}`, `c.xml:10:14: node n1: the name is taken by node n1 at c.xml:10:14 (and 2 more like it)`},
		{"name of a server", `n{rack}{blade}" each="rack blade"`, `Head" count="1"`, `c.xml:10:14: node Head: the name is taken by server head at c.xml:5:15`},
		{"name like a place", `n{rack}{blade}`, `rack{blade}`, `node rack1 is called like a place of the taxonomy`},
		{"bad name", `n{rack}{blade}`, `n.{rack}{blade}`, `c.xml:10:14: "n.11" is not a host name`},
		{"octet", `address="10.0.0.{rack*10+blade}"`, `address="10.0.0.{rack*100+blade*60}"`, `c.xml:11:48: node n13: "10.0.0.280" is not an IPv4 address (and 3 more like it)`},
		{"outside", `address="10.0.0.{rack*10+blade}"`, `address="10.0.{rack}.{blade}"`, `c.xml:11:48: node n11: address 10.0.1.1 is outside network "boot" (10.0.0.0/24) (and 5 more like it)`},
		{"broadcast", `10.0.0.{rack*10+blade}`, `10.0.0.{rack*126+blade}`, `c.xml:11:48: node n23: address 10.0.0.255 is the broadcast address of network "boot" (10.0.0.0/24)`},
		{"network address", `10.0.0.{rack*10+blade}`, `10.0.0.{index}`, `c.xml:11:48: node n11: address 10.0.0.0 is that of network "boot" itself (10.0.0.0/24)`},
		{"server's address", `10.0.0.{rack*10+blade}`, `10.0.0.{i}`, `c.xml:11:48: node n11: address 10.0.0.1 is taken by server head at c.xml:5:75`},
		{"gateway's address", `10.0.0.{rack*10+blade}`, `10.0.0.{i+253}`, `c.xml:11:48: node n11: address 10.0.0.254 is the gateway of network "boot"`},
		{"address twice", `10.0.0.{rack*10+blade}`, `10.0.0.{10+blade}`, `c.xml:11:48: node n21: address 10.0.0.11 is taken by node n11 at c.xml:11:48 (and 2 more like it)`},
		{"no boot address", ` address="10.0.0.{rack*10+blade}"`, ``, `c.xml:11:1: the first interface has no address: the node boots from it`},
		{"MAC twice", `:0{rack}:0{blade}"`, `:00:0{blade}"`, `node n21: hardware address 52:54:00:00:00:01 is taken by node n11`},
		{"multicast MAC", `mac="52:`, `mac="53:`, `no card can have the hardware address 53:54:00:00:01:01`},
		{"interface twice", `name="eth1"`, `name="eth0"`, `c.xml:12:18: a second interface "eth0"`},

		{"unknown node", `n1[1-3]`, `n1[1-4]`, `c.xml:14:24: node "n14" is not defined (did you mean "n11"?)`},
		{"bad node set", `n1[1-3]`, `n1[1-3`, `c.xml:14:26: node set: "[" without "]"`},
		{"unknown group", `n1[1-3]`, `@h`, `c.xml:14:24: node set: group "h" is not defined`},
		{"second group", `<inventory`, `<group name="g" nodes="n11"/><inventory`, `c.xml:15:14: a second group "g"`},
		{"two images", `<inventory`, `<group name="h" nodes="n11" image="compute"/><inventory`, `c.xml:15:1: node n11 is in group "g" with image "gpu", and in group "h" with image "compute"`},
		{"huge set", `n1[1-3]`, `n1[1-99999999]`, `node set: more than`},

		{"inventory: node", `macs.csv`, `bad.csv`, `bad.csv:2:1: node "n99" is not defined`},
		{"inventory: interface", `macs.csv`, `bad.csv`, `bad.csv:3:5: node n11 has no interface "eth9" (did you mean "eth0"?)`},
		{"inventory: MAC", `macs.csv`, `bad.csv`, `bad.csv:4:10: node n12: "nonsense" is not a hardware address`},
		{"inventory: taken", `macs.csv`, `bad.csv`, `bad.csv:5:10: node n13: hardware address 52:54:00:00:01:01 is taken by node n11 at c.xml:11:77`},
		{"inventory: twice", `macs.csv`, `bad.csv`, `bad.csv:6:10: node n13: interface eth0 has a hardware address already, 52:54:00:00:01:03`},
		{"inventory: columns", `macs.csv`, `bad.csv`, `bad.csv:7:1: wrong number of fields`},
		{"inventory: quote", `macs.csv`, `bad.csv`, `bad.csv:8:2: extraneous or missing " in quoted-field`},
		{"inventory: header", `macs.csv`, `head.csv`, `head.csv:1:6: unknown column "iface"`},
		{"inventory: column", `macs.csv`, `head.csv`, `head.csv:1:1: the column "interface" is missing`},
		{"no such inventory", `macs.csv`, `none.csv`, `c.xml:15:18: open none.csv: file does not exist`},
	}
}

func TestMistakesAreReportedWithTheirPlace(t *testing.T) {
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
	text := strings.NewReplacer(`subnet="10.1.0.0/24"`, `subnet="10.1.0.1/24" x="y"`, `{{.Node.Name}}`, `{{`, `servers="head"`, `servers="hed"`, `n1[1-3]`, `n9`).Replace(valid)
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
	second := `<server name="two" roles="image" %s><interface network="boot" address="10.0.0.1"/></server><image name="gpu"`
	ok := fmt.Sprintf(second, `nfs-port="2050" http-port="81" tftp-port="70" api-port="7118" dhcp="off"`)
	if err := parseTest(strings.Replace(valid, `<image name="gpu"`, ok, 1)); err != nil {
		t.Error(err)
	}
	err := parseTest(strings.Replace(valid, `<image name="gpu"`, fmt.Sprintf(second, ""), 1))
	for _, want := range []string{
		"server two: http-port: TCP port 80 on 10.0.0.1 is taken by http-port of server head", "api-port", "nfs-port", "tftp-port", "dhcp: UDP port 67",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestServersThatNodesCannotReachAreFound(t *testing.T) {
	away := strings.NewReplacer(`<interface network="boot" address="10.0.0.1"/>`, `<interface network="mpi" address="10.1.0.1"/>`).Replace(valid)
	if err := parseTest(away); err != nil {
		t.Errorf("through a gateway: %v", err)
	}
	err := parseTest(strings.Replace(away, ` gateway="10.0.0.254"`, "", 1))
	want := `c.xml:10:1: node n11 cannot reach server head: it has no card on network "boot", which has no gateway (and 5 more like it)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSingleNodesAndForwardReferences(t *testing.T) {
	text := `<cluster name="c"><node name="login{blade}" position="blade2 rack1" image="late" servers="is1">
<interface name="eth0" network="boot" address="10.0.0.{rack*10+blade}"/><interface name="bmc" network="boot"/></node>
<image name="late" arch="arm64" master="ssh://root@h:22/"><file path="/etc/motd" mode="0600" owner="5:6">
Welcome
</file><kernel version="6.1.0-28-arm64" append="quiet" modules="mlx5_core nvme"/><builtin name="fstab" enabled="no"/></image>
<servers name="is{i}" count="2" roles="image" dhcp="off"><interface network="boot" address="10.0.0.{i}"/></servers>
<server name="head" roles="head"><interface network="boot" address="10.0.0.100"/></server>
<taxonomy><level name="rack" to="2"/><level name="blade" to="2"/></taxonomy>
<network name="boot" subnet="10.0.0.0/24" admin="yes" mtu="9000" dns="10.0.0.9 10.9.9.9"/></cluster>`
	c, err := Parse(Source{Name: "c.xml", XML: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	n, f, k := c.Nodes[0], c.Images[0].Files[0], c.Images[0].Kernel
	got := fmt.Sprintln(n.Name, n.Position, n.Address(), n.Interface("bmc").Address.IsValid(), n.Servers[0].DHCP, c.Networks[0].Admin, c.Networks[0].DNS,
		f.Template, f.Mode, f.UID, f.GID, k.Version, k.Modules, c.Images[0].Builtin.Off)
	want := "login2 map[blade:2 rack:1] 10.0.0.12 false false true [10.0.0.9 10.9.9.9] Welcome\n 384 5 6 6.1.0-28-arm64 [mlx5_core nvme] map[fstab:true]\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte("<cluster/>"))
	f.Add([]byte("\ufeff<?xml version='1.0'?><cluster name='a'>\r\n<image name=\"x\"><file path='/a'><![CDATA[{{]]></file></image></cluster>"))
	f.Add([]byte(`<cluster><nodes name="n{i}" count="3"/><node position="x1"/><group nodes="@*!n[1-2]"/></cluster>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		src := Source{Name: "c.xml", XML: text, Open: openTest(map[string]string{"macs.csv": string(text), "t": string(text)})}
		c, err := parseWithin(src, limits{nodes: 300, cards: 500, members: 2000})
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
