package cluster

import (
	"fmt"
	"strings"
	"testing"
)

// TestHostileSizesAreRefusedOrBearable parses descriptions that try to use as much time and memory as they can. It does
// not measure time: without a bound the test itself runs out of time or memory.
func TestHostileSizesAreRefusedOrBearable(t *testing.T) {
	machines := `<network name="b" subnet="10.0.0.0/8"/>` +
		`<server name="head" roles="head image"><interface network="b" address="10.255.0.1"/></server>` +
		`<image name="i" arch="amd64" master="dir:/m"/>`
	nodes := func(name, servers, address string) string {
		return fmt.Sprintf(`<nodes name="%s" count="20000" image="i" servers="%s">`+
			`<interface name="e" network="b" address="%s"/></nodes>`, name, servers, address)
	}
	valid := nodes("n{i}", "head", "10.{i/65536}.{i/256%256}.{i%256}")
	many := func(n int, text string) string { return strings.Repeat(text, n) }
	numbered := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	tests := []struct{ name, text string }{
		{"as many nodes as allowed here", machines + valid},
		{"all addresses wrong", machines + nodes("n{i}", "x{i}", `10.0.0.{i}" mac="{i:02x}`)},
		{"all names alike", machines + nodes("n", "head", "10.0.0.{i}")},
		{"many sets of all nodes", machines + valid + numbered(500, `<group name="g%d" nodes="@*"/>`)},
		{"sets of unknown nodes", numbered(2000, `<group name="g%d" nodes="x[1-39999]"/>`)},
		{"sets of nothing", numbered(2000, `<group name="g%d" nodes="x[1-20000]!x[1-20000]"/>`)},
		{"sets that are too large", numbered(2000, `<group name="g%d" nodes="x[1-999999999]"/>`)},
		{"many unknown elements", many(520_000, "<a/>")},
		{"deep", many(100_000, "<a>") + many(100_000, "</a>")},
		{"many attributes", "<node " + many(100_000, `a="" `) + "/>"},
		{"one attribute many times", "<node " + many(100_000, `name="" `) + "/>"},
		{"many kernels", `<image name="i">` + many(50_000, "<kernel/>") + "</image>"},
		{"many rules", `<image name="i">` + many(50_000, `<keep path="/a"/>`) + "</image>"},
		{"many comments", `<image name="i"><file path="/a">` + many(100_000, "a<!---->") + "</file></image>"},
		{"many networks", many(50_000, `<network name="a" subnet="10.0.0.0/8"/>`)},
		{"long name", fmt.Sprintf("<%s/>", many(1_000_000, "a"))},
		{"long expression", fmt.Sprintf(`<node name="{%s}"/>`, many(100_000, "("))},
	}
	for _, tt := range tests {
		_, err := parseLimited(Source{Name: "c.xml", XML: []byte("<cluster name=\"c\">" + tt.text + "</cluster>")},
			limits{nodes: 20_000, cards: 30_000, members: 200_000})
		if err != nil && len(err.Error()) > 1_000_000 {
			t.Errorf("%s: the error has %d bytes", tt.name, len(err.Error()))
		}
	}
}
