package migrate

import (
	"strings"
	"testing"
)

func TestOpenHPC(t *testing.T) {
	expect(t, imported(t, "openhpc", "openhpc"), []string{
		`domain="hpc.example"`,
		`<network name="net1" subnet="172.16.0.0/16" gateway="172.16.0.254" dns="10.1.1.1 10.1.1.2"/>`,
		`<server name="sms" roles="head image">`, `<interface network="net1" address="172.16.0.1"/>`,
		`<image name="rocky8.8" arch="amd64" master="dir:/opt/ohpc/admin/images/rocky8.8">`,
		`<kernel append="acpi_pad.disable=1 quiet"/>`,
		`<interface name="eno1" network="net1" address="172.16.1.{node}"`,
		`<interface name="ib0" network="net2" address="192.168.1.{node}" type="infiniband"/>`,
	}, []string{
		"input.local:9: ntp_server is not carried over: configure it in the master",
		"input.local:10: bmc_username is not carried over: power is not managed here",
		`input.local:26: the hardware address "none" of node c4 is not carried over: it is not one`,
		"input.local:30: c_ipoib[2] is not carried over: it is computed by a command: write its value",
		"recipe.sh:9: c_ipoib, which the shell computes, is not carried over: write a line c_ipoib[0]=…",
	})
}

func TestWarewulf3(t *testing.T) {
	expect(t, imported(t, "warewulf3", "warewulf3"), []string{
		`domain="ww.example"`, `<network name="net1" subnet="10.1.0.0/16" gateway="10.1.255.254" mtu="9000"/>`,
		`<image name="rocky8" arch="amd64" master="dir:/opt/ohpc/admin/images/rocky8.8">`,
		`<kernel append="net.ifnames=0 quiet console=tty0 console=ttyS1,115200"/>`,
		`<interface name="eth0" network="net1" address="10.1.1.10" mac="00:0c:29:00:00:10"/>`,
		`<interface name="ib0" network="net2" address="10.2.1.10" mac="00:02:c9:03:00:4d:00:07" type="infiniband"/>`,
		`<interface name="eth0" network="net1" address="10.1.1.12" mac="00:0c:29:00:00:12"/>`,
		`<interface name="eth0" network="net1" address="10.1.2.1" mac="00:0c:29:00:00:20"/>`,
		`<group name="compute" nodes="n[0000-0001]"/>`,
	}, []string{
		`print.txt:29: the address "10.2.1.x" of node n0001 is not carried over: it is not one`,
		"print.txt:19: ib0.HWPREFIX of n0000 is not carried over",
		"print.txt:33: FILES of n0000 is not carried over, nor of others: write a <file> in <image>",
		"nodes.txt:5: the node very-long-name-o... is not carried over: its name is cut off",
	})
}

func TestVariablesOfTheShell(t *testing.T) {
	for _, tt := range []struct{ text, want, problem string }{
		{`a'b $x'"c $x"d e`, "ab $xc 1d", ""},
		{`${y:-"p q"}${x}`, "p q1", ""},
		{`${x:-p};z`, "1", ""},
		{`${a[3]}\$`, "three$", ""},
		{`$(date)`, "", "it is computed by a command"},
		{`"open`, "", "a quote is not closed"},
		{strings.Repeat("${y:-", 20), "", "more than 16 defaults within defaults"},
		{strings.Repeat("x", maxVariable+1), "", "longer than 4096 bytes"},
	} {
		w := shellWords{lookup: func(name string) string { return map[string]string{"x": "1", "a[3]": "three"}[name] }}
		got, _, err := w.word(tt.text)
		if got != tt.want || !saysOnly(err, tt.problem) {
			t.Errorf("%.40s: %q, %v", tt.text, got, err)
		}
	}
}

func FuzzOpenHPC(f *testing.F) { fuzz(f, "openhpc", seed(f, "openhpc", "input.local")) }

func FuzzWarewulf3(f *testing.F) {
	fuzz(f, "warewulf3", seed(f, "warewulf3", "print.txt"), seed(f, "warewulf3", "nodes.txt"),
		seed(f, "warewulf3", "objects.txt")+seed(f, "warewulf3", "vnfs.txt"))
}

// saysOnly reports whether an error contains a text; with "", whether there is none.
func saysOnly(err error, text string) bool {
	if err == nil || text == "" {
		return err == nil && text == ""
	}
	return strings.Contains(err.Error(), text)
}
