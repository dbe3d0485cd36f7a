package cluster

import (
	"strings"
	"testing"
)

// cards is a description whose node has the interfaces that are filled in.
const cards = `<cluster name="small" domain="small.example">
<network name="boot" subnet="10.77.0.0/24" gateway="10.77.0.254"/>
<network name="ib" subnet="10.78.0.0/24"/>
<server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
<image name="compute" arch="amd64" master="dir:/srv/compute"/>
<node name="n01" image="compute" servers="head">CARDS</node>
<group name="cell" nodes="n01"/>
</cluster>`

const good = `<interface name="eth0" network="boot" address="10.77.0.11" mac="52:54:00:4d:00:01"/>`

func parseCards(interfaces string, edit ...string) (*Cluster, error) {
	text := strings.NewReplacer(edit...).Replace(strings.Replace(cards, "CARDS", interfaces, 1))
	return Parse(Source{Name: "cluster.xml", XML: []byte(text), Open: func(string) ([]byte, error) {
		return []byte("node,interface,mac\n"), nil
	}})
}

func TestWordsOfOtherToolsGetAHint(t *testing.T) {
	for in, want := range map[string]string{
		`subnet="10.0.0.0/8"`: "(subnet belongs to <network>)",
		`netmask="255.0.0.0"`: `(the subnet and its length are in <network subnet=`,
		`hwaddr="x"`:          `(write mac="…")`,
		`ipaddr="10.0.0.1"`:   `(write address="…")`,
		`adress="10.0.0.1"`:   `(did you mean "address"?)`,
		`container="rocky"`:   `(write image="…" of <nodes>, <node> or <group>`,
		`domain="x"`:          "(domain belongs to <cluster>)",
		`ip6addr="x"`:         `(write address6="…" of <interface>, and subnet6="…/64" of <network>)`,
		`slaves="eth1"`:       `(write on="eth0" of <interface>: the interfaces`,
		`vlan_id="902"`:       `(write vlan="902" and on="eth0")`,
		`nicaliases="x"`:      "(a second name has no place here",
		`primary="true"`:      "(the first <interface> is the one that boots)",
	} {
		_, err := parseCards(strings.Replace(good, "/>", " "+in+"/>", 1))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
	for in, want := range map[string]string{
		`<exclude path="/x"/>`: "(<exclude> belongs in <image>)", `<nic/>`: "(write <interface>)",
		`<inteface/>`: `(did you mean "interface"?)`,
	} {
		if _, err := parseCards(good + in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
	for edit, want := range map[[2]string]string{
		{`name="n01"`, `name="n01.small.example"`}: `(without the domain: n01, and <cluster domain="small.example">)`,
		{`mac="52`, `mac="01-52`}:                  `(write 52:54:00:4d:00:01: 01 is the type of the card`,
		{`"10.77.0.11"`, `"10.77.0.$1"`}:           "(numbers are expressions in braces, such as {node}",
		{`name="cell"`, `name="1738"`}:             `name="1738": must be a name that begins with a letter`,
	} {
		if _, err := parseCards(good, edit[0], edit[1]); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", edit[1], err, want)
		}
	}
}

func TestAFileThatIsNotXMLIsToldBySight(t *testing.T) {
	for text, want := range map[string]string{
		"nodeprofiles:\n  default:\n    image name: rocky\n": "YAML, as Warewulf's nodes.conf",
		"---\n- a\n": "YAML", "{\"nodes\": []}": "JSON", "[n01]\nmac = x\n": "an INI file",
		"node,interface,mac\nn01,eth0,x\n": "a table with commas", "\x1f\x8b\x08": "a compressed file",
		"host n01 { hardware ethernet 52:54:00:4d:00:01; }": "the configuration of a DHCP server", "hello": "text",
	} {
		_, err := Parse(Source{Name: "x", XML: []byte(text)})
		if err == nil || !strings.HasPrefix(err.Error(), "x:1:1: a description is XML, and this looks like "+want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWhatIsValidButNotMeantIsAWarning(t *testing.T) {
	second := strings.NewReplacer("eth0", "eth1", "0.11", "0.12", "00:01", "00:02").Replace(good)
	named := strings.Replace(second, "eth1", "eth0.902", 1)
	ib := strings.NewReplacer("boot", "ib", "10.77", "10.78")
	noMAC := strings.Replace(good, ` mac="52:54:00:4d:00:01"`, "", 1)
	for _, tt := range []struct {
		name, cards, want string
		edit              []string
	}{
		{"all is well", good, "", nil},
		{"cards on two networks", good + ib.Replace(second), "", nil},
		{"a VLAN that is declared", good + ib.Replace(strings.Replace(named, "mac=\"52:54:00:4d:00:02\"",
			`vlan="902" on="eth0"`, 1)), "", nil},
		{"two cards on one network", good + second, `interfaces eth0 and eth1 are on one network, "boot"`, nil},
		{"a VLAN by its name only", good + named, "interface eth0.902 has the name of a VLAN of eth0", nil},
		{"no MAC", noMAC, "node n01 has no MAC: nothing is answered when it boots", nil},
		{"an empty inventory", good, "the inventory is empty",
			[]string{`<group`, `<inventory file="macs.csv"/><group`}},
		{"a group with the name of a node", good, "node n01 and a group have the same name",
			[]string{`"cell"`, `"n01"`}},
	} {
		c, err := parseCards(tt.cards, tt.edit...)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var texts []string
		for _, p := range c.Warnings() {
			texts = append(texts, p.String())
		}
		if got := strings.Join(texts, "\n"); !strings.Contains(got, tt.want) || len(texts) != min(1, len(tt.want)) ||
			tt.want != "" && !strings.Contains(got, ": warning: ") {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
