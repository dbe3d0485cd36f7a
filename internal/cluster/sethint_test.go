package cluster

import (
	"errors"
	"strings"
	"testing"
)

func TestSetsOfOtherToolsGetAHint(t *testing.T) {
	c, err := Parse(Source{Name: "cluster.xml", XML: []byte(`<cluster name="small" domain="small.example">
  <network name="boot" subnet="10.77.0.0/24"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <taxonomy><level name="rack" from="1" to="2"/><level name="node" from="1" to="2"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/compute"/>
  <nodes name="n{(rack-1)*2+node:02}" each="rack node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.{10+index}" mac="52:54:00:4d:00:{index:02x}"/>
  </nodes>
  <group name="cell" nodes="n01"/>
</cluster>`)})
	if err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"n01-n04": "write n[01-04]", "n01:n04": "write n[01-04]", "n01+3": "write n[01-04]",
		"n{01..04}": "write n[01-04]", "n[01..04]": "write n[01-04]", "n[01:04]": "write n[01-04]",
		"n{01,03}": "write n[01,03]",
		"all":      "write @* for all nodes", "@all": "write @* for all nodes", "*": "write @* for all nodes",
		"ALL":     "write @* for all nodes",
		"rack=2":  "write rack2 for a position",
		"n01|n02": "write 'n01,n02' for both", "n01;n02": "write 'n01,n02' for both",
		"-n03": "write '@*!n03'", "n[01-04],-n03": "write 'n[01-04]!n03'", "@cell -n03": "",
		"all,-n03": "write '@*!n03' for all others", "all!@cell": "write '@*!@cell' for all others",
		"n01,": "write 'n01' without a separator at its end", "n[01-02];": "write 'n[01-02]' without",
		",n01": "write 'n01' without a separator before it", "n01,,n02": "write 'n01,n02' with one comma",
		"n0[8-12]":    "two meanings: write n0[8-9,10-12]",
		"@cell@rack1": "write '@cell&@rack1'", "n[01-02]@rack1": "write 'n[01-02]&@rack1'",
		"compute@rack1": "write 'compute&@rack1'",
		"@slurm:cell":   "write @cell", "group:cell": "write @cell",
		"~n0.": "regular expressions", "/n0.*": "regular expressions", "n0.*": "regular expressions",
		"n*": "wild cards", "n0?": "wild cards", "(n01,n02)": "parentheses are not supported",
		"/etc/hosts.list": `write "$(cat /etc/hosts.list)"`, "^/tmp/hosts": `write "$(cat /tmp/hosts)"`,
		"n01.small.example": "write n01: names are without the domain",
		"10.77.0.11":        "10.77.0.11 is the address of n02", "10.9.9.9": "nodes are named",
		"52:54:00:4d:00:02": "52:54:00:4d:00:02 is the MAC of n03", "02:00:00:00:00:09": "no node has this MAC",
		"n1": `did you mean "n01"?`, "@cel": `did you mean "cell"?`,
	} {
		_, err := c.Select(set)
		e, ok := errors.AsType[*SelectError](err)
		if !ok {
			t.Errorf("%s: %v", set, err)
			continue
		}
		if text := e.Message + "; " + e.Hint; !strings.Contains(text, want) {
			t.Errorf("%s: got %q, want %q", set, text, want)
		}
	}
	for set, syntax := range map[string]bool{"n99": false, "@nosuch": false, "n[1": true, "n01:n02": true} {
		_, err := c.Select(set)
		if e, ok := errors.AsType[*SelectError](err); !ok || e.Syntax != syntax {
			t.Errorf("%s: %+v", set, err)
		}
	}
}
