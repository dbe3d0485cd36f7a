package boot

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// newPolicy returns the policy of a server of testdata/cluster.xml on which some loaders are installed.
func newPolicy(t testing.TB, server cluster.ServerName) *Policy {
	t.Helper()
	c := testkit.Value(cluster.Load("testdata/cluster.xml"))(t)
	return &Policy{
		Server: server, Cluster: func() *cluster.Cluster { return c },
		HasLoader: func(name string) bool {
			return slices.Contains([]string{"undionly.kpxe", "snponly.efi", "ipxe.efi"}, name)
		},
		Closed: func() error { return nil },
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(last byte) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, last} }
