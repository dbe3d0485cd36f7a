package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/testkit"
)

// background starts a program, which ends with the test.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	log := filepath.Join(t.TempDir(), "log")
	f := testkit.Value(os.Create(log))(t)
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log); t.Failed() && err == nil {
			t.Logf("%s wrote:\n%s", name, text)
		}
	})
}

// udhcpc asks for an address in a network namespace, and returns what the server gave as words of a shell,
// such as "siaddr='10.77.0.1'".
func udhcpc(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	testkit.Must(t, os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && set\n"), 0o755))
	args = append([]string{"netns", "exec", namespace, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "30", "-T", "1",
		"-s", script, "-i", "cli"}, args...)
	out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
	if err != nil {
		t.Errorf("udhcpc: %v\n%s", err, out)
	}
	return string(out)
}

// behindRelay makes a network behind a router that is connected to the server's: near and beyond are their first three
// numbers, and the router has the address 254 in both. The interface cli in the namespace of the result has a MAC.
func behindRelay(t *testing.T, near, beyond, mac string) (router, far string) {
	t.Helper()
	router, far = fmt.Sprintf("dim-router-%d", os.Getpid()), fmt.Sprintf("dim-far-%d", os.Getpid())
	for _, ns := range []string{router, far} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n "+ns+" link set lo up")
	}
	ip(t, "link add p1 type veth peer name outer netns "+router)
	ip(t, "link set p1 master br0 up")
	ip(t, "-n "+router+" link add inner type veth peer name cli netns "+far)
	ip(t, "-n "+router+" addr add "+near+".254/24 dev outer")
	ip(t, "-n "+router+" addr add "+beyond+".254/24 dev inner")
	ip(t, "-n "+router+" link set outer up")
	ip(t, "-n "+router+" link set inner up")
	ip(t, "-n "+far+" link set cli address "+mac+" up")
	ip(t, "route add "+beyond+".0/24 via "+near+".254")
	return router, far
}

func TestANodeBehindARelayIsServed(t *testing.T) {
	testkit.NeedProgram(t, "dhcrelay")
	testkit.NeedProgram(t, "busybox")
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.describe(`<network name="boot2" subnet="10.79.0.0/24" gateway="10.79.0.254"/>
  <image name="power" arch="ppc64le" master="dir:/power"/>
  <node name="far" image="power" servers="head">
    <interface name="eth0" network="boot2" address="10.79.0.14" mac="52:54:00:4f:00:04"/>
  </node>
`, `dhcp="off" `, "", "127.0.0.0/8", "10.77.0.0/24", `"127.0.0.{`, `"10.77.0.{`)
	s.start()
	router, far := behindRelay(t, "10.77.0", "10.79.0", "52:54:00:4f:00:04")
	for name, relay := range map[string][]string{
		"plain": {"-id", "inner", "-iu", "outer"},
		// -a adds option 82. The relay drops answers that do not have it.
		"option 82": {"-a", "-m", "discard", "-id", "inner", "-iu", "outer"},
		// The relay is known by its outer address, and names the link: -U adds suboption 5.
		"link selection": {"-a", "-id", "inner", "-iu", "outer", "-U", "outer"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(append([]string{"netns", "exec", router, "dhcrelay", "-4", "-d"}, relay...), "10.77.0.1")
			background(t, "ip", args...)
			got := udhcpc(t, far, "-x", "0x5d:000c", "-O", "209", "-O", "210")
			for _, want := range []string{
				"ip='10.79.0.14'", "serverid='10.77.0.1'", "router='10.79.0.254'", "siaddr='10.77.0.1'",
				"hostname='far'",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("the client was not given %s:\n%s", want, got)
				}
			}
		})
	}
	testkit.Eventually(t, "the boot is shown", func() bool {
		n, err := s.client().Node(t.Context(), "far")
		return err == nil && n.Stage == "dhcp"
	})
}

