package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/dhcp"
	"dim/internal/lab/netns"
	"dim/internal/testkit"
)

// dhcpCluster has two servers, and nodes of three processors.
const dhcpCluster = "../../internal/boot/testdata/cluster.xml"

// discovery is what firmware sends, as far as answers depend on it.
type discovery struct {
	name    string
	node    int
	archs   []uint16
	vendor  string
	user    string // user class
	options map[uint8][]byte
	silent  bool // it requests nothing that it needs to boot
}

func discoveries() []discovery {
	return []discovery{
		{name: "BIOS", archs: []uint16{0}, vendor: "PXEClient:Arch:00000:UNDI:002001"},
		{name: "BIOS, second server", node: 1, archs: []uint16{0}, vendor: "PXEClient:Arch:00000"},
		{name: "an old ROM without option 93", vendor: "PXEClient:Arch:00000:UNDI:002001"},
		{name: "UEFI x86_64", archs: []uint16{7}, vendor: "PXEClient:Arch:00007:UNDI:003016"},
		{name: "UEFI that sends EBC", archs: []uint16{9}, vendor: "PXEClient:Arch:00009:UNDI:003016"},
		{name: "UEFI HTTP", archs: []uint16{16}, vendor: "HTTPClient:Arch:00016:UNDI:003001"},
		{name: "UEFI HTTP, second server", node: 1, archs: []uint16{16}, vendor: "HTTPClient:Arch:00016"},
		{name: "UEFI HTTP with the architecture of PXE", archs: []uint16{7}, vendor: "HTTPClient:Arch:00016"},
		{name: "UEFI arm64", node: 3, archs: []uint16{11}, vendor: "PXEClient:Arch:00011:UNDI:003000"},
		{name: "UEFI arm64 HTTP", node: 3, archs: []uint16{19}, vendor: "HTTPClient:Arch:00019:UNDI:003000"},
		{name: "UEFI arm64 of a node of another processor", archs: []uint16{11}, vendor: "PXEClient:Arch:00011"},
		{name: "U-Boot on arm64", node: 3, archs: []uint16{22}, vendor: "U-Boot.armv8"},
		{name: "U-Boot without architecture", node: 3, vendor: "U-Boot"},
		{name: "SLOF", node: 2, archs: []uint16{12}},
		{name: "SLOF that says nothing", node: 2},
		{name: "petitboot", node: 2, archs: []uint16{14}},
		{name: "iPXE of a BIOS", archs: []uint16{0}, vendor: "PXEClient:Arch:00000:UNDI:002001", user: "iPXE",
			options: map[uint8][]byte{175: {0xb1, 1, 1}}},
		{name: "iPXE under UEFI", archs: []uint16{7}, vendor: "PXEClient:Arch:00007:UNDI:003010", user: "iPXE"},
		{name: "iPXE on arm64", node: 3, archs: []uint16{11}, vendor: "PXEClient:Arch:00011:UNDI:003010", user: "iPXE"},
		{name: "iPXE, second server", node: 1, user: "iPXE"},
		{name: "iPXE, no gateway", node: 5, user: "iPXE"},
		{name: "a node that runs", vendor: "dhcpcd-9.4.1", silent: true},
		{name: "dim-init", vendor: "dim-init", silent: true},
		{name: "dim-init that SLOF loaded", node: 2, vendor: "dim-init", silent: true},
	}
}

// discover encodes a message of a card.
func (m *discovery) discover(t *testing.T, mac net.HardwareAddr, xid uint32) []byte {
	d := testkit.Value(dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true)))(t)
	binary.BigEndian.PutUint32(d.TransactionID[:], xid)
	wanted := []byte{1, 3, 6, 12, 15, 26}
	if !m.silent {
		wanted = append(wanted, 43, 60, 66, 67, 175)
	}
	if m.vendor == "dim-init" {
		wanted = append(wanted, 224)
	}
	d.Options[55] = wanted
	if m.vendor != "" {
		d.Options[60] = []byte(m.vendor)
	}
	if m.user != "" {
		d.Options[77] = []byte(m.user)
	}
	for _, a := range m.archs {
		d.Options[93] = binary.BigEndian.AppendUint16(d.Options[93], a)
	}
	for code, v := range m.options {
		d.Options[code] = v
	}
	return d.ToBytes()
}

