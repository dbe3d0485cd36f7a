package describe

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dim/internal/testkit"
)

// site makes a site of "name address mac" lines.
func site(t testing.TB, lines string) *Site {
	t.Helper()
	s := &Site{Networks: []Network{{Name: "boot", Subnet: netip.MustParsePrefix("10.0.0.0/8")}}}
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		card := Card{Address: netip.MustParseAddr(f[1])}
		if len(f) > 2 {
			card.MAC = testkit.Value(net.ParseMAC(f[2]))(t)
		}
		s.Nodes = append(s.Nodes, Node{Name: f[0], Cards: []Card{card}})
	}
	return s
}

func TestRulesAreFound(t *testing.T) {
	var blades, racks, backwards strings.Builder
	for r := range 3 {
		for c := range 2 {
			for b := range 14 {
				fmt.Fprintf(&blades, "s%02dc%db%02d 10.128.%d.%d 02:00:00:%02x:%02x:%02x\n",
					r+1, c+1, b+1, r*2+c+1, b+1, r, c, b)
			}
		}
	}
	for i := range 200 {
		fmt.Fprintf(&racks, "n%d 10.20.%d.%d\n", i+1, 101+i/84, i%84+1)
		fmt.Fprintf(&backwards, "n%03d 10.20.0.%d 02:00:00:00:00:%02x\n", i, 220-i, i)
	}
	for name, tt := range map[string]struct {
		lines string
		want  []string
	}{
		"three numbers": {blades.String(), []string{
			`name="s{rack:02}c{chassis}b{blade:02}" each="rack chassis blade"`,
			`address="10.128.{rack*2+chassis-2}.{blade}" mac="02:00:00:{rack-1:02x}:{chassis-1:02x}:{blade-1:02x}"`,
		}},
		"one number counts racks": {racks.String(), []string{
			`<nodes name="n{node}" each="node"`, `address="10.20.{101+((node-1)/84)}.{1+((node-1)%84)}"`,
		}},
		"addresses run backwards": {backwards.String(), []string{`name="n{node:03}"`, `address="10.20.0.{220-node}"`}},
		"an exception": {"n1 10.0.0.1\nn2 10.0.0.2\nn3 10.0.9.9\nn4 10.0.0.4\nn5 10.0.0.5\nn6 10.0.0.6\n", []string{
			`<nodes name="n{node}" each="node"`, `<nodes name="n{i}" count="2"`, `<node name="n3"`,
		}},
		"over 255": {"a1 10.0.0.254\na2 10.0.0.255\na3 10.0.1.0\na4 10.0.1.1\n", []string{
			`address="10.0.{(167772413+node)/256%256}.{(167772413+node)%256}"`,
		}},
	} {
		r, err := Describe(site(t, tt.lines), "macs.csv")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(string(r.XML), want) {
				t.Errorf("%s: no %s in\n%s", name, want, r.XML)
			}
		}
	}
}

func TestIPv6AddressesFollowRules(t *testing.T) {
	for name, tt := range map[string]struct{ format, want string }{
		"decimal digits":      {"fd00::7:%d", `address6="fd00::7:{node}"`},
		"hexadecimal numbers": {"fd00:0:0:7::%x", `address6="fd00:0:0:7::{node:x}"`},
		"letters before":      {"fd00::a:%x", `address6="fd00::a:{node:x}"`},
	} {
		s := &Site{Networks: []Network{{Name: "boot", Subnet: netip.MustParsePrefix("10.0.0.0/8")}}}
		for i := range 30 {
			s.Nodes = append(s.Nodes, Node{Name: fmt.Sprintf("n%d", i+1), Cards: []Card{{
				Address:  netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
				Address6: netip.MustParseAddr(fmt.Sprintf(tt.format, i+1)),
			}}})
		}
		r := testkit.Value(Describe(s, "macs.csv"))(t)
		if !strings.Contains(string(r.XML), tt.want) || r.Rules != 1 || r.Ruled != 30 {
			t.Errorf("%s: no %s in\n%s", name, tt.want, r.XML)
		}
	}
}

