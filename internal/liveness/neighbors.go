package liveness

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
)

// neighbor is what the kernel's table of neighbors has about an address: whether a machine answers ARP, or neighbor
// solicitations of IPv6.
type neighbor uint8

const (
	neighborUnknown neighbor = iota // not in the table, such as one behind a router, or not known now
	neighborAnswers
	neighborSilent
)

// States of a neighbor, and the attribute with its address (linux/neighbour.h).
const (
	nudIncomplete, nudReachable, nudStale, nudDelay, nudFailed = 0x01, 0x02, 0x04, 0x08, 0x20
	ndaDst                                                     = 1
	sizeofNdmsg                                                = 12
	sizeofRtattr                                               = 4
)

// neighbors reads the kernel's table of neighbors.
func neighbors() (map[netip.Addr]neighbor, error) {
	b, err := syscall.NetlinkRIB(syscall.RTM_GETNEIGH, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("read neighbors: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, fmt.Errorf("read neighbors: %w", err)
	}
	table := map[netip.Addr]neighbor{}
	for i := range messages {
		if messages[i].Header.Type != syscall.RTM_NEWNEIGH {
			continue
		}
		if addr, n, ok := parseNeighbor(messages[i].Data); ok && table[addr] != neighborAnswers {
			table[addr] = n // an address may be in the table of several interfaces
		}
	}
	return table, nil
}

// parseNeighbor reads a struct ndmsg and its attributes. ok is false when it has no address.
func parseNeighbor(b []byte) (addr netip.Addr, n neighbor, ok bool) {
	if len(b) < sizeofNdmsg {
		return addr, n, false
	}
	switch state := binary.NativeEndian.Uint16(b[8:]); {
	case state&(nudReachable|nudStale|nudDelay) != 0:
		n = neighborAnswers
	case state&(nudIncomplete|nudFailed) != 0:
		n = neighborSilent
	}
	for b = b[sizeofNdmsg:]; len(b) >= sizeofRtattr; {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < sizeofRtattr || size > len(b) {
			return addr, n, false
		}
		if kind == ndaDst {
			addr, ok = netip.AddrFromSlice(b[sizeofRtattr:size])
			return addr, n, ok
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return addr, n, false
}
