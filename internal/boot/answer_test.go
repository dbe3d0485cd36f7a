package boot

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

var cmpAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// firmwareCase is a client and what it gets. The options are those that the named firmware sends.
type firmwareCase struct {
	name    string
	node    byte
	client  Client
	file    string
	tftp    bool
	options map[uint8][]byte
	event   string
}

func firmwareOfPCs() []firmwareCase {
	pxeOptions := map[uint8][]byte{60: []byte("PXEClient"), 43: {6, 1, 8, 255}}
	httpOptions := map[uint8][]byte{60: []byte("HTTPClient")}
	return []firmwareCase{
		{"PXE ROM of a BIOS", 1, Client{Archs: []uint16{0}, VendorClass: "PXEClient:Arch:00000:UNDI:002001"},
			"undionly.kpxe", true, pxeOptions, "dhcp PXE, BIOS"},
		{"an old ROM that sends no option 93", 1, Client{VendorClass: "PXEClient:Arch:00000:UNDI:002001"},
			"undionly.kpxe", true, pxeOptions, "dhcp PXE, BIOS"},
		{"OVMF, PXE", 1, Client{Archs: []uint16{7}, VendorClass: "PXEClient:Arch:00007:UNDI:003016"},
			"snponly.efi", true, pxeOptions, "dhcp PXE, UEFI x86_64"},
		{"UEFI that sends EBC", 1, Client{Archs: []uint16{9}, VendorClass: "PXEClient:Arch:00009:UNDI:003016"},
			"snponly.efi", true, pxeOptions, "dhcp PXE, UEFI x86_64"},
		{"UEFI that names two architectures", 1, Client{Archs: []uint16{16, 7}, VendorClass: "PXEClient"},
			"snponly.efi", true, pxeOptions, "dhcp PXE, UEFI x86_64"},
		{"UEFI with the bytes of option 93 exchanged", 1, Client{Archs: []uint16{0x0700}, VendorClass: "PXEClient"},
			"snponly.efi", true, pxeOptions, "dhcp PXE, UEFI x86_64"},
		{"OVMF, HTTP Boot", 1, Client{Archs: []uint16{16}, VendorClass: "HTTPClient:Arch:00016:UNDI:003001"},
			"http://10.77.0.1/boot/loader/ipxe.efi", false, httpOptions, "dhcp UEFI HTTP Boot, UEFI x86_64 HTTP"},
		{"HTTP Boot with the architecture of PXE", 1,
			Client{Archs: []uint16{7}, VendorClass: "HTTPClient:Arch:00016"},
			"http://10.77.0.1/boot/loader/ipxe.efi", false, httpOptions, "dhcp UEFI HTTP Boot, UEFI x86_64 HTTP"},
		{"HTTP Boot that names only the architecture of PXE", 1,
			Client{Archs: []uint16{7}, VendorClass: "HTTPClient"},
			"http://10.77.0.1/boot/loader/ipxe.efi", false, httpOptions, "dhcp UEFI HTTP Boot, UEFI x86_64 HTTP"},
		{"iPXE as a BIOS option ROM", 1,
			Client{Archs: []uint16{0}, VendorClass: "PXEClient:Arch:00000:UNDI:002001", IPXE: true},
			"http://10.77.0.1/boot/ipxe", false, map[uint8][]byte{175: {0xb0, 1, 1}}, "dhcp iPXE"},
		{"iPXE under UEFI", 1, Client{Archs: []uint16{7}, VendorClass: "PXEClient:Arch:00007:UNDI:003010", IPXE: true},
			"http://10.77.0.1/boot/ipxe", false, map[uint8][]byte{175: {0xb0, 1, 1}}, "dhcp iPXE"},
	}
}

