package loadtest

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"dim/internal/boot"
	"dim/internal/cluster"
)

// firstOrdinaryPort is the first port that needs no privilege.
const firstOrdinaryPort = 1024

// Admits reports whether a UDP packet comes from the maker of a load test: the superuser of this machine. It neither
// blocks nor does I/O.
func (h *Host) Admits(client netip.AddrPort) bool {
	return h.active.Load() != nil && client.Addr().Unmap().IsLoopback() && client.Port() < firstOrdinaryPort
}

// addresses has the address that simulated node 0 is given: nobody uses it (RFC 2544, a network for benchmarks).
const addresses = 198<<24 | 18<<16

// DHCP answers a simulated node, as policy would answer a real one that boots the same image. ok is false for every
// other client. It neither blocks nor does I/O besides that of policy.
func (h *Host) DHCP(policy *boot.Policy, c boot.Client) (l boot.Lease, ok bool, err error) {
	s := h.active.Load()
	if s == nil || !s.dhcp || !c.Relay.IsLoopback() || len(c.MAC) != 6 || !slices.Equal(c.MAC[:4], s.mac[:4]) {
		return l, false, nil
	}
	number := binary.BigEndian.Uint16(c.MAC[4:])
	if _, _, declared := policy.Cluster().NodeByMAC(c.MAC); declared || int(number) >= s.Nodes {
		return l, false, nil
	}
	n, ok := policy.Cluster().Node(cluster.NodeName(s.As))
	if !ok {
		return l, true, boot.ErrUnknown // it was declared when the load test began
	}
	c.MAC, c.Relay, c.Local = n.Boot().MAC, netip.Addr{}, nil
	a, err := policy.DHCP(c)
	var addr [4]byte
	binary.BigEndian.PutUint32(addr[:], addresses+uint32(number))
	a.Lease.Address, a.Lease.HostName = netip.AddrFrom4(addr), ""
	return a.Lease, true, err
}
