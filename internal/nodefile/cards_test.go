package nodefile

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/testkit"
)

// manyCards is a node with all kinds of interfaces.
const manyCards = `<cluster name="lab">
<network name="boot" subnet="10.77.0.0/24" gateway="10.77.0.1" subnet6="2001:db8:77::/64" dns="10.77.0.1"/>
<network name="fast" subnet="10.78.0.0/16" mtu="9000" subnet6="2001:db8:78::/64"/>
<network name="storage" subnet="10.79.0.0/16"/>
<network name="ib" subnet="10.80.0.0/16" mtu="65520"/>
<server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
<image name="plain" arch="amd64" master="dir:/m"/>
<node name="n1" image="plain" servers="head" dns="2001:db8::53 10.77.0.5">
<interface name="eth0" network="boot" address="10.77.0.11" mac="52:54:00:4d:00:01" address6="2001:db8:77::11"/>
<interface name="stor" network="storage" vlan="902" on="eth0" address="10.79.0.11"/>
<interface name="bond0.7" network="fast" vlan="7" on="bond0" mtu="1500"
  address="10.78.0.11" gateway="10.78.255.254" address6="2001:db8:78::11" gateway6="2001:db8:78::fe"/>
<interface name="bond0" bond="802.3ad" on="eth1 eth2" mtu="9000"/>
<interface name="eth1" mac="52:54:00:4d:01:01"/>
<interface name="eth2"/>
<interface name="eth3" network="boot" address="10.77.0.111" mac="52:54:00:4d:03:01"/>
<interface name="ib0" network="ib" address="10.80.0.11" mac="00:02:c9:03:00:4d:00:01"/>
</node>
</cluster>`

func TestAllKindsOfCards(t *testing.T) {
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "lab.xml", XML: []byte(manyCards)}))(t)
	about := regexp.MustCompile(`etwork|udev|hosts$|resolv`)
	for _, name := range []string{"debian", "rocky"} {
		base := testkit.Value(Prepare(NewMachines(c), c.Images[0], masters(t)[name], image.Time{}))(t)
		s := testkit.Value(base.Node(c.Nodes[0]))(t)
		var got strings.Builder
		for _, f := range s.Files() {
			if about.MatchString(f.Path) {
				fmt.Fprintf(&got, "=== /%s %04o\n%s", f.Path, f.Mode, testkit.Value(s.Content(f.Path))(t))
			}
		}
		path := filepath.Join("testdata", name+"-cards.golden")
		if *update {
			testkit.Must(t, os.WriteFile(path, []byte(got.String()), 0o644))
		}
		want := testkit.Value(os.ReadFile(path))(t)
		if d := cmp.Diff(string(want), got.String()); d != "" {
			t.Errorf("%s differs; run the test with -update to accept it\n%s", path, d)
		}
	}
}