func otherFirmware() []firmwareCase {
	config := map[uint8][]byte{209: []byte("pxelinux.cfg/default"), 210: []byte("/")}
	none := map[uint8][]byte{}
	return []firmwareCase{
		{"SLOF requesting", 3, Client{Archs: []uint16{12}}, "", true, config, "dhcp Open Firmware"},
		{"SLOF discovering, or dhclient of a running node", 3, Client{}, "", true, config, ""},
		{"firmware of PowerVM asking by BOOTP", 3, Client{BOOTP: true}, "", true, config, ""},
		{"petitboot on OPAL", 3, Client{Archs: []uint16{14}}, "", true, config, "dhcp OPAL"},
		{"petitboot that names nothing", 3, Client{VendorClass: "udhcp 1.31.1", WantsConfig: true}, "", true, config,
			"dhcp Open Firmware"},
		{"dhcpcd of a running node", 3, Client{VendorClass: "dhcpcd-9.4.1"}, "", false, none, ""},
		{"U-Boot on arm64", 4, Client{Archs: []uint16{22}, VendorClass: "U-Boot.armv8"}, "", true, config,
			"dhcp U-Boot arm64"},
		{"U-Boot that names no architecture", 4, Client{VendorClass: "U-Boot"}, "", true, config, "dhcp U-Boot arm64"},
		{"U-Boot on a node of another processor", 1,
			Client{Archs: []uint16{22}, VendorClass: "U-Boot.armv8"}, "", false, none,
			"dhcp! its firmware is U-Boot arm64 (arm64), and its image compute is for amd64: " +
				"give it another image, or correct its MAC"},
		{"a PC as a node of another processor", 3, Client{Archs: []uint16{7}, VendorClass: "PXEClient:Arch:00007"}, "",
			false, none, "dhcp! its firmware is UEFI x86_64 (amd64), and its image power is for ppc64le: " +
				"give it another image, or correct its MAC"},
		{"a Raspberry Pi, which calls itself a BIOS", 5,
			Client{Archs: []uint16{0}, VendorClass: "PXEClient:Arch:00000:UNDI:002001"}, "", false, none,
			"dhcp! there is no loader for Raspberry Pi: install UEFI firmware or U-Boot on its SD card or flash"},
		{"U-Boot of a Raspberry Pi", 5, Client{Archs: []uint16{22}, VendorClass: "U-Boot.armv8"}, "", true, config,
			"dhcp U-Boot arm64"},
		{"arm64 UEFI, when no loader is installed", 4,
			Client{Archs: []uint16{11}, VendorClass: "PXEClient:Arch:00011:UNDI:003000"}, "", false, none,
			"dhcp! there is no loader for PXE, UEFI arm64: install one of arm64-efi/snponly.efi, ipxe-arm64.efi, " +
				"arm64-efi/ipxe.efi, see dim serve --loaders"},
		{"a processor without images", 1, Client{Archs: []uint16{39}, VendorClass: "PXEClient:Arch:00039"}, "", false,
			none, "dhcp! there is no loader for UEFI LoongArch, 64 bits: " +
				"no image of this cluster can run on its processor"},
		{"unknown firmware", 1, Client{Archs: []uint16{99}, VendorClass: "PXEClient:Arch:00099"}, "", false, none,
			"dhcp! there is no loader for architecture 99 (option 93), which is not known here: " +
				"update the firmware, or boot the node by PXE or UEFI HTTP"},
		{"firmware that names no architecture", 1, Client{VendorClass: "PXEClient"}, "", false, none,
			"dhcp! there is no loader for firmware that names no architecture: " +
				"update the firmware, or boot the node by PXE or UEFI HTTP"},
		{"dim-init", 1, Client{VendorClass: "dim-init"}, "", false, map[uint8][]byte{224: []byte(
			"BOOTIF=01-52-54-00-4d-00-01 dim.node=n01 " +
				"dim.server=10.77.0.1 dim.nfs=10.77.0.1:2049:/nodes/n01 dim.http=10.77.0.1:80 dim.if=eth0")}, ""},
		{"dhclient of a running node", 1, Client{}, "", false, none, ""},
		{"BOOTP of a PC", 1, Client{BOOTP: true}, "", false, none, ""},
	}
}

func TestFirmwareGetsWhatItCanLoad(t *testing.T) {
	for _, tt := range append(firmwareOfPCs(), otherFirmware()...) {
		t.Run(tt.name, func(t *testing.T) {
			p := newPolicy(t, "is1")
			n := p.Cluster().Nodes[tt.node-1]
			tt.client.MAC = n.Boot().MAC
			got, err := p.DHCP(tt.client)
			if err != nil {
				t.Fatal(err)
			}
			want := Lease{
				Address: n.Address(), Subnet: netip.MustParsePrefix("10.77.0.0/24"), Server: addr("10.77.0.1"),
				Router: addr("10.77.0.254"), DNS: []netip.Addr{addr("10.77.0.253")},
				HostName: string(n.Name), Domain: "test.example", MTU: 9000, BootFile: tt.file, Options: tt.options,
			}
			if tt.tftp {
				want.NextServer = addr("10.77.0.1")
			}
			if d := cmp.Diff(want, got.Lease, cmpAddrs); d != "" {
				t.Error(d)
			}
			if e := eventText(got.Event); e != tt.event || got.Node != n.Name {
				t.Errorf("event %q of %s, want %q", e, got.Node, tt.event)
			}
		})
	}
}

