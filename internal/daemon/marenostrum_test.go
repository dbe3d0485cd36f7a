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
	head, is01 := newSite(t, "10.128.254.1"), newSite(t, "10.128.254.1")
	is01.assume(head, "is01")
	for _, name := range []string{"marenostrum.xml", "macs.csv"} {
		text := testkit.Value(os.ReadFile(filepath.Join("../../examples", name)))(t)
		testkit.Must(t, os.WriteFile(filepath.Join(filepath.Dir(head.file), name), text, 0o600))
	}
	head.file = filepath.Join(filepath.Dir(head.file), "marenostrum.xml")
	is01.file = head.file
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
