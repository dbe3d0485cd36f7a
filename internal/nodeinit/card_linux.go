package nodeinit

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// classNet has a link for each card.
const classNet = "/sys/class/net"

// ethernet is ARPHRD_ETHER, the type of cards in sysfs.
const ethernet = "1"

func (k *kernel) Cards() ([]card, error) {
	entries, err := os.ReadDir(classNet)
	if err != nil {
		return nil, err
	}
	var cards []card
	for _, e := range entries {
		at := filepath.Join(classNet, e.Name())
		// Only hardware has a device; bridges, bonds and the like have none.
		if _, err := os.Stat(at + "/device"); err != nil || readLine(at+"/type") != ethernet {
			continue
		}
		mac, err := net.ParseMAC(readLine(at + "/address"))
		if err != nil {
			continue
		}
		// Reading carrier and speed of a card that is down fails.
		speed, _ := strconv.Atoi(readLine(at + "/speed"))
		cards = append(cards,
			card{name: e.Name(), mac: mac, carrier: readLine(at+"/carrier") == "1", speed: speed})
	}
	slices.SortFunc(cards, func(a, b card) int { return strings.Compare(a.name, b.name) })
	return cards, nil
}

// ifreq is struct ifreq of net/if.h: a name and a union of 24 bytes.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

func newRequest(name string) *ifreq {
	r := new(ifreq)
	copy(r.name[:unix.IFNAMSIZ-1], name)
	return r
}

// call does one ioctl on a new socket. Not netlink: five calls are needed, and a netlink library would make the program
// half again as large.
func call(request uintptr, arg unsafe.Pointer) error { return callFamily(unix.AF_INET, request, arg) }

// call6 is call for IPv6. What is there already is no error.
func call6(request uintptr, arg unsafe.Pointer) error {
	if err := callFamily(unix.AF_INET6, request, arg); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func callFamily(family int, request uintptr, arg unsafe.Pointer) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func setUp(name string, up uint16) error {
	r := newRequest(name)
	if err := call(unix.SIOCGIFFLAGS, unsafe.Pointer(r)); err != nil {
		return err
	}
	flags := (*uint16)(unsafe.Pointer(&r.data))
	if *flags&unix.IFF_UP == up {
		return nil
	}
	*flags = *flags&^unix.IFF_UP | up
	return call(unix.SIOCSIFFLAGS, unsafe.Pointer(r))
}

func (k *kernel) Up(name string) error { return setUp(name, unix.IFF_UP) }

// Rename takes the card down first: kernels before 6.2 do not rename one that is up.
func (k *kernel) Rename(from, to string) error {
	if err := setUp(from, 0); err != nil {
		return err
	}
	r := newRequest(from)
	copy(r.data[:unix.IFNAMSIZ-1], to)
	return call(unix.SIOCSIFNAME, unsafe.Pointer(r))
}

// strictARP makes each card answer ARP for its own addresses only. By default Linux answers by every card, so that the
// server may send the root's traffic to a second card on the same network, which stops the root when it is unplugged
// (kernel Documentation/networking/ip-sysctl.rst, arp_ignore and arp_announce).
var strictARP = [...]struct{ name, value string }{{"arp_ignore", "1"}, {"arp_announce", "2"}}

func (k *kernel) Configure(name string, l lease, mtu int) error {
	if err := k.Up("lo"); err != nil {
		return fmt.Errorf("switch on lo: %w", err)
	}
	for _, s := range strictARP {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+s.name, []byte(s.value), 0); err != nil {
			k.Log(fmt.Sprintf("dim: cannot set %s: %v; going on", s.name, err))
		}
	}
	if mtu != 0 {
		r := newRequest(name)
		*(*int32)(unsafe.Pointer(&r.data)) = int32(mtu)
		if err := call(unix.SIOCSIFMTU, unsafe.Pointer(r)); err != nil {
			// With the usual MTU the node is slow at worst.
			k.Log(fmt.Sprintf("dim: cannot set the MTU of %s to %d: %v; going on", name, mtu, err))
		}
	}
	mask := netip.AddrFrom4([4]byte(net.CIDRMask(l.Address.Bits(), 32)))
	for _, s := range []struct {
		request uintptr
		addr    netip.Addr
	}{{unix.SIOCSIFADDR, l.Address.Addr()}, {unix.SIOCSIFNETMASK, mask}} {
		r := newRequest(name)
		*(*sockaddr)(unsafe.Pointer(&r.data)) = newSockaddr(s.addr)
		if err := call(s.request, unsafe.Pointer(r)); err != nil {
			return fmt.Errorf("set address %s: %w", l.Address, err)
		}
	}
	if !l.Router.IsValid() {
		return nil
	}
	route := rtentry{
		dst: newSockaddr(netip.IPv4Unspecified()), gateway: newSockaddr(l.Router),
		genmask: newSockaddr(netip.IPv4Unspecified()), flags: unix.RTF_UP | unix.RTF_GATEWAY,
	}
	if err := call(unix.SIOCADDRT, unsafe.Pointer(&route)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("set route by %s: %w", l.Router, err)
	}
	return nil
}

// in6ifreq is struct in6_ifreq of linux/ipv6.h.
type in6ifreq struct {
	addr   [16]byte
	length uint32
	index  int32
}

// in6rtmsg is struct in6_rtmsg of linux/ipv6_route.h on 64-bit machines.
type in6rtmsg struct {
	dst, src, gateway    [16]byte
	kind                 uint32
	dstLength, srcLength uint16
	metric               uint32
	info                 uint64
	flags                uint32
	index                int32
}

func (k *kernel) AddIPv6(name string, address netip.Prefix, router netip.Addr) error {
	card, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	a := in6ifreq{addr: address.Addr().As16(), length: uint32(address.Bits()), index: int32(card.Index)}
	if err := call6(unix.SIOCSIFADDR, unsafe.Pointer(&a)); err != nil {
		return fmt.Errorf("set address %s: %w", address, err)
	}
	if !router.IsValid() {
		return nil
	}
	r := in6rtmsg{gateway: router.As16(), metric: 1, flags: unix.RTF_UP | unix.RTF_GATEWAY, index: int32(card.Index)}
	if err := call6(unix.SIOCADDRT, unsafe.Pointer(&r)); err != nil {
		return fmt.Errorf("set route by %s: %w", router, err)
	}
	return nil
}

// sockaddr is struct sockaddr_in.
type sockaddr struct {
	family uint16
	port   uint16
	addr   [4]byte
	_      [8]byte
}

func newSockaddr(a netip.Addr) sockaddr { return sockaddr{family: unix.AF_INET, addr: a.As4()} }

// rtentry is struct rtentry of linux/route.h on 64-bit machines.
type rtentry struct {
	_                     uint64
	dst, gateway, genmask sockaddr
	flags                 uint16
	_                     int16
	_                     uint64
	_                     uint64
	metric                int16
	_                     [6]byte
	dev                   uintptr
	mtu, window           uint64
	irtt                  uint16
	_                     [6]byte
}

func (k *kernel) SetHostName(name string) error {
	if name == "" || bytes.ContainsAny([]byte(name), "/\x00") {
		return nil
	}
	return unix.Sethostname([]byte(name))
}
