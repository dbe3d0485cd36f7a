package cluster

import (
	"strings"
	"testing"
)

const quotaDescription = `<cluster name="q">
  <network name="boot" subnet="10.77.0.0/24"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <image name="compute" arch="amd64" master="dir:/srv/m"><quota bytes="1G"/><saved days="7"/></image>
  <nodes name="n{i}" count="3" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.{10+i}"/>
  </nodes>
  <node name="own" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.20"/>
    <quota files="10"/>
  </node>
  <group name="big" nodes="n2 own"><quota bytes="2T" files="7"/></group>
</cluster>`

func TestNodeQuotaOverridesGroupQuotaOverridesImageQuota(t *testing.T) {
	c, err := Parse(Source{Name: "q.xml", XML: []byte(quotaDescription)})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[NodeName]Quota{
		"n1": {Bytes: 1 << 30}, "n2": {Bytes: 2 << 40, Files: 7}, "own": {Files: 10},
	} {
		n, _ := c.Node(name)
		if got := n.Quota(n.Image); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if got := c.Images[0].SavedFor.Hours(); got != 7*24 {
		t.Errorf("kept for %v hours", got)
	}
}

func TestWrongQuotasAreRefused(t *testing.T) {
	for _, bad := range []string{
		`bytes="1X"`, `bytes="0"`, `bytes="999999999999999T"`, `files="many"`, `bytes="9000T"`,
	} {
		text := strings.Replace(quotaDescription, `bytes="1G"`, bad, 1)
		if _, err := Parse(Source{Name: "q.xml", XML: []byte(text)}); err == nil {
			t.Errorf("<quota %s> was accepted", bad)
		}
	}
}
