package nodeinit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// packetSocket is the packetConn of a card.
type packetSocket struct {
	fd    int
	index int
}

// maxPacket is the size of the largest DHCP reply that is read. The client asks for smaller ones.
const maxPacket = 9000

func (k *kernel) OpenPacketConn(name string) (packetConn, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	index := int(r.Uint32())
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_IP), Ifindex: index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open the card %s: %w", name, err)
	}
	return &packetSocket{fd: fd, index: index}, nil
}

func (s *packetSocket) Send(packet []byte) error {
	return unix.Sendto(s.fd, packet, 0, &unix.SockaddrLinklayer{
		Protocol: bigEndian16(unix.ETH_P_IP), Ifindex: s.index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

func (s *packetSocket) Receive(deadline time.Time) ([]byte, error) {
	buf := make([]byte, maxPacket)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, nil
		}
		ready := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case err == nil:
			return buf[:n], nil
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return nil, err
		}
	}
}

func (s *packetSocket) Close() error { return unix.Close(s.fd) }

// stream is a TCP connection by system calls. Package net, with its resolver and poller, would double the size of the
// program.
type stream struct{ fd int }

// Ports that only the superuser may bind, as in rresvport(3). They prove to the server that no ordinary user of the
// node calls.
const (
	firstReserved = 512
	reservedPorts = 512
)

// dial connects from a reserved port. It tries another port if one is in use, or was a moment ago.
func dial(to netip.AddrPort, deadline time.Time) (s *stream, err error) {
	first := rand.IntN(reservedPorts)
	for i := range reservedPorts {
		s, err = dialFrom(firstReserved+(first+i)%reservedPorts, to, deadline)
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			break
		}
	}
	return s, err
}

// socketAddress returns an address for system calls.
func socketAddress(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: port, Addr: a.As16()}
}

func dialFrom(port int, to netip.AddrPort, deadline time.Time) (*stream, error) {
	family, own := unix.AF_INET, netip.IPv4Unspecified()
	if !to.Addr().Is4() {
		family, own = unix.AF_INET6, netip.IPv6Unspecified()
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := &stream{fd}
	// So that the node's own daemons can listen on the port.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, socketAddress(own, port))
	}
	if err == nil {
		err = unix.Connect(fd, socketAddress(to.Addr(), int(to.Port())))
	}
	if errors.Is(err, unix.EINPROGRESS) {
		err = s.await(unix.POLLOUT, deadline)
	}
	if err == nil {
		var code int
		if code, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
			err = unix.Errno(code)
		}
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stream) close() { _ = unix.Close(s.fd) }

func (s *stream) await(events int16, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: events}}, int(left.Milliseconds())+1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// connectTimeout is how long a server may take to accept a connection. A lost SYN is sent again after a second.
const connectTimeout = 5 * time.Second

func (k *kernel) CheckServer(at netip.AddrPort) error {
	s, err := dial(at, time.Now().Add(connectTimeout))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", at, err)
	}
	s.close()
	return nil
}

// Post waits for the first bytes of the answer and ignores them. If it closed the connection earlier, the server could
// see a reset instead of the request.
func (k *kernel) Post(to netip.AddrPort, request []byte, deadline time.Time) error {
	s, err := send(to, request, deadline)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.read(make([]byte, 512), deadline)
	return err
}

// Call reads until the server closes the connection.
func (k *kernel) Call(to netip.AddrPort, request []byte, deadline time.Time) (string, error) {
	s, err := send(to, request, deadline)
	if err != nil {
		return "", err
	}
	defer s.close()
	buf, n := make([]byte, 4096), 0
	for n < len(buf) {
		got, err := s.read(buf[n:], deadline)
		if err != nil {
			return "", err
		}
		if got == 0 {
			break
		}
		n += got
	}
	return string(buf[:n]), nil
}

// send connects and sends a request.
func send(to netip.AddrPort, request []byte, deadline time.Time) (*stream, error) {
	s, err := dial(to, deadline)
	for err == nil && len(request) > 0 {
		var n int
		if n, err = unix.Write(s.fd, request); errors.Is(err, unix.EAGAIN) {
			err, n = s.await(unix.POLLOUT, deadline), 0
		}
		if err != nil {
			s.close()
			return nil, err
		}
		request = request[n:]
	}
	return s, err
}

// read waits for bytes and reads them. It returns 0 at the end.
func (s *stream) read(buf []byte, deadline time.Time) (int, error) {
	if err := s.await(unix.POLLIN, deadline); err != nil {
		return 0, err
	}
	return unix.Read(s.fd, buf)
}

func bigEndian16(v uint16) uint16 { return v<<8 | v>>8 }
