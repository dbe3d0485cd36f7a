package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"dim/internal/testkit"
)

// inNetwork runs the calling test again in a process with a network namespace of its own, and fails the test if it
// fails there. It returns true in that process.
func inNetwork(t *testing.T) bool {
	t.Helper()
	const variable = "DIM_TEST_NETWORK"
	if os.Getenv(variable) == t.Name() {
		ip(t, "link set lo up")
		return true
	}
	testkit.NeedRoot(t, "it makes a network namespace")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	return false
}

// ip calls the ip program.
func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

// bridge makes the interface on which the server has its address, connected to the port p0.
func bridge(t *testing.T) {
	t.Helper()
	ip(t, "link add br0 type bridge stp_state 0 forward_delay 0")
	ip(t, "addr add 10.77.0.1/24 dev br0")
	ip(t, "link set br0 up")
	ip(t, "link set p0 master br0")
}

// newNetworkSite is newSite for a server that answers DHCP as 10.77.0.1 on a bridge. The interface cli is connected to
// it.
func newNetworkSite(t *testing.T) *site {
	t.Helper()
	ip(t, "link add p0 type veth peer name cli")
	ip(t, "link set p0 up")
	ip(t, "link set cli up")
	bridge(t)
	s := newSite(t, "10.77.0.1")
	s.describe("", `dhcp="off" `, "", "127.0.0.0/8", "10.77.0.0/24", `"127.0.0.{`, `"10.77.0.{`)
	return s
}

// machine is a machine that boots, on the interface cli.
type machine struct {
	t    *testing.T
	conn *packet.Conn
	mac  net.HardwareAddr
}

func newMachine(t *testing.T, mac string) *machine {
	t.Helper()
	ifi, err := net.InterfaceByName("cli")
	testkit.Must(t, err)
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
	testkit.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	hw, err := net.ParseMAC(mac)
	testkit.Must(t, err)
	return &machine{t, conn, hw}
}

// exchange sends a frame until a frame arrives that is an answer, or for 10 s. It reports whether one arrived.
func (m *machine) exchange(ask []byte, isAnswer func(gopacket.Packet) bool) bool {
	m.t.Helper()
	buf := make([]byte, 2000)
	for range 50 {
		_, err := m.conn.WriteTo(ask, &packet.Addr{HardwareAddr: ask[:6]})
		testkit.Must(m.t, err)
		testkit.Must(m.t, m.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		for {
			n, _, err := m.conn.ReadFrom(buf)
			if err != nil {
				break
			}
			if isAnswer(gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default)) {
				return true
			}
		}
	}
	return false
}

// discover reports whether a DHCPDISCOVER is answered.
func (m *machine) discover() bool {
	m.t.Helper()
	discover, err := dhcpv4.NewDiscovery(m.mac)
	testkit.Must(m.t, err)
	offer := m.dhcp(discover)
	return offer != nil && offer.MessageType() == dhcpv4.MessageTypeOffer
}

// dhcp broadcasts a message of DHCP until it is answered, and returns the answer; nil: there is none within 10 s.
func (m *machine) dhcp(message *dhcpv4.DHCPv4) (answer *dhcpv4.DHCPv4) {
	m.t.Helper()
	m.exchange(m.dhcpFrame(message), func(p gopacket.Packet) bool {
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || udp.DstPort != 68 {
			return false
		}
		got, err := dhcpv4.FromBytes(udp.Payload)
		if err != nil || got.TransactionID != message.TransactionID || got.OpCode != dhcpv4.OpcodeBootReply {
			return false
		}
		answer = got
		return true
	})
	return answer
}

// dhcpFrame returns the frame in which a message of DHCP is broadcast.
func (m *machine) dhcpFrame(message *dhcpv4.DHCPv4) []byte {
	m.t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	testkit.Must(m.t, udp.SetNetworkLayerForChecksum(ip))
	return m.frame(layers.EthernetBroadcast, layers.EthernetTypeIPv4, ip, udp, gopacket.Payload(message.ToBytes()))
}

// solicit reports whether a router solicitation is answered. It has no source address, so the answer goes to all.
func (m *machine) solicit() bool {
	m.t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: net.IPv6unspecified, DstIP: net.IPv6linklocalallrouters}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterSolicitation, 0)}
	testkit.Must(m.t, icmp.SetNetworkLayerForChecksum(ip))
	ask := m.frame(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}, layers.EthernetTypeIPv6, ip, icmp,
		gopacket.Payload(make([]byte, 4)))
	return m.exchange(ask, func(p gopacket.Packet) bool {
		return p.Layer(layers.LayerTypeICMPv6RouterAdvertisement) != nil
	})
}

