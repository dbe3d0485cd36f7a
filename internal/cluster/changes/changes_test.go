package changes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/control"

	"github.com/google/go-cmp/cmp"
)

const text = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="10.77.0.0/16"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <server name="i2" roles="image"><interface network="boot" address="10.77.0.2"/></server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/compute"><file path="/etc/motd">hello</file></image>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.1.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
  <group name="first" nodes="n01"/>
</cluster>`

func parse(t *testing.T, text string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines formats changes: "node image compute → comp2 4 n[01-04]".
func lines(changes []control.DescriptionChange) []string {
	list := []string{}
	for _, c := range changes {
		what := string(c.Kind)
		if c.Attribute != "" {
			what = c.Attribute
		}
		if c.From+c.To != "" {
			what += " " + c.From + " → " + c.To
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", c.Subject, what, c.Count, c.Names)))
	}
	return list
}

func TestChangesAreThoseOfTheDeclaredObjects(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit []string
		want []string
	}{
		{"a comment changes nothing", []string{`<taxonomy>`, `<!-- x --><taxonomy>`}, []string{}},
		{"files of records are merged, or not", []string{`</image>`,
			`<merge path="/etc/x" by="dpkg"/><merge path="/etc/group" by="none"/>` +
				`<merge path="/etc/passwd" by="passwd"/></image>`},
			[]string{"image merge  → /etc/group by none, /etc/x by dpkg 1 compute"}},
		{"the cluster has a quota", []string{`<taxonomy>`, `<quota bytes="1G"/><taxonomy>`},
			[]string{"cluster quota  → 1.0 GiB, 0 files 1"}},
		{"nodes have a quota", []string{`</nodes>`, `<quota files="9"/></nodes>`},
			[]string{"node quota  → 0 B, 9 files 4 n[01-04]"}},
		{"nodes have a VLAN", []string{`</nodes>`,
			`<interface name="stor" vlan="9" on="eth0" network="boot" address="10.77.2.{node}" mtu="1400"/></nodes>`},
			[]string{
				"node interfaces eth0 on boot → eth0 on boot, stor VLAN 9 of eth0 on boot 4 n[01-04]",
				"node mtu  → stor 1400 4 n[01-04]",
				"node address 10.77.1.11 → 10.77.1.11 10.77.2.1 1 n01",
				"node address 10.77.1.12 → 10.77.1.12 10.77.2.2 1 n02",
				"node address 10.77.1.13 → 10.77.1.13 10.77.2.3 1 n03",
				"node address 10.77.1.14 → 10.77.1.14 10.77.2.4 1 n04",
			}},
		{"the network has a router and another MTU",
			[]string{`0.0/16"/>`, `0.0/16" gateway="10.77.0.9" mtu="1400"/>`},
			[]string{"network gateway none → 10.77.0.9 1 boot", "network mtu 0 → 1400 1 boot"}},
		{"nodes have a router and name servers of their own", []string{`1.{10+node}"`,
			`1.{10+node}" gateway="10.77.0.9"`, `servers="head">`, `servers="head" dns="10.77.0.5">`},
			[]string{"node dns  → 10.77.0.5 4 n[01-04]", "node gateway  → eth0 10.77.0.9 4 n[01-04]"}},
		{"a node is gone", []string{`to="4"`, `to="3"`},
			[]string{"cluster taxonomy node 1-4 → node 1-3 1", "node removed 1 n04"}},
		{"nodes are added", []string{`to="4"`, `to="6"`},
			[]string{"cluster taxonomy node 1-4 → node 1-6 1", "node added 2 n[05-06]"}},
		{"an image has another name", []string{`"compute"`, `"comp2"`}, []string{
			"node image compute → comp2 4 n[01-04]", "image removed 1 compute", "image added 1 comp2",
		}},
		{"nodes move to another server", []string{`servers="head"`, `servers="i2 head"`},
			[]string{"node servers head → i2 head 4 n[01-04]"}},
		{"every node has another address", []string{`1.{10+node}`, `2.{30+node}`},
			[]string{"node address 10.77.1.11 → 10.77.2.31 1 n01", "node address 10.77.1.12 → 10.77.2.32 1 n02",
				"node address 10.77.1.13 → 10.77.2.33 1 n03", "node address 10.77.1.14 → 10.77.2.34 1 n04"}},
		{"another cluster", []string{`name="small"`, `name="odd"`}, []string{"cluster name small → odd 1"}},
		{"the text of a template", []string{`hello`, `bye`}, []string{"image templates 1 compute"}},
		{"a master and a port",
			[]string{`/srv/compute`, `/srv/c2`, `"i2" roles="image"`, `"i2" roles="image" nfs-port="99"`},
			[]string{"image master dir:/srv/compute → dir:/srv/c2 1 compute",
				"server ports nfs 2049, http 80, tftp 69, api 7117, etcd 7118 → " +
					"nfs 99, http 80, tftp 69, api 7117, etcd 7118 1 i2"}},
		{"a group", []string{`nodes="n01"`, `nodes="n[01-02]"`}, []string{"group nodes n01 → n[01-02] 1 first"}},
	} {
		got := lines(Compare(parse(t, text), parse(t, strings.NewReplacer(tt.edit...).Replace(text)), nil))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

// A size is shown in a unit that does not round it, so that two sizes are never the same by mistake.
func TestAQuotaThatIsALittleLargerIsAChange(t *testing.T) {
	with := func(size string) *cluster.Cluster {
		return parse(t, strings.Replace(text, "<taxonomy>", `<quota bytes="`+size+`"/><taxonomy>`, 1))
	}
	got := lines(Compare(with("10G"), with("10241M"), nil))
	if want := "cluster quota 10.0 GiB, 0 files → 10,738,466,816 bytes, 0 files 1"; !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestManyValuesOfAnAttributeAreOneChange(t *testing.T) {
	large := strings.Replace(text, `to="4"`, `to="200"`, 1)
	got := lines(Compare(parse(t, large), parse(t, strings.Replace(large, `1.{10+node}`, `2.{30+node}`, 1)), nil))
	if diff := cmp.Diff([]string{"node address 200 n[01-99,100-200]"}, got); diff != "" {
		t.Error(diff)
	}
}
