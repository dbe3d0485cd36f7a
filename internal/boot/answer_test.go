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

// The options are those that the named firmware sends.
func TestFirmwareGetsWhatItCanLoad(t *testing.T) {
	pxeOptions := map[uint8][]byte{60: []byte("PXEClient"), 43: {6, 1, 8, 255}}
	httpOptions := map[uint8][]byte{60: []byte("HTTPClient")}
	tests := []struct {
		name    string
		client  Client
		file    string
		tftp    bool
		options map[uint8][]byte
		event   string
	}{
		{"PXE ROM of a BIOS", Client{Archs: []uint16{0}, VendorClass: "PXEClient:Arch:00000:UNDI:002001"},
			"undionly.kpxe", true, pxeOptions, "dhcp PXE, BIOS"},
		{"an old ROM that sends no option 93", Client{VendorClass: "PXEClient:Arch:00000:UNDI:002001"},
			"undionly.kpxe", true, pxeOptions, "dhcp PXE, BIOS"},
		{"OVMF, PXE", Client{Archs: []uint16{7}, VendorClass: "PXEClient:Arch:00007:UNDI:003016"},
			"snponly.efi", true, pxeOptions, "dhcp PXE, UEFI x86_64"},
		{"UEFI that sends EBC", Client{Archs: []uint16{9}, VendorClass: "PXEClient:Arch:00009:UNDI:003016"},
			"snponly.efi", true, pxeOptions, "dhcp PXE, UEFI x86_64"},
		{"OVMF, HTTP Boot", Client{Archs: []uint16{16}, VendorClass: "HTTPClient:Arch:00016:UNDI:003001"},
			"http://10.77.0.1/boot/loader/ipxe.efi", false, httpOptions, "dhcp UEFI HTTP Boot, UEFI x86_64 HTTP"},
		{"iPXE as a BIOS option ROM",
			Client{Archs: []uint16{0}, VendorClass: "PXEClient:Arch:00000:UNDI:002001", IPXE: true},
			"http://10.77.0.1/boot/ipxe", false, map[uint8][]byte{175: {0xb0, 1, 1}}, "dhcp iPXE"},
		{"iPXE under UEFI", Client{Archs: []uint16{7}, VendorClass: "PXEClient:Arch:00007:UNDI:003010", IPXE: true},
			"http://10.77.0.1/boot/ipxe", false, map[uint8][]byte{175: {0xb0, 1, 1}}, "dhcp iPXE"},
		{"SLOF requesting", Client{Archs: []uint16{12}}, "", true,
			map[uint8][]byte{209: []byte("pxelinux.cfg/default"), 210: []byte("/")}, "dhcp Open Firmware"},
		{"petitboot on OPAL", Client{Archs: []uint16{14}}, "", true,
			map[uint8][]byte{209: []byte("pxelinux.cfg/default"), 210: []byte("/")}, "dhcp OPAL"},
		{"U-Boot on arm64", Client{Archs: []uint16{22}, VendorClass: "U-Boot.armv8"}, "", true,
			map[uint8][]byte{209: []byte("pxelinux.cfg/default"), 210: []byte("/")}, "dhcp U-Boot arm64"},
		{"arm64 UEFI, when no loader is installed",
			Client{Archs: []uint16{11}, VendorClass: "PXEClient:Arch:00011:UNDI:003000"},
			"", false, map[uint8][]byte{}, "dhcp! there is no loader for PXE, UEFI arm64"},
		{"unknown firmware", Client{Archs: []uint16{99}, VendorClass: "PXEClient:Arch:00099"},
			"", false, map[uint8][]byte{},
			"dhcp! there is no loader for unsupported firmware, architecture 99 (option 93), which is not known here"},
		{"dim-init", Client{VendorClass: "dim-init"}, "", false, map[uint8][]byte{224: []byte(
			"BOOTIF=01-52-54-00-4d-00-01 dim.node=n01 " +
				"dim.server=10.77.0.1 dim.nfs=10.77.0.1:2049:/nodes/n01 dim.http=10.77.0.1:80 dim.if=eth0")}, ""},
		{"dhclient of a running node, or SLOF discovering", Client{}, "", false, map[uint8][]byte{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPolicy(t, "is1")
			tt.client.MAC = mac(1)
			got, err := p.DHCP(tt.client)
			if err != nil {
				t.Fatal(err)
			}
			want := Lease{
				Address: addr("10.77.0.11"), Subnet: netip.MustParsePrefix("10.77.0.0/24"), Server: addr("10.77.0.1"),
				Router: addr("10.77.0.254"), DNS: []netip.Addr{addr("10.77.0.253")},
				HostName: "n01", Domain: "test.example", MTU: 9000, BootFile: tt.file, Options: tt.options,
			}
			if tt.tftp {
				want.NextServer = addr("10.77.0.1")
			}
			if d := cmp.Diff(want, got.Lease, cmpAddrs); d != "" {
				t.Error(d)
			}
			if e := eventText(got.Event); e != tt.event || got.Node != "n01" {
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