func (m *machine) frame(to net.HardwareAddr, typ layers.EthernetType, parts ...gopacket.SerializableLayer) []byte {
	m.t.Helper()
	eth := &layers.Ethernet{SrcMAC: m.mac, DstMAC: to, EthernetType: typ}
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	testkit.Must(m.t, gopacket.SerializeLayers(buf, options, append([]gopacket.SerializableLayer{eth}, parts...)...))
	return buf.Bytes()
}

func TestABridgeThatIsMadeAnewIsServed(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.start()
	c := newMachine(t, "52:54:00:4d:00:01")
	check := func(when string) {
		t.Helper()
		if !c.discover() {
			t.Errorf("%s: a DHCPDISCOVER is not answered", when)
		}
		if !c.solicit() {
			t.Errorf("%s: a router solicitation is not answered", when)
		}
	}
	check("at first")
	ip(t, "link del br0")
	bridge(t)
	check("after the bridge was made anew")

	if got := fmt.Sprint(s.status().Services); strings.Count(got, "0.0.0.0:67") != 1 {
		t.Errorf("services: %s", got)
	}
}

func TestABurstOfDHCPMessagesIsAnswered(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	const nodes = 1000
	s := newNetworkSite(t)
	s.describe("", `dhcp="off" `, "", "127.0.0.0/8", "10.77.0.0/16", `to="4"`, fmt.Sprintf(`to="%d"`, nodes),
		"{node:02}", "{node:04}", "127.0.0.{10+node}", "10.77.{1+node/250}.{1+node%250}",
		"52:54:00:4d:00:{node:02x}", "52:54:00:4d:{node/256:02x}:{node%256:02x}")
	s.start()
	if !newMachine(t, "52:54:00:4d:00:01").discover() {
		t.Fatal("no DHCPDISCOVER is answered")
	}
	// The messages are those of a relay on this machine.
	ip(t, "addr add 10.77.0.254/24 dev br0")
	conn := testkit.Value(listenRelay(t, "10.77.0.254:67"))(t)
	defer conn.Close()
	to := &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67}
	var messages [][]byte
	for i := range nodes {
		n := i + 1
		mac := net.HardwareAddr{0x52, 0x54, 0, 0x4d, byte(n >> 8), byte(n)}
		m, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithRelay(net.IPv4(10, 77, 0, 254)))
		testkit.Must(t, err)
		messages = append(messages, m.ToBytes())
	}
	begin := time.Now()
	for _, m := range messages {
		_, err := conn.WriteTo(m, to)
		testkit.Must(t, err)
	}
	t.Logf("%d messages sent in %v", nodes, time.Since(begin))
	offered := make(map[string]bool)
	buf := make([]byte, 2000)
	for len(offered) < nodes {
		testkit.Must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			break
		}
		offer, err := dhcpv4.FromBytes(buf[:n])
		testkit.Must(t, err)
		offered[offer.ClientHWAddr.String()] = true
	}
	t.Logf("%d offers after %v", len(offered), time.Since(begin))
	if len(offered) != nodes {
		t.Errorf("%d of %d messages are not answered", nodes-len(offered), nodes)
	}
}

// listenRelay opens the socket of a relay, which receives what is sent to its own address.
func listenRelay(t *testing.T, addr string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			)
		})
		return errors.Join(cerr, err)
	}}
	return lc.ListenPacket(t.Context(), "udp4", addr)
}

func TestAServerWaitsForItsAddress(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	ip(t, "addr del 10.77.0.1/24 dev br0")
	const waits = "waiting for the server's address"
	added := make(chan struct{})
	go func() {
		defer close(added)
		testkit.Eventually(t, "the server waits", func() bool { return strings.Contains(s.log.String(), waits) })
		time.Sleep(time.Second) // it looks again and logs nothing more
		ip(t, "addr add 10.77.0.1/24 dev br0")
	}()
	s.start()
	<-added
	if n := strings.Count(s.log.String(), waits); n != 1 {
		t.Errorf("%d log lines of the wait", n)
	}
}
