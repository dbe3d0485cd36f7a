package sockets

import (
	"net/netip"
	"testing"
	"time"
)

// An answer of the kernel is kept for some seconds, and few are kept.
func TestTheSizeOfPacketsIsAskedOfTheKernelOnce(t *testing.T) {
	var p PathMTUs
	loopback, now := netip.MustParseAddr("127.0.0.1"), time.Now()
	size := p.To(loopback, now)
	if size < 1280 { // the least of IPv6
		t.Errorf("the kernel sends %d bytes to loopback", size)
	}
	p.known[loopback] = pathMTU{42, p.known[loopback].until}
	if got := p.To(loopback, now.Add(pathMTULife-1)); got != 42 {
		t.Errorf("asked again: %d", got)
	}
	if got := p.To(loopback, now.Add(pathMTULife)); got != size {
		t.Errorf("the answer is still %d", got)
	}
	for a := netip.MustParseAddr("127.1.0.0"); len(p.known) < maxPathMTUs; a = a.Next() {
		p.known[a] = pathMTU{1, now.Add(time.Hour)}
	}
	if p.To(netip.MustParseAddr("127.9.0.1"), now); len(p.known) != 1 {
		t.Errorf("%d answers are kept", len(p.known))
	}
}