// machineAt makes a namespace with the interface cli, which is connected to the server's bridge.
func machineAt(t *testing.T, name string, commands ...string) string {
	t.Helper()
	ns := fmt.Sprintf("dim-%s-%d", name, os.Getpid())
	ip(t, "netns add "+ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	ip(t, "link add p-"+name+" type veth peer name cli netns "+ns)
	ip(t, "link set p-"+name+" master br0 up")
	for _, c := range commands {
		ip(t, "-n "+ns+" "+c)
	}
	ip(t, "-n "+ns+" link set lo up")
	ip(t, "-n "+ns+" link set cli up")
	return ns
}

// startDNSMasq starts a DHCP server in a namespace.
func startDNSMasq(t *testing.T, ns string, args ...string) {
	t.Helper()
	background(t, "ip", append([]string{"netns", "exec", ns, "dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground",
		"--port=0", "--interface=cli", "--bind-interfaces", "--no-ping", "--leasefile-ro", "--user=root", "--pid-file=",
		"--log-facility=-", "--log-dhcp"}, args...)...)
}

func TestAnotherDHCPServerIsAProblem(t *testing.T) {
	testkit.NeedProgram(t, "dnsmasq")
	testkit.NeedProgram(t, "busybox")
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.start()
	other := machineAt(t, "other", "addr add 10.77.0.66/24 dev cli")
	startDNSMasq(t, other, "--dhcp-range=10.77.0.200,10.77.0.210")
	problem := func() string {
		for _, p := range s.status().Problems {
			if strings.HasPrefix(p.About, "DHCP server 10.77.0.66") {
				return p.Text
			}
		}
		return ""
	}
	// Only the other server has an address for this machine. It requests it in a broadcast that names the server.
	stranger := machineAt(t, "stranger", "link set cli address 02:00:00:00:00:09")
	if got := udhcpc(t, stranger); !strings.Contains(got, "serverid='10.77.0.66'") {
		t.Errorf("the stranger was given:\n%s", got)
	}
	testkit.Eventually(t, "the server is a problem", func() bool {
		text := problem()
		return strings.HasPrefix(text, "gives 10.77.0.2") &&
			strings.HasSuffix(text, " to 02:00:00:00:00:09 on network boot")
	})
	// The node takes either offer. It wants answers by broadcast, which this server hears.
	node := machineAt(t, "node", "link set cli address 52:54:00:4d:00:01")
	testkit.Eventually(t, "the problem names the node", func() bool {
		udhcpc(t, node, "-B")
		return strings.HasSuffix(problem(), " to node n01 on network boot")
	})
	s.describe("", `dhcp="off" `, "", `insecure="yes"`, `dhcp="proxy"`, "127.0.0.0/8", "10.77.0.0/24",
		`"127.0.0.{`, `"10.77.0.{`)
	testkit.Must(t, s.stop())
	s.start()
	if got := udhcpc(t, node, "-B"); !strings.Contains(got, "serverid='10.77.0.66'") {
		t.Errorf("beside the other server the node was given:\n%s", got)
	}
	if text := problem(); text != "" {
		t.Errorf("a server that gives the addresses is a problem: %s", text)
	}
}

// perfdhcp is ISC's load generator: it asks as a relay, and judges the answers itself.
func TestPerfDHCPGetsAnAnswerToEachMessage(t *testing.T) {
	testkit.NeedProgram(t, "perfdhcp")
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.describe("", `dhcp="off" `, "", "127.0.0.0/8", "10.77.0.0/16", `from="1" to="4"`, `from="1" to="100"`,
		"{node:02}", "{node:04}", "127.0.0.{10+node}", "10.77.1.{node}", "52:54:00:4d:00:{node:02x}",
		"52:54:00:4e:00:{node-1:02x}")
	s.start()
	far := machineAt(t, "load", "addr add 10.77.0.253/16 dev cli")
	args := strings.Fields("netns exec " + far + " perfdhcp -4 -l cli -b mac=52:54:00:4e:00:00 -R 100 -r 50 -n 100 " +
		"-d 20 -W 1000000 10.77.0.1")
	out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
	if err != nil || strings.Count(string(out), "drops: 0\n") != 2 {
		t.Errorf("perfdhcp: %v\n%s", err, out)
	}
}
