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
		"n1":  {Bytes: 1 << 30, Of: "image compute"},
		"n2":  {Bytes: 2 << 40, Files: 7, Of: "group big"},
		"own": {Files: 10, Of: "the node"},
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

func TestClusterQuotaHoldsWhereThereIsNoOther(t *testing.T) {
	const ofCluster = `<cluster name="q"><quota bytes="3G" files="9"/>`
	without := strings.Replace(quotaDescription, `<quota bytes="1G"/>`, "", 1)
	for _, test := range []struct {
		name, text string
		n1, own    Quota
	}{
		{
			name: "it is the only one", text: strings.Replace(without, `<cluster name="q">`, ofCluster, 1),
			n1:  Quota{Bytes: 3 << 30, Files: 9, Of: "the cluster"},
			own: Quota{Files: 10, Of: "the node"},
		},
		{
			name: "the image has one", text: strings.Replace(quotaDescription, `<cluster name="q">`, ofCluster, 1),
			n1:  Quota{Bytes: 1 << 30, Of: "image compute"},
			own: Quota{Files: 10, Of: "the node"},
		},
		{name: "there is none", text: without, own: Quota{Files: 10, Of: "the node"}},
	} {
		c, err := Parse(Source{Name: "q.xml", XML: []byte(test.text)})
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		for name, want := range map[NodeName]Quota{"n1": test.n1, "own": test.own} {
			n, _ := c.Node(name)
			if got := n.Quota(n.Image); got != want {
				t.Errorf("%s: %s has %+v, want %+v", test.name, name, got, want)
			}
		}
		for _, w := range c.Warnings() {
			if strings.Contains(w.Message, "quota") {
				t.Errorf("%s: warning %v", test.name, w)
			}
		}
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

func TestAServerReceivesAtItsRate(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, ` pull-rate="2M"`: 2 << 20} {
		c, err := Parse(Source{Name: "q.xml", XML: []byte(strings.Replace(quotaDescription, ` roles="head image"`,
			` roles="head image"`+text, 1))})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Servers[0].PullRate; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