func TestWhichClientsAreAnswered(t *testing.T) {
	boot := []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}
	mpi := []netip.Prefix{netip.MustParsePrefix("10.78.0.1/24")}
	tests := []struct {
		name   string
		server cluster.ServerName
		client Client
		want   string // an address, "" for ErrNotMine, or else the error
	}{
		{"the first server", "is1", Client{MAC: mac(1), Local: boot}, "10.77.0.11"},
		{"the second server", "is2", Client{MAC: mac(1), Local: boot}, ""},
		{"the second server by a relay", "is2", Client{MAC: mac(1), Relay: addr("10.77.0.250")}, ""},
		{"a server that is none of the node's", "is1", Client{MAC: mac(2), Local: boot}, ""},
		{"an unknown card", "is1", Client{MAC: mac(99), Local: boot}, "not in the cluster description"},
		{"the second card on its network", "is1", Client{MAC: mac(0x81), Local: mpi, Link: "eth1"}, "10.78.0.11"},
		{"the second card on the first network", "is1", Client{MAC: mac(0x81), Local: boot, Link: "eth0"},
			"n01's card eth1 belongs on network mpi (10.78.0.0/24) but asks on eth0"},
		{"by a relay", "is1", Client{MAC: mac(1), Local: mpi, Relay: addr("10.77.0.250")}, "10.77.0.11"},
		{"by a relay of another network", "is1", Client{MAC: mac(1), Local: boot, Relay: addr("10.79.0.250")},
			"n01's card eth0 belongs on network boot (10.77.0.0/24) but asks by the relay 10.79.0.250"},
		{"by a relay elsewhere, on the link that it names", "is1",
			Client{MAC: mac(1), Local: mpi, Relay: addr("192.0.2.1"), Network: addr("10.77.0.0")}, "10.77.0.11"},
		{"by a relay that names another link", "is1",
			Client{MAC: mac(1), Local: boot, Relay: addr("10.77.0.250"), Network: addr("10.79.0.0")},
			"n01's card eth0 belongs on network boot (10.77.0.0/24) but asks from the network of 10.79.0.0 by the " +
				"relay 10.77.0.250"},
		{"renewing from behind a router", "is1", Client{MAC: mac(1), Local: mpi, Network: addr("10.77.0.11")},
			"10.77.0.11"},
		{"by a relay with a port of any user", "is1",
			Client{MAC: mac(1), Relay: addr("10.77.0.250"), Unprivileged: true}, "10.77.0.11"},
		{"by a user of a node who pretends to be a relay", "is1",
			Client{MAC: mac(1), Relay: addr("10.77.0.12"), Unprivileged: true},
			"n01 asks by the relay 10.77.0.12, which is n02, from a port that any user may use"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := newPolicy(t, tt.server).DHCP(tt.client)
			got := ""
			switch {
			case err == nil:
				got = a.Lease.Address.String()
			case !errors.Is(err, ErrNotMine):
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q (%v)", got, tt.want, err)
			}
		})
	}
}

