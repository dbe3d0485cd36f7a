package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/e2e/agent"
	"dim/internal/lab"
	"dim/internal/testkit"
)

// cardsXML describes three nodes with a VLAN on the boot card, a bond of two cards and a card of their own. What the
// programs that set up cards do not need is left out of the image.
const cardsXML = `<cluster name="cards" domain="cards.example">
  <network name="boot" subnet="10.77.0.0/24" gateway="10.77.0.1"/>
  <network name="fast" subnet="10.78.0.0/24"/>
  <network name="storage" subnet="10.79.0.0/24"/>
  <network name="campus" subnet="192.0.2.0/24"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <image name="compute" arch="amd64" master="dir:/srv/dim/masters/compute">
    EXCLUDED
  </image>
  <image name="nm" arch="amd64" master="dir:/srv/dim/masters/compute">
    EXCLUDED
    <builtin name="ifupdown" enabled="no"/>
  </image>
  NODES
</cluster>
`

// cardsDescription writes the description of the nodes n01, n02 and n03, whose images are given.
func cardsDescription(t *testing.T, images ...string) string {
	t.Helper()
	var excluded, nodes strings.Builder
	for _, path := range []string{
		"/boot/*", "/usr/lib/modules/*", "/usr/lib/firmware/*", "/usr/lib/python3*", "/usr/lib/udev/hwdb*",
		"/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/zoneinfo/*", "/usr/share/perl*",
		"/usr/lib/x86_64-linux-gnu/perl*", "/usr/share/python*", "/var/cache/*", "/var/lib/apt/*",
		"/var/lib/dpkg/info/*", "/tmp/*", "/srv/*", "/etc/udev/hwdb*",
	} {
		fmt.Fprintf(&excluded, "<exclude path=%q/>", path)
	}
	for i, image := range images {
		fmt.Fprintf(&nodes, `
  <node name="n%02[1]d" image="%[2]s" servers="head">
    <interface name="vec0" network="boot" address="10.77.0.%[3]d" mac="52:54:00:4d:00:%02[1]x"/>
    <interface name="bond0" network="fast" address="10.78.0.%[3]d" bond="active-backup" on="vec1 vec2"/>
    <interface name="vec1" mac="52:54:00:4d:01:%02[1]x"/>
    <interface name="vec2" mac="52:54:00:4d:02:%02[1]x"/>
    <interface name="stor" network="storage" address="10.79.0.%[3]d" vlan="902" on="vec0" mtu="1300"/>
    <interface name="vec3" network="campus" address="192.0.2.%[3]d" mac="52:54:00:4d:03:%02[1]x" mtu="1400"/>
  </node>`, i+1, image, 11+i)
	}
	file := filepath.Join(t.TempDir(), "cards.xml")
	text := strings.NewReplacer("EXCLUDED", excluded.String(), "NODES", nodes.String()).Replace(cardsXML)
	testkit.Must(t, os.WriteFile(file, []byte(text), 0o644))
	return file
}

// cardModules are the kernel modules of VLANs and bonds, in the order of their dependencies.
func cardModules() []string {
	return []string{
		"lib/crc-ccitt.ko", "net/ipv6/ipv6.ko", "net/llc/llc.ko", "net/802/stp.ko", "net/802/garp.ko", "net/802/mrp.ko",
		"net/8021q/8021q.ko", "drivers/net/bonding/bonding.ko",
	}
}