// offer is what a client learns from an offer.
type offer struct {
	Address, NextServer, BootFile string
	Options                       map[uint8]string
}

// parseOffer returns the offer in a message. The options in which servers may differ are left out: who the server is,
// when to renew, and what follows from the netmask.
func parseOffer(t *testing.T, b []byte) offer {
	t.Helper()
	p := testkit.Value(dhcpv4.FromBytes(b))(t)
	if p.MessageType() != dhcpv4.MessageTypeOffer {
		t.Errorf("it is no offer: %s", p.Summary())
	}
	a := offer{p.YourIPAddr.String(), p.ServerIPAddr.String(), p.BootFileName, map[uint8]string{}}
	for code, v := range p.Options {
		a.Options[code] = strings.TrimRight(fmt.Sprintf("%q", v), "\x00")
	}
	if a.NextServer == "10.77.0.66" { // dnsmasq names itself where there is nothing to fetch by TFTP
		a.NextServer = "0.0.0.0"
	}
	if lease := p.IPAddressLeaseTime(0); lease >= 365*24*time.Hour {
		a.Options[51] = "a year at least"
	}
	const file = uint8(dhcpv4.OptionBootfileName)
	if a.BootFile == "" {
		a.BootFile = strings.TrimRight(string(p.Options[file]), "\x00")
	}
	for _, code := range []uint8{file, 28, 54, 58, 59, 66} {
		delete(a.Options, code)
	}
	return a
}

// askAll sends each message from a client without an address until it is answered, and returns the answers.
func askAll(t *testing.T, client *netns.Host, c *cluster.Cluster) map[string]offer {
	t.Helper()
	var conn net.PacketConn
	testkit.Must(t, client.Do(func() (err error) {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			_ = raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
				if err == nil {
					err = unix.BindToDevice(int(fd), "eth0")
				}
			})
			return err
		}}
		conn, err = config.ListenPacket(t.Context(), "udp4", ":68")
		return err
	}))
	defer conn.Close()
	answers := map[string]offer{}
	for i, m := range discoveries() {
		xid := uint32(time.Now().UnixNano())<<8 | uint32(i)
		b := exchange(t, conn, m.discover(t, c.Nodes[m.node].Boot().MAC, xid), xid)
		if b == nil {
			t.Fatalf("%s: no answer arrives", m.name)
		}
		answers[m.name] = parseOffer(t, b)
	}
	return answers
}