func TestAServerThatIsDrainedBootsNothing(t *testing.T) {
	p := newPolicy(t, "is1")
	p.Closed = func() error { return errors.New("server is1 was drained") }
	for name, tt := range map[string]struct {
		client Client
		boots  bool
	}{
		"firmware":     {Client{VendorClass: "PXEClient:Arch:00000:UNDI:002001", Archs: []uint16{0}}, true},
		"iPXE":         {Client{IPXE: true}, true},
		"dim-init":     {Client{VendorClass: "dim-init"}, false},
		"a running OS": {Client{VendorClass: "dhcpcd"}, false},
	} {
		tt.client.MAC = mac(1)
		a := testkit.Value(p.DHCP(tt.client))(t)
		if !a.Lease.Address.IsValid() || a.Lease.BootFile != "" || (a.Event.Error != "") != tt.boots {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestOnlyTheFirstCardBoots(t *testing.T) {
	a, err := newPolicy(t, "is1").DHCP(Client{MAC: mac(0x81), VendorClass: "PXEClient:Arch:00000:UNDI:002001"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Lease.BootFile != "" || a.Lease.Options != nil {
		t.Errorf("the second card boots: %+v", a)
	}
}

func TestAnErrorOfDHCPSaysWhatIsWrongWithTheNode(t *testing.T) {
	const order = "dhcp! its firmware boots from eth1, but the node boots from eth0: " +
		"set the boot order, or list that card first"
	pxeClass, httpClass := "PXEClient:Arch:00007:UNDI:003016", "HTTPClient:Arch:00016:UNDI:003001"
	tests := []struct {
		name   string
		client Client
		event  string
	}{
		{"PXE from the second card", Client{MAC: mac(0x81), Archs: []uint16{7}, VendorClass: pxeClass}, order},
		{"HTTP Boot from the second card", Client{MAC: mac(0x81), Archs: []uint16{16}, VendorClass: httpClass}, order},
		{"unknown firmware from the second card", Client{MAC: mac(0x81), VendorClass: "PXEClient:Arch:00099"}, order},
		{"iPXE trying its cards", Client{MAC: mac(0x81), Archs: []uint16{7}, VendorClass: pxeClass, IPXE: true}, ""},
		{"petitboot trying its cards", Client{MAC: mac(0x81), Archs: []uint16{14}}, ""},
		{"the second card of a running node", Client{MAC: mac(0x81)}, ""},
		{"a declined address", Client{MAC: mac(1), Declined: true}, "dhcp! another machine uses 10.77.0.11"},
		{"a declined address of the second card", Client{MAC: mac(0x81), Declined: true},
			"dhcp! another machine uses 10.78.0.11"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := newPolicy(t, "is1").DHCP(tt.client)
			if got := eventText(a.Event); err != nil || got != tt.event {
				t.Errorf("event %q, %v; want %q", got, err, tt.event)
			}
		})
	}
}

// eventText returns an event as "stage detail" or "stage! error".
func eventText(e Event) string {
	if e.Error != "" {
		return string(e.Stage) + "! " + e.Error
	}
	return strings.TrimSpace(string(e.Stage) + " " + e.Detail)
}

func TestBesideAnotherDHCPServerOnlyABootFileIsGiven(t *testing.T) {
	const pxeClass = "PXEClient:Arch:00007:UNDI:003016"
	tests := []struct {
		name    string
		node    byte
		client  Client
		file    string
		options map[uint8][]byte
		event   string
	}{
		{"firmware", 1, Client{Archs: []uint16{7}, VendorClass: pxeClass}, "snponly.efi",
			map[uint8][]byte{60: []byte("PXEClient"), 43: {6, 1, 8, 255}}, "dhcp PXE, UEFI x86_64"},
		{"firmware that takes the declared address", 1,
			Client{Archs: []uint16{7}, VendorClass: pxeClass, Taken: addr("10.77.0.11")}, "snponly.efi",
			map[uint8][]byte{60: []byte("PXEClient"), 43: {6, 1, 8, 255}}, "dhcp PXE, UEFI x86_64"},
		{"firmware that takes another address", 1,
			Client{Archs: []uint16{7}, VendorClass: pxeClass, Taken: addr("10.77.0.99")}, "", nil,
			"dhcp! the DHCP server of network boot gives eth0 the address 10.77.0.99: " +
				"declare it, or let that server give it 10.77.0.11"},
		{"iPXE", 1, Client{IPXE: true}, "http://10.77.0.1/boot/ipxe",
			map[uint8][]byte{60: []byte("PXEClient")}, "dhcp iPXE"},
		{"SLOF", 3, Client{Archs: []uint16{12}}, "", map[uint8][]byte{},
			"dhcp! Open Firmware takes no boot file from a proxy: let the DHCP server of network boot name 10.77.0.1 " +
				"as its next server, and the configuration pxelinux.cfg/default with option 209"},
		{"the client of an operating system", 1, Client{}, "", map[uint8][]byte{}, ""},
	}
	for _, tt := range tests {
		p := newPolicy(t, "is1")
		p.Cluster().Networks[0].Proxy = true
		tt.client.MAC = p.Cluster().Nodes[tt.node-1].Boot().MAC
		a := testkit.Value(p.DHCP(tt.client))(t)
		if !a.Lease.Proxy || a.Lease.BootFile != tt.file || eventText(a.Event) != tt.event {
			t.Errorf("%s: file %q, event %q, %+v", tt.name, a.Lease.BootFile, eventText(a.Event), a.Lease)
		}
		if d := cmp.Diff(tt.options, a.Lease.Options); d != "" {
			t.Errorf("%s: options: %s", tt.name, d)
		}
	}
}