// cardsGuest starts the node number i, whose root is its replica, with all its cards.
func cardsGuest(t *testing.T, c *lab.Cluster, i int) guest {
	t.Helper()
	kernels := testkit.Value(filepath.Glob("/usr/lib/uml/modules/*/kernel"))(t)
	spec := lab.UMLSpec{Name: fmt.Sprintf("n%02d", i), Put: map[string]string{"bin/busybox": "/bin/busybox"}}
	for card := range 4 {
		spec.MACs = append(spec.MACs, fmt.Sprintf("52:54:00:4d:%02x:%02x", card, i))
	}
	for _, m := range cardModules() {
		spec.Put["cards/"+m] = filepath.Join(kernels[len(kernels)-1], m)
	}
	g := powerOn(t, c, spec)
	for _, m := range cardModules() {
		load := []string{"/bin/busybox", "insmod", "/cards/" + m}
		if strings.Contains(m, "bonding") {
			load = append(load, "max_bonds=0") // as systemd's modprobe.d has it
		}
		g.run(load...)
	}
	// a card answers for its own addresses only
	g.run("/bin/busybox", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")
	g.mount("/nodes/"+spec.Name, "/mnt/root", nfsOptions)
	for _, m := range [][2]string{
		{"proc", "proc"}, {"sys", "sysfs"}, {"dev", "devtmpfs"}, {"run", "tmpfs"}, {"tmp", "tmpfs"},
	} {
		testkit.Must(t, g.call("Mount",
			agent.MountArgs{Source: m[0], Dir: "/mnt/root/" + m[0], Type: m[1]}, &agent.None{}))
	}
	return g
}

// run runs a program of the guest that must succeed.
func (g guest) run(argv ...string) string {
	g.t.Helper()
	var out agent.Output
	testkit.Must(g.t, g.call("Run", agent.RunArgs{Argv: argv, Timeout: 5 * time.Minute}, &out))
	if out.Exit != 0 {
		g.t.Fatalf("%v ended with %d:\n%s", argv, out.Exit, out.Text)
	}
	return out.Text
}

// inRoot is a command in the node's root.
func inRoot(command string) []string {
	return []string{"/bin/busybox", "chroot", "/mnt/root", "/bin/sh", "-ec",
		"export PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_IGNORE_CHROOT=1; " + command}
}

// start starts a command in the node's root.
func (g guest) start(command string) {
	g.t.Helper()
	var id int
	testkit.Must(g.t, g.call("Start", agent.RunArgs{Argv: inRoot("exec " + command + " >/run/log 2>&1")}, &id))
}

// awaitCards waits until the node's cards are as they are declared.
func (g guest) awaitCards() {
	g.t.Helper()
	const look = "ip -o -4 addr; ip -o link; cat /sys/class/net/bond0/bonding/slaves /proc/net/vlan/config"
	missing := func(text string) (list []string) {
		for _, want := range []string{
			"vec0    inet 10.77.0.", "bond0    inet 10.78.0.", "stor    inet 10.79.0.", "vec3    inet 192.0.2.",
			"stor@vec0", "mtu 1300", "mtu 1400", "| 902  | vec0",
		} {
			if !strings.Contains(text, want) {
				list = append(list, want)
			}
		}
		if !strings.Contains(text, "vec1 vec2\n") && !strings.Contains(text, "vec2 vec1\n") {
			list = append(list, "the cards of the bond")
		}
		return list
	}
	var text string
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		var out agent.Output
		testkit.Must(g.t, g.call("Run", agent.RunArgs{Argv: inRoot(look), Timeout: time.Minute}, &out))
		if text = out.Text; len(missing(text)) == 0 {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("the cards lack %q:\n%s\n%s", missing(text), text, g.run(inRoot("cat /run/log || :")...))
		}
	}
}

// reaches pings the addresses that another node has on each network.
func (g guest) reaches(node int) {
	g.t.Helper()
	for _, network := range []string{"10.77.0", "10.78.0", "10.79.0", "192.0.2"} {
		g.run("/bin/busybox", "sh", "-c", fmt.Sprintf(
			"n=0; until /bin/busybox ping -c 1 -W 1 %s.%d; do n=$((n+1)); [ $n -lt 60 ] || exit 1; done",
			network, 10+node))
	}
}

// The programs that set up a node's cards do what the description says, with the files that they get: real programs of
// Debian, on a real kernel, in the node's own root.
func TestCardsAreAsTheyAreDeclared(t *testing.T) {
	needLab(t)
	master := os.Getenv("DIM_LAB_MASTER")
	if master == "" {
		t.Skip("needs a whole Debian: set DIM_LAB_MASTER, as `make e2e` and `make long` do")
	}
	c := startClusterAs(t, t.TempDir(), master, cardsDescription(t, "compute", "compute", "nm"))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	first := cardsGuest(t, c, 1)
	first.run(inRoot("mkdir -p /run/network; ifup -a; ifup -a --allow=hotplug")...)
	first.awaitCards()
	t.Run("systemd-networkd", func(t *testing.T) {
		g := cardsGuest(t, c, 2)
		g.udev()
		g.start("/lib/systemd/systemd-networkd")
		g.awaitCards()
		g.reaches(1)
	})
	t.Run("NetworkManager", func(t *testing.T) {
		if _, err := os.Stat(filepath.Join(master, "usr/sbin/NetworkManager")); err != nil {
			t.Skip("the master has no NetworkManager: `make long` makes one that has it")
		}
		dim(t, c, "image", "capture", "nm", "--rollout", "now")
		g := cardsGuest(t, c, 3)
		g.udev()
		g.run(inRoot("mkdir -p /run/dbus; dbus-daemon --system --fork")...)
		unit := g.read("/mnt/root/etc/systemd/system/NetworkManager.service.d/00-dim-boot.conf")
		for line := range strings.Lines(unit) {
			if command, ok := strings.CutPrefix(line, "ExecStartPre=-"); ok {
				g.run(inRoot(command)...)
			}
		}
		g.start("NetworkManager --no-daemon")
		g.awaitCards()
		g.reaches(1)
	})
	first.dropCaches()
	if got := first.read("/mnt/root/etc/hostname"); got != "n01\n" { // the root still comes through vec0
		t.Errorf("hostname of n01: %q", got)
	}
}

// udev starts udev, which tells the programs about cards.
func (g guest) udev() {
	g.t.Helper()
	g.run(inRoot("/lib/systemd/systemd-udevd --daemon; udevadm trigger --action=add --subsystem-match=net; " +
		"udevadm settle")...)
}
