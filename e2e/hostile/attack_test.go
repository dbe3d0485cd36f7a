package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/lab/netns"
	"dim/internal/vfs"
)

// attackers are hostile nodes and strangers.
type attackers struct {
	net *netns.Net
	big vfs.Handle // a large file of the hostile node n65
}

// service is a TCP service of the server, and the kind of port from which it is called.
type service struct {
	port      int
	superuser bool
}

func superuserPort(port int) service { return service{port, true} }
func userPort(port int) service      { return service{port, false} }

// dial connects from an address: from a port below 1024 as a superuser does, or from another one as any user does.
func dial(ctx context.Context, n *netns.Net, from netip.Addr, s service) (conn net.Conn, err error) {
	to := net.JoinHostPort(serverAt, strconv.Itoa(s.port))
	err = n.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		if !s.superuser {
			conn, err = d.DialContext(ctx, "tcp", to)
			return err
		}
		for local := 1023; local > 512; local-- {
			d.LocalAddr = &net.TCPAddr{IP: from.AsSlice(), Port: local}
			conn, err = d.DialContext(ctx, "tcp", to)
			if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
				break
			}
		}
		return err
	})
	return conn, err
}

// attack runs all attacks at the same time, and returns how often each was made.
func (s *attackers) attack(ctx context.Context, length time.Duration) map[string]uint64 {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var wg sync.WaitGroup
	counts := map[string]*atomic.Uint64{}
	each := func(what string, parallel int, once func(ctx context.Context, i int)) {
		count := new(atomic.Uint64)
		counts[what] = count
		for i := range parallel {
			wg.Go(func() {
				for ctx.Err() == nil {
					once(ctx, i)
					count.Add(1)
					pause(ctx, 10*time.Millisecond)
				}
			})
		}
	}
	each("refused calls, unread", 64, s.unreadRefusals)
	each("large reads, unread", 32, s.unreadReads)
	each("strangers", 16, s.stranger)
	each("HTTP, half and unread", 64, s.halfHTTP)
	each("push calls", 16, s.pushCalls)
	each("TFTP requests of 128 ports", 4, s.tftpRequests)
	each("forged boots", 4, s.forgeBoot)
	wg.Wait()
	done := map[string]uint64{}
	for what, n := range counts {
		done[what] = n.Load()
	}
	return done
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// hostileAddr returns the address of a hostile node.
func hostileAddr(i int) netip.Addr { return address(liveNodes + 1 + i%hostileNodes) }

// nfsCall returns a call of NFS version 3 by the superuser, as a record (RFC 5531 sections 9 and 11).
func nfsCall(xid, procedure uint32, args []byte) []byte {
	var b []byte
	put := func(list ...uint32) {
		for _, v := range list {
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	put(0, xid, 0, 2, 100003, 3, procedure)
	put(1, 20, 0, 0, 0, 0, 0) // AUTH_SYS without a name and further groups
	put(0, 0)
	b = append(b, args...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)|1<<31)
	return b
}

// flood writes packets to a connection, and reads nothing, until the server takes no more for a second or total bytes
// are written. It holds the connection for a while.
func flood(ctx context.Context, conn net.Conn, total int, packet func(xid uint32) []byte) {
	var batch []byte
	for xid := rand.Uint32(); total > 0 && ctx.Err() == nil; {
		batch = batch[:0]
		for len(batch) < 32<<10 {
			xid++
			batch = append(batch, packet(xid)...)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := conn.Write(batch)
		if total -= n; err != nil {
			break
		}
	}
	pause(ctx, 2*time.Second)
}

// unreadRefusals sends calls from a port that any user has, which are refused, and reads no answers.
func (s *attackers) unreadRefusals(ctx context.Context, i int) {
	conn, err := dial(ctx, s.net, hostileAddr(i), userPort(2049))
	if err != nil {
		return
	}
	defer conn.Close()
	flood(ctx, conn, 5<<20, func(xid uint32) []byte { return nfsCall(xid, 1, []byte{0, 0, 0, 0}) })
}

// unreadReads reads a large file as the superuser of a node, and takes no answers.
func (s *attackers) unreadReads(ctx context.Context, _ int) {
	conn, err := dial(ctx, s.net, hostileAddr(0), superuserPort(2049))
	if err != nil {
		return
	}
	defer conn.Close()
	h := s.big.Bytes()
	args := binary.BigEndian.AppendUint32(nil, uint32(len(h)))
	args = append(args, h...)
	for len(args)%4 != 0 {
		args = append(args, 0)
	}
	args = binary.BigEndian.AppendUint64(args, 0)
	args = binary.BigEndian.AppendUint32(args, 1<<20)
	flood(ctx, conn, 1<<20, func(xid uint32) []byte { return nfsCall(xid, 6, args) })
}

// stranger connects from an address that the description does not name.
func (s *attackers) stranger(ctx context.Context, i int) {
	conn, err := dial(ctx, s.net, strangers()[i%4], service{port: []int{2049, 80}[i/2%2], superuser: i%2 == 0})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(conn, "GET /boot/ipxe HTTP/1.0\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
}

// halfHTTP sends a part of a request, or a request whose answer it does not read.
func (s *attackers) halfHTTP(ctx context.Context, i int) {
	conn, err := dial(ctx, s.net, hostileAddr(i), service{port: 80, superuser: i%4 == 0})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	switch i % 5 {
	case 0:
		_, _ = io.WriteString(conn, "GET /boot/ipxe HTT")
	case 1:
		_, _ = io.WriteString(conn, "POST /boot/stage HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{")
	case 2:
		_, _ = io.WriteString(conn, "GET /"+strings.Repeat("a", 1<<20))
	case 3:
		_, _ = io.WriteString(conn, strings.Repeat("GET /boot/ipxe HTTP/1.1\r\nHost: x\r\n\r\n", 2000))
	case 4:
		_, _ = io.WriteString(conn, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	}
	pause(ctx, 2*time.Second)
}

// pushCalls makes calls of the resident process, with all the bytes that it may send.
func (s *attackers) pushCalls(ctx context.Context, i int) {
	conn, err := dial(ctx, s.net, hostileAddr(i), superuserPort(80))
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	body := `{"boot":"b","seen":"compute:1"}` + strings.Repeat(`{"mount":"/etc/motd","type":"ext4"}`, 5000)
	_, _ = fmt.Fprintf(conn, "POST /node/hear HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	pause(ctx, time.Second)
}

// tftpRequests sends requests in the name of all nodes, and acknowledges nothing.
func (s *attackers) tftpRequests(ctx context.Context, i int) {
	_ = s.net.Do(func() error {
		for n := range 128 {
			from := address(1 + (n+i*128)%(liveNodes+hostileNodes))
			conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: from.AsSlice()},
				&net.UDPAddr{IP: net.ParseIP(serverAt), Port: 69})
			if err != nil {
				return err
			}
			_, _ = io.WriteString(conn, "\x00\x01undionly.kpxe\x00octet\x00timeout\x00255\x00blksize\x001468\x00")
			conn.Close()
		}
		return nil
	})
	pause(ctx, 100*time.Millisecond)
}

// forgeBoot sends a DHCP request in the name of a node that runs, and asks for what it boots from its address, as any
// of its users can.
func (s *attackers) forgeBoot(ctx context.Context, i int) {
	victim := 1 + rand.IntN(liveNodes)
	_ = s.net.Do(func() error { return s.forgeDHCP(victim) })
	pause(ctx, 50*time.Millisecond)
	_ = s.net.Do(func() error {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: address(victim).AsSlice()},
			&net.UDPAddr{IP: net.ParseIP(serverAt), Port: 69})
		if err == nil {
			_, _ = io.WriteString(conn, "\x00\x01pxelinux.cfg/default\x00octet\x00")
			conn.Close()
		}
		return err
	})
	if i%2 == 0 {
		return
	}
	conn, err := dial(ctx, s.net, address(victim), userPort(80))
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, "GET /boot/ipxe HTTP/1.0\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
}

// forgeDHCP sends a DHCPDISCOVER of firmware with a node's MAC into the boot network. It is called in the namespace.
func (s *attackers) forgeDHCP(victim int) error {
	card, err := net.InterfaceByName("outside")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, dhcpFrame(victim), 0, &unix.SockaddrLinklayer{Ifindex: card.Index})
}

// dhcpFrame is the Ethernet frame of a DHCPDISCOVER (RFC 2131, 4578).
func dhcpFrame(victim int) []byte {
	mac := []byte{0x52, 0x54, 0, 0x4d, 0, byte(victim)}
	m := make([]byte, 240)
	m[0], m[1], m[2] = 1, 1, 6
	binary.BigEndian.PutUint32(m[4:], rand.Uint32())
	copy(m[28:], mac)
	copy(m[236:], []byte{0x63, 0x82, 0x53, 0x63})
	m = append(m, 53, 1, 1, 93, 2, 0, 0, 60, 32)
	m = append(m, "PXEClient:Arch:00000:UNDI:002001"...)
	m = append(m, 255)
	udp := binary.BigEndian.AppendUint16(nil, 68)
	udp = binary.BigEndian.AppendUint16(udp, 67)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(m)))
	udp = append(udp, 0, 0)
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(udp)+len(m)))
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	frame := append([]byte{255, 255, 255, 255, 255, 255}, mac...)
	frame = append(frame, 8, 0)
	return append(append(append(frame, ip...), udp...), m...)
}
