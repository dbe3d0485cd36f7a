package boot

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
)

func TestTheClassesOfANodeAreThoseOfItsProcessor(t *testing.T) {
	tests := map[string][]string{
		"n01": {
			"iPXE [] ", "PXE, BIOS [0] PXEClient", "UEFI HTTP Boot, BIOS [0] HTTPClient",
			"PXE, UEFI, 32 bits [6 15] PXEClient", "UEFI HTTP Boot, UEFI, 32 bits [6 15] HTTPClient",
			"PXE, UEFI x86_64 [7 9 16 17] PXEClient", "UEFI HTTP Boot, UEFI x86_64 [7 9 16 17] HTTPClient",
			"U-Boot without architecture [] U-Boot",
		},
		"n03": {
			"iPXE [] ", "pxelinux [12 13 14] ", "U-Boot without architecture [] U-Boot",
			"firmware that says nothing of itself [] ",
		},
	}
	c := newPolicy(t, "is1").Cluster()
	for name, want := range tests {
		n, _ := c.Node(cluster.NodeName(name))
		var got []string
		for _, x := range ClientClasses(n) {
			got = append(got, fmt.Sprint(x.Name, " ", x.Archs, " ", x.Vendor))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

// On a network with a proxy, the classes are for the server that gives the addresses.
func TestClassesAreNotThoseOfAProxy(t *testing.T) {
	c := newPolicy(t, "is1").Cluster()
	n := c.Nodes[0]
	want := ClientClasses(n)
	n.Boot().Network.Proxy = true
	if d := cmp.Diff(want, ClientClasses(n), cmpAddrs); d != "" {
		t.Error(d)
	}
	if !n.Boot().Network.Proxy {
		t.Error("the description is changed")
	}
}
