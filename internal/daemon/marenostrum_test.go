package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// The first image server of examples/marenostrum.xml gives blades of two chassis their addresses. The switch of each
// chassis is a relay.
func TestTheBladesOfMareNostrumAreServedThroughRelays(t *testing.T) {
	testkit.NeedProgram(t, "dhcrelay")
	testkit.NeedProgram(t, "busybox")
	if !inNetwork(t) {
		return
	}
	ip(t, "link add br0 type bridge stp_state 0 forward_delay 0")
	ip(t, "addr add 10.128.254.1/16 dev br0")
	ip(t, "link set br0 up")
	is01 := imageServerOf(t, "10.128.254.1", "is01", "marenostrum.xml", "macs.csv")
	is01.start() // without a head: it has the description from the file
	for chassis, boot := range map[int]string{1: "s01c1b01", 2: "s01c2b14"} {
		blade := 1
		if chassis == 2 {
			blade = 14
		}
		relay := fmt.Sprintf("10.128.%d.254", chassis)
		far := chassisAt(t, chassis, relay, fmt.Sprintf("02:4d:4e:01:%02x:%02x", chassis, blade))
		got := udhcpc(t, far, "-x", "0x5d:000c", "-O", "209", "-O", "210")
		for _, want := range []string{
			fmt.Sprintf("ip='10.128.%d.%d'", chassis, blade), "serverid='10.128.254.1'", "siaddr='10.128.254.1'",
			"router='10.128.255.254'", "dns='10.128.255.1'", "mtu='1500'", "domain='mn.example'",
			"hostname='" + boot + "'",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s was not given %s:\n%s", boot, want, got)
			}
		}
		testkit.Eventually(t, "is01 shows the boot of "+boot, func() bool {
			n, err := is01.client().Node(t.Context(), boot)
			return err == nil && n.Stage == "dhcp"
		})
	}
}

// imageServerOf returns a server of an example. The first of files is the description.
func imageServerOf(t *testing.T, address, name string, files ...string) *site {
	t.Helper()
	head, s := newSite(t, address), newSite(t, address)
	s.assume(head, name)
	for _, f := range files {
		text := testkit.Value(os.ReadFile(filepath.Join("../../examples", f)))(t)
		testkit.Must(t, os.WriteFile(filepath.Join(filepath.Dir(head.file), f), text, 0o600))
	}
	s.file = filepath.Join(filepath.Dir(head.file), files[0])
	return s
}

// The image server of examples/racks.xml gives a node of the second rack its address. Their router is a relay.
func TestTheSecondRackIsServedThroughItsRouter(t *testing.T) {
	testkit.NeedProgram(t, "dhcrelay")
	testkit.NeedProgram(t, "busybox")
	if !inNetwork(t) {
		return
	}
	ip(t, "link add br0 type bridge stp_state 0 forward_delay 0")
	ip(t, "addr add 10.20.1.2/24 dev br0")
	ip(t, "link set br0 up")
	imageServerOf(t, "10.20.1.2", "is1", "racks.xml").start()
	router, far := behindRelay(t, "10.20.1", "10.20.2", "52:54:00:20:02:07")
	background(t, "ip", "netns", "exec", router, "dhcrelay", "-4", "-d", "-id", "inner", "-iu", "outer", "10.20.1.2")
	got := udhcpc(t, far, "-x", "0x5d:0007", "-V", "PXEClient:Arch:00007:UNDI:003016")
	for _, want := range []string{
		"ip='10.20.2.107'", "serverid='10.20.1.2'", "siaddr='10.20.1.2'", "router='10.20.2.254'", "dns='10.20.1.1'",
		"domain='racks.example'", "hostname='r2n07'",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("r2n07 was not given %s:\n%s", want, got)
		}
	}
}

// chassisAt makes a chassis whose switch is a relay with an address, and one blade of it with a MAC. It returns the
// namespace of the blade.
func chassisAt(t *testing.T, number int, relay, mac string) string {
	t.Helper()
	name := fmt.Sprint("chassis", number)
	ns := machineAt(t, name, "link add inner type veth peer name blade", "addr add "+relay+"/32 dev inner",
		"link set inner up")
	far := fmt.Sprintf("dim-%s-blade-%d", name, os.Getpid())
	ip(t, "netns add "+far)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", far).Run() })
	ip(t, "-n "+ns+" link set blade netns "+far+" name cli address "+mac)
	ip(t, "-n "+far+" link set cli up")
	ip(t, fmt.Sprintf("-n %s addr add 10.128.%d.253/16 dev cli", ns, number))
	background(t, "ip", "netns", "exec", ns, "dhcrelay", "-4", "-d", "-id", "inner", "-iu", "cli", "10.128.254.1")
	return far
}
