package sockets

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// PathMTUs knows the sizes of the largest packets that the kernel sends to addresses in one piece. It keeps an answer
// of the kernel for pathMTULife: each question takes a socket, and any machine can cause one. The zero PathMTUs is
// ready for use, by any number of goroutines.
type PathMTUs struct {
	mu    sync.Mutex
	known map[netip.Addr]pathMTU
}

// pathMTU is an answer of the kernel.
type pathMTU struct {
	size  int
	until time.Time
}

const (
	pathMTULife = 10 * time.Second
	maxPathMTUs = 16 << 10 // about 1 MB
)

// To returns the size for an address in bytes; 0: not known.
func (p *PathMTUs) To(to netip.Addr, now time.Time) int {
	p.mu.Lock()
	known := p.known[to]
	p.mu.Unlock()
	if now.Before(known.until) {
		return known.size
	}
	known = pathMTU{askPathMTU(to), now.Add(pathMTULife)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPathMTUs {
		p.known = make(map[netip.Addr]pathMTU)
	}
	p.known[to] = known
	return known.size
}

func askPathMTU(to netip.Addr) int {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9))) // sends nothing
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	size := 0
	err = withSocket(raw, func(fd int) (err error) {
		size, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		return err
	})
	if err != nil {
		return 0
	}
	return size
}
