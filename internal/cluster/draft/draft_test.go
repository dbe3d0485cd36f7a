package draft

import (
	"net/netip"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

func facts(nodes, network, first string) Facts {
	return Facts{
		Name: "small", Server: "head", Network: netip.MustParsePrefix(network),
		Address: netip.MustParseAddr("10.0.0.1"),
		Nodes:   nodes, First: netip.MustParseAddr(first), Image: "compute", Arch: "amd64",
		Master: "dir:/srv/dim/masters/a&b",
	}
}

func TestADraftIsAValidDescription(t *testing.T) {
	for _, tt := range []struct {
		nodes, network, first, macs string
		last, address, mac          string
	}{
		{"n[01-16]", "10.0.0.0/24", "10.0.0.11", "", "n16", "10.0.0.26", ""},
		{"n[1-3]", "10.0.0.0/24", "10.0.0.1", "", "", "", ""}, // the server's
		{"n[5-7]", "10.0.0.0/24", "10.0.0.2", "", "n7", "10.0.0.4", ""},
		{"node[0001-2000]", "10.0.0.0/16", "10.0.3.200", "", "node2000", "10.0.11.151", ""},
		{"n[1-2]", "10.0.0.0/24", "10.0.0.11", "# cards\n52:54:00:00:00:01\r\n\n5254.0000.0002\n", "n2", "10.0.0.12",
			"52:54:00:00:00:02"},
		{"n[1-2]", "10.0.0.0/24", "10.0.0.11", "n2;52-54-00-00-00-01", "n2", "10.0.0.12", "52:54:00:00:00:01"},
	} {
		f := facts(tt.nodes, tt.network, tt.first)
		if tt.macs != "" {
			f.MACs = []byte(tt.macs)
		}
		d := testkit.Value(New(f))(t)
		c, err := cluster.Parse(cluster.Source{
			Name: "cluster.xml", XML: d.XML, Open: func(string) ([]byte, error) { return d.Inventory, nil },
		})
		if tt.last == "" {
			if err == nil {
				t.Errorf("%s: an address of two machines is accepted", tt.nodes)
			}
			continue
		}
		testkit.Must(t, err)
		n := c.Nodes[len(c.Nodes)-1]
		if string(n.Name) != tt.last || n.Address().String() != tt.address || n.Boot().MAC.String() != tt.mac {
			t.Errorf("%s: the last one is %s %s %s", tt.nodes, n.Name, n.Address(), n.Boot().MAC)
		}
	}
}

func TestWhatNoDraftCanBeMadeFromIsToldWithTheReason(t *testing.T) {
	for _, tt := range []struct{ nodes, network, first, macs, want string }{
		{"n[01-16],m1", "10.0.0.0/24", "10.0.0.11", "", "not one range"},
		{"n[9-1]", "10.0.0.0/24", "10.0.0.11", "", "ends before it begins"},
		{"n[1-300]", "10.0.0.0/24", "10.0.0.11", "", "300 nodes from 10.0.0.11 on do not fit into 10.0.0.0/24"},
		{"n[1-9]", "10.0.0.0/24", "10.0.1.11", "", "do not fit"},
		{"n[1-1]", "10.0.0.0/24", "10.0.0.11", "52:54:00:00:00:01\n52:54:00:00:00:02\n", "line 2 of the hardware"},
		{"n[1-2]", "fd00::/64", "fd00::1", "", "must be IPv4"},
	} {
		f := facts(tt.nodes, tt.network, tt.first)
		if tt.macs != "" {
			f.MACs = []byte(tt.macs)
		}
		if _, err := New(f); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s in %s: %v", tt.nodes, tt.network, err)
		}
	}
}

func FuzzNew(f *testing.F) {
	f.Add("n[01-16]", []byte("52:54:00:00:00:01\n"))
	f.Fuzz(func(_ *testing.T, nodes string, macs []byte) {
		x := facts(nodes, "10.0.0.0/16", "10.0.0.11")
		x.MACs = macs
		_, _ = New(x)
	})
}