// exchange sends a message until it is answered: a server that has just started is not ready yet.
func exchange(t *testing.T, conn net.PacketConn, message []byte, xid uint32) []byte {
	t.Helper()
	buf := make([]byte, 2000)
	for range 120 {
		_, err := conn.WriteTo(message, &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
		testkit.Must(t, err)
		testkit.Must(t, conn.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			if n > 240 && buf[0] == 2 && binary.BigEndian.Uint32(buf[4:]) == xid {
				return buf[:n]
			}
		}
	}
	return nil
}

// startOurs starts DIM's own DHCP for all servers of a cluster, and returns what stops it.
func startOurs(t *testing.T, h *netns.Host, c *cluster.Cluster) (stop func()) {
	t.Helper()
	conn := testkit.Value(h.ListenPacket("udp4", ":67"))(t)
	s := dhcp.Server{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	s.Answer = func(r *dhcp.Request) (dhcp.Lease, error) {
		n, _, _ := c.NodeByMAC(r.MAC)
		p := boot.Policy{
			Server: n.Server().Name, Cluster: func() *cluster.Cluster { return c },
			HasLoader: func(string) bool { return true }, Closed: func() error { return nil },
		}
		client := boot.Client{MAC: r.MAC, VendorClass: r.VendorClass, IPXE: r.IPXE, WantsConfig: r.WantsConfig}
		for _, a := range r.Archs {
			client.Archs = append(client.Archs, uint16(a))
		}
		a, err := p.DHCP(client)
		return dhcp.Lease(a.Lease), err
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	return func() {
		cancel()
		testkit.Must(t, <-done)
		conn.Close()
	}
}

// otherDHCP is another DHCP server.
type otherDHCP struct {
	format string
	check  []string // the command that only reads the configuration, which is added as last operand
	run    []string
}

func otherDHCPs(dir string) []otherDHCP {
	return []otherDHCP{
		{"dnsmasq", []string{"dnsmasq", "--test", "-C"}, []string{
			"dnsmasq", "--keep-in-foreground", "--user=root", "--pid-file=", "--log-facility=-", "--log-dhcp",
			"--dhcp-leasefile=" + filepath.Join(dir, "leases"), "-C"}},
		{"isc-dhcp", []string{"dhcpd", "-t", "-cf"}, []string{
			"dhcpd", "-4", "-d", "-f", "--no-pid", "-user", "root", "-group", "root",
			"-lf", filepath.Join(dir, "leases"), "-cf"}},
		{"kea", []string{"kea-dhcp4", "-t"}, []string{"kea-dhcp4", "-d", "-c"}},
	}
}

// written exports dhcpCluster into a file of dir.
func written(t *testing.T, format, dir string) (path string) {
	t.Helper()
	var out bytes.Buffer
	args := []string{"cluster", "export", "--format", format, dhcpCluster}
	if code := run(args, nil, &out, os.Stderr); code != 0 {
		t.Fatalf("dim %v: exit code %d", args, code)
	}
	path = filepath.Join(dir, format+".conf")
	testkit.Must(t, os.WriteFile(path, out.Bytes(), 0o644))
	return path
}

// start starts another server with the export, and stops it at the end of the test.
func (s *otherDHCP) start(t *testing.T, h *netns.Host, dir, conf string) {
	t.Helper()

	log := testkit.Value(os.Create(filepath.Join(dir, "log")))(t)
	defer log.Close()
	cmd := h.Command(t.Context(), s.run[0], append(s.run[1:], conf)...)
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir, "KEA_DHCP_DATA_DIR="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s wrote:\n%s", s.format, text[max(0, len(text)-4000):])
		}
	})
}

// Each server reads its export, and gives each kind of firmware what DIM's own DHCP gives it.
func TestOtherServersAnswerAsOurs(t *testing.T) {
	testkit.NeedRoot(t, "it makes network namespaces")
	c := testkit.Value(cluster.Load(dhcpCluster))(t)
	network := testkit.Value(netns.New(fmt.Sprintf("dim-conf-%d", os.Getpid())))(t)
	t.Cleanup(func() { testkit.Must(t, network.Close()) })
	client := testkit.Value(network.NewHost("client"))(t)
	t.Cleanup(func() { testkit.Must(t, client.Close()) })
	head := testkit.Value(network.NewHost("head", netip.MustParsePrefix("10.77.0.1/24")))(t)
	stop := startOurs(t, head, c)
	want := askAll(t, client, c)
	stop()
	testkit.Must(t, head.Close())
	leases := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(leases, "leases"), nil, 0o644)) // dhcpd does not make it
	for _, s := range otherDHCPs(leases) {
		t.Run(s.format, func(t *testing.T) {
			testkit.NeedProgram(t, s.run[0])
			site := testkit.Value(network.NewHost("site", netip.MustParsePrefix("10.77.0.66/24")))(t)
			t.Cleanup(func() { testkit.Must(t, site.Close()) })
			dir := t.TempDir()
			conf := written(t, s.format, dir)
			check := site.Command(t.Context(), s.check[0], append(s.check[1:], conf)...)
			if out, err := check.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", check, err, out)
			}
			s.start(t, site, dir, conf)
			got := askAll(t, client, c)
			for _, m := range discoveries() {
				if d := cmp.Diff(want[m.name], got[m.name]); d != "" {
					t.Errorf("%s (- ours, + %s):\n%s", m.name, s.format, d)
				}
			}
		})
	}
}

func TestTheExportInJSONIsWhatShowPrints(t *testing.T) {
	var exported, shown bytes.Buffer
	run([]string{"cluster", "export", "--format", "json", dhcpCluster}, nil, &exported, os.Stderr)
	run([]string{"cluster", "show", "-o", "json", dhcpCluster}, nil, &shown, os.Stderr)
	if d := cmp.Diff(shown.String(), exported.String()); d != "" || exported.Len() == 0 {
		t.Errorf("(- show, + export):\n%s", d)
	}
}
