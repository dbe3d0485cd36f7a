// Package caller answers who is at the other end of a connection: a node, this machine, another server, a host of
// an admin network, or nobody. Every service that treats callers differently asks it and applies its own rights to
// the answer.
//
// # Proof
//
// A Peer is what a connection proves, today two addresses and their ports. TCP proves the addresses. A port below 1024
// proves that the superuser of the calling machine opened the connection; on a network that the description marks as
// insecure every port is taken for one.
//
// # More than one answer
//
// A node may have an address in an admin network, and in a cluster on one machine nodes and servers have loopback
// addresses. A Caller therefore holds facts that may be true together, and the service decides which of them counts.
//
// An answer holds for one cluster description. Who keeps answers drops them when the description changes.
//
// # What it must not know
//
// What a caller may do, which server serves a node, and any protocol but HTTP's way to give the two addresses.
package caller

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"dim/internal/cluster"
)

// firstOrdinaryPort is the first port that needs no privilege (PROT_SOCK in the kernel's include/net/sock.h).
const firstOrdinaryPort = 1024

// Peer is what a connection proves about its other end.
type Peer struct {
	Remote netip.AddrPort
	Local  netip.AddrPort // our end; the zero value if it is not known
}

// OfRequest returns the peer that sent an HTTP request. The error says that the request has no address.
func OfRequest(r *http.Request) (Peer, error) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return Peer{}, fmt.Errorf("%q is no address", r.RemoteAddr)
	}
	return Peer{Remote: remote, Local: localOf(r.Context())}, nil
}

func localOf(ctx context.Context) netip.AddrPort {
	a, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	local, _ := netip.ParseAddrPort(fmt.Sprint(a))
	return local
}

// Caller is who is at the other end of a connection. The zero Caller is nobody.
type Caller struct {
	Peer Peer // with IPv4 addresses in their short form

	Node      *cluster.Node      // the node that has the address; nil: none
	Interface *cluster.Interface // the card of Node that has the address
	Local     bool               // it is this machine: a loopback address, or the address of our own end
	Server    *cluster.Server    // the server that has the address; nil: none, or it is this machine
	Admin     bool               // its address is in an admin network

	// Superuser is whether the call counts as one of the superuser of the calling machine.
	Superuser bool
	// Root is whether the call comes from the superuser of this machine: from loopback and a port below 1024.
	Root bool
}

// Resolve returns who p is by the description c. If it is nobody, the error says so, and of the Caller only Peer
// and Superuser have a meaning. Resolve neither blocks nor does I/O.
func Resolve(c *cluster.Cluster, p Peer) (Caller, error) {
	remote, local := unmap(p.Remote), unmap(p.Local)
	from := remote.Addr()
	who := Caller{Peer: Peer{Remote: remote, Local: local}}
	if !from.IsValid() {
		return who, fmt.Errorf("the caller has no address")
	}
	privileged := remote.Port() < firstOrdinaryPort
	who.Superuser = privileged
	who.Root = privileged && from.IsLoopback()
	who.Local = from.IsLoopback() || from == local.Addr()
	for _, n := range c.Networks {
		if n.Subnet.Contains(from) {
			who.Admin = who.Admin || n.Admin
			who.Superuser = who.Superuser || n.Insecure
		}
	}
	if n, card, ok := c.NodeByAddress(from); ok {
		who.Node, who.Interface = n, card
	}
	if !who.Local {
		who.Server = serverAt(c, from)
	}
	if who.Node == nil && who.Server == nil && !who.Local && !who.Admin {
		return who, fmt.Errorf("%s belongs to no node, server or admin network of the cluster", from)
	}
	return who, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func serverAt(c *cluster.Cluster, a netip.Addr) *cluster.Server {
	for _, s := range c.Servers {
		for _, card := range s.Interfaces {
			if card.Address == a {
				return s
			}
		}
	}
	return nil
}
