package migrate

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/migrate/describe"
)

func TestAnsible(t *testing.T) {
	r := imported(t, "ansible", "ansible")
	expect(t, r, []string{
		`domain="ans.example"`,
		`<network name="net-admin" subnet="10.8.0.0/16" gateway="10.8.255.254" `,
		`subnet6="fd00:8::/64" gateway6="fd00:8::fe" mtu="9000"/>`,
		`<nodes name="n{node:02}" each="node" `, `<interface name="eth0" network="net2" address="10.9.1.{node}"/>`,
		`<node name="login" `, `address="10.8.0.1" mac="aa:bb:cc:00:00:01" address6="fd00:8::1"`,
		`<interface name="eno1" network="net-admin" address="10.8.1.1" mac="02:00:00:00:08:01"/>`,
		`<interface name="ib0" network="net3" address="10.7.0.1" type="infiniband"/>`,
		`<interface name="eth9" network="net-admin" address="10.8.4.11" mac="02:00:00:00:09:01"/>`,
		`<group name="nodes" nodes="gpu[1,3,5],n[01-04]"/>`, `<group name="gpu" nodes="gpu[1,3,5]"/>`,
	}, []string{
		"inventory.ini:2: the host head is not carried over: it is this machine",
		"inventory.ini:9: ansible_host=10.9.0.{{ number }} of stor-a is not carried over: the template is more",
		"site.yml:18: ansible_host=10.8.2.{{ inventory_hostname | regex_replace('big', '') }} of big2 is",
		"site.yml:22: the network bad is not carried over: it is not a subnet",
		"the node stor-a is not carried over: no address of it is known",
		"no hardware address is in the input for n04: add them to an <inventory>",
	})
	if strings.Contains(string(r.XML), "unknown") {
		t.Error("variables alone have made a host")
	}
	if !strings.Contains(string(r.Inventory), "n03,eth0,02:00:00:00:01:03") {
		t.Errorf("the inventory has not what ethers has:\n%s", r.Inventory)
	}
}

func TestAnApostropheInAVariableOfAGroupIsNoQuote(t *testing.T) {
	const text = "[a]\nn[1:2] prefix=24\n[a:vars]\nmotd=it's here\nprefix=16\n[b]\nn1 ip=10.0.0.1\nn2 ip=10.0.0.2\n"
	r, err := formatNamed(t, "ansible").Describe([]File{{"f", []byte(text)}}, Options{Server: describe.Server{
		Name: "head", Address: netip.MustParseAddr("10.0.0.9"),
	}})
	if err != nil || !strings.Contains(string(r.XML), `subnet="10.0.0.0/24"`) {
		t.Errorf("%v\n%+v", err, r)
	}
}

func TestRangesOfHosts(t *testing.T) {
	for pattern, want := range map[string]string{
		"n[01:03]":                          "n01 n02 n03",
		"n[1:7:3].x:22":                     "n1.x n4.x n7.x",
		"r[a:b]n[1:2]":                      "ran1 ran2 rbn1 rbn2",
		"n[098:101]":                        "n098 n099 n100 n101",
		"10.0.0.1":                          "10.0.0.1",
		"n[5:1]":                            "the range [5:1] is empty or too large",
		"n[0:999999]":                       "the range [0:999999] is empty or too large",
		"n[1:999][1:999]":                   "the range [1:999] is empty or too large",
		"n[1:9]" + strings.Repeat("x", 999): `"n[1:9]xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is longer than 255 bytes`,
		"n[1-3]":                            `"n[1-3]" has a range that is not such as [01:64]`,
	} {
		names, err := expandHosts(pattern)
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", pattern, d)
		}
	}
}

// TestAliasesOfAnInventoryAreBounded reads an inventory of a few lines that stands for very many groups.
func TestAliasesOfAnInventoryAreBounded(t *testing.T) {
	text := "a0: &a0 {hosts: {h: }}\n"
	for i := 1; i < 30; i++ {
		n := string(rune('a' + i%26))
		text += strings.ReplaceAll(strings.ReplaceAll("N: &N {children: {x: *P, y: *P}}\n", "N", n+"1"), "P",
			map[bool]string{true: "a0", false: string(rune('a'+(i-1)%26)) + "1"}[i == 1])
	}
	_, err := formatNamed(t, "ansible").Describe([]File{{"f", []byte(text)}}, Options{})
	if err == nil || !strings.Contains(err.Error(), "there is too much in it") {
		t.Error(err)
	}
}

func FuzzAnsible(f *testing.F) {
	fuzz(f, "ansible", seed(f, "ansible", "inventory.ini"), seed(f, "ansible", "site.yml"),
		"[a]\nn[1:3] ip=10.0.0.{{ x }} x={{ x }}\n[b:children]\na\nb\n[b:vars]\nmac=02:0:0:0:0:1\n")
}