func TestHardwareAddressesWithoutARuleAreListed(t *testing.T) {
	const lines = "n1 10.0.0.1 02:00:00:00:00:07\nn2 10.0.0.2 02:00:00:00:77:01\nn3 10.0.0.3 02:00:00:01:00:02\n"
	r := testkit.Value(Describe(site(t, lines), "macs.csv"))(t)
	if !strings.Contains(string(r.Inventory), "n2,eth0,02:00:00:00:77:01") || r.Rules != 1 {
		t.Errorf("%s\n%s", r.XML, r.Inventory)
	}
	r = testkit.Value(Describe(site(t, lines), ""))(t)
	if r.Inventory != nil || strings.Count(string(r.XML), "<node ") != 3 {
		t.Errorf("without an inventory:\n%s", r.XML)
	}
}

// furtherCard draws a card that is possibly InfiniBand or a VLAN, with addresses of both families, of one or of none.
func furtherCard(t *rapid.T, i int) Card {
	c := Card{
		Name:       rapid.SampledFrom([]string{"ib0", "eth1", "ib0.5"}).Draw(t, "card"),
		MAC:        make(net.HardwareAddr, rapid.SampledFrom([]int{0, 6, 7, 8, 20}).Draw(t, "length")),
		InfiniBand: rapid.Bool().Draw(t, "InfiniBand"),
		VLAN:       rapid.SampledFrom([]int{0, 0, 9}).Draw(t, "VLAN"),
		On:         "eth0",
	}
	if len(c.MAC) > 0 {
		c.MAC[len(c.MAC)-1] = byte(i)
	}
	if rapid.Bool().Draw(t, "IPv4") {
		c.Address = netip.AddrFrom4([4]byte{11, 0, 0, byte(i + 1)})
	}
	if rapid.Bool().Draw(t, "IPv6") {
		c.Address6 = rapid.SampledFrom([]netip.Addr{
			netip.MustParseAddr("fd00:1::7"), netip.MustParseAddr("fd00::"), netip.MustParseAddr("fe80::1%eth0"),
			netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}), netip.MustParseAddr("::ffff:1.2.3.4"),
		}).Draw(t, "further address")
	}
	return c
}

// TestEverySiteIsDescribed relies on verify, which compares the parsed description with the site.
func TestEverySiteIsDescribed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Site{Name: "x", Networks: []Network{{Name: "boot", Subnet: netip.MustParsePrefix("10.0.0.0/8")}}}
		shapes := []string{"n%d", "n%02d", "r%[2]dn%[1]d", "s%02[2]dc%[3]db%02[1]d", "%d", "x%d-%[2]d-%[3]d-%[1]d", "h"}
		for range rapid.IntRange(1, 3).Draw(t, "families") {
			shape := rapid.SampledFrom(shapes).Draw(t, "shape")
			from, step := rapid.IntRange(0, 98).Draw(t, "from"), rapid.IntRange(-1, 300).Draw(t, "step")
			period := rapid.IntRange(1, 9).Draw(t, "period")
			base := rapid.IntRange(1000, 1<<23).Draw(t, "base")
			for i := range rapid.IntRange(1, 40).Draw(t, "nodes") {
				name := strings.Split(fmt.Sprintf(shape, from+i%period, i/period%3+1, i/period/3), "%!")[0]
				at := base + i*step
				if rapid.IntRange(0, 20).Draw(t, "odd") == 0 {
					at = rapid.IntRange(1, 1<<23).Draw(t, "address")
				}
				card := Card{Address: netip.AddrFrom4([4]byte{10, byte(at >> 16), byte(at >> 8), byte(at)})}
				if rapid.Bool().Draw(t, "known") {
					card.MAC = net.HardwareAddr{2, byte(len(s.Nodes)), 0, 0, byte(at), byte(i)}
				}
				if rapid.IntRange(0, 2).Draw(t, "v6") > 0 {
					a6 := netip.MustParseAddr("fd00::1:0").As16()
					at6 := rapid.SampledFrom([]int{at, i % 10, i + 1}).Draw(t, "last")
					a6[14], a6[15] = byte(at6>>8), byte(at6)
					card.Address6 = netip.AddrFrom16(a6)
				}
				cards := []Card{card, furtherCard(t, i)}
				s.Nodes = append(s.Nodes, Node{Name: name, Groups: []string{shape}, Cards: cards})
			}
		}
		inventory := rapid.SampledFrom([]string{"", "macs.csv"}).Draw(t, "inventory")
		given := len(s.Nodes)
		r, err := Describe(s, inventory)
		if err != nil {
			t.Fatal(err)
		}
		if lost := given - r.Nodes; lost > len(r.Notes) {
			t.Fatalf("%d nodes are missing, with %d notes", lost, len(r.Notes))
		}
	})
}
