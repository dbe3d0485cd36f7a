package export

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// examples are descriptions in examples/, with an address of one of their nodes.
func examples() map[string]string {
	return map[string]string{
		"small.xml":       "10.77.0.14 n04.small.example n04\n",
		"marenostrum.xml": "10.128.183.12 s31c3b12.mn.example s31c3b12\n",
		"racks.xml":       "10.20.2.120 r2n20.racks.example r2n20\n",
		"mixed.xml":       "10.40.0.122 a22.mixed.example a22\n",
		"gpu.xml":         "2001:db8:2::12 g08-bond0.gpu.example g08-bond0\n",
	}
}

func TestProgramsReadTheExamples(t *testing.T) {
	for name, address := range examples() {
		t.Run(name, func(t *testing.T) {
			c := testkit.Value(cluster.Load(filepath.Join("../../../examples", name)))(t)
			if len(c.Warnings()) != 0 {
				t.Errorf("warnings: %v", c.Warnings())
			}
			hosts := testkit.Value(os.ReadFile(filepath.Join(exported(t, c, "hosts"), "hosts")))(t)
			if !strings.Contains(string(hosts), address) {
				t.Errorf("hosts has no %q", address)
			}
			program(t, exported(t, c, "bind"), "named-checkconf", "-z", "named.conf.dim")
			program(t, exported(t, c, "genders"), "nodeattr", "-f", "genders", "-k")
			program(t, exported(t, c, "ssh-config"), "ssh", "-F", "dim.conf", "-G", string(c.Nodes[0].Name))
			targets := testkit.Value(os.ReadFile(filepath.Join(exported(t, c, "prometheus"), "dim.json")))(t)
			if list := []any{}; json.Unmarshal(targets, &list) != nil || len(list) != len(c.Nodes)+len(c.Servers) {
				t.Errorf("%d targets of %d nodes and %d servers", len(list), len(c.Nodes), len(c.Servers))
			}
		})
	}
}
