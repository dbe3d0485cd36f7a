package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/lab/netns"
	"dim/internal/testkit"
)

// rackOfIS01 is a rack whose MACs are not known. Its image server answers DHCP, the others do not.
const rackOfIS01 = `<cluster name="rack">
  <network name="boot" subnet="10.77.0.0/24"/>
  <server name="head" roles="head" dhcp="off"><interface network="boot" address="10.77.0.1"/></server>
  <server name="is01" roles="image"><interface network="boot" address="10.77.0.2"/></server>
  <server name="is02" roles="image" dhcp="off"><interface network="boot" address="10.77.0.3"/></server>
  <taxonomy><level name="rack" from="1" to="2"/><level name="node" from="1" to="3"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/dim/masters/compute"/>
  <nodes name="r{rack}n{node}" each="rack node" image="compute" servers="is01">
    <interface name="eth0" network="boot" address="10.77.0.{rack*10+node}"/>
  </nodes>
</cluster>
`

// bareMachine is a machine without a guest: a network with one card and Debian's client of DHCP.
type bareMachine struct {
	*netns.Host
	t   *testing.T
	mac string
}

func (l *levels) bareMachine(name, mac string) *bareMachine {
	l.t.Helper()
	m := &bareMachine{l.host(name), l.t, mac}
	testkit.Must(l.t, m.Command(l.t.Context(), "ip", "link", "set", "eth0", "address", mac).Run())
	return m
}

// ask asks for an address, and returns what the machine was given as words of a shell. It asks for up to so many
// seconds.
func (m *bareMachine) ask(seconds string, args ...string) (string, error) {
	m.t.Helper()
	script := filepath.Join(m.t.TempDir(), "script")
	testkit.Must(m.t, os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && set\n"), 0o755))
	args = append([]string{"udhcpc", "-f", "-q", "-n", "-t", seconds, "-T", "1", "-s", script, "-i", "eth0"}, args...)
	out, err := m.Command(m.t.Context(), "busybox", args...).CombinedOutput()
	return string(out), err
}

// isListed waits until a server lists the machine among those that ask in vain.
func (m *bareMachine) isListed(l *levels, server string) {
	m.t.Helper()
	testkit.Eventually(m.t, m.mac+" is listed by "+server, func() bool {
		var list []control.Machine
		err := l.servers[server].DimJSON(m.t.Context(), &list, "node", "unknown")
		return err == nil && slices.ContainsFunc(list, func(x control.Machine) bool { return x.MAC == m.mac })
	})
}

// isGiven checks that the machine is given an address by is01, which may not have the newest description yet.
func (m *bareMachine) isGiven(address string) {
	m.t.Helper()
	var out string
	testkit.Eventually(m.t, m.mac+" is given "+address, func() bool {
		out, _ = m.ask("3")
		return strings.Contains(out, "ip='"+address+"'")
	})
	if !strings.Contains(out, "serverid='10.77.0.2'") {
		m.t.Errorf("%s was given\n%s", m.mac, out)
	}
}

// macs returns the MACs of nodes as a server has them.
func (l *levels) macs(server string, nodes ...string) (list []string) {
	l.t.Helper()
	for _, name := range nodes {
		var n control.Node
		testkit.Must(l.t, l.servers[server].DimJSON(l.t.Context(), &n, "node", "show", name))
		list = append(list, n.MAC)
	}
	return list
}

// The machines of a rack ask its image server, in the order in which they are switched on. The head binds them in this
// order, and other descriptions keep that.
func TestARackIsLearnedInTheOrderOfItsMachines(t *testing.T) {
	needLab(t)
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Fatal(err)
	}
	master := filepath.Join(t.TempDir(), "master")
	tree(t, master, map[string]string{"etc/motd": "one\n"})
	l := newLevels(t, master, rackOfIS01, "600m")
	macs := []string{"52:54:00:aa:00:03", "52:54:00:aa:00:01", "52:54:00:aa:00:02"}
	nodes := []string{"r2n1", "r2n2", "r2n3"}
	var machines []*bareMachine
	for i, mac := range macs {
		m := l.bareMachine("m"+nodes[i], mac)
		if out, err := m.ask("2"); err == nil {
			t.Fatalf("an unknown machine was given an address:\n%s", out)
		}
		m.isListed(l, "head")
		machines = append(machines, m)
	}
	const within = "--within=1h"
	if out := l.dim("head", "node", "learn", "rack2", "--in-order", within, "--dry-run"); !inOrder(out, macs) {
		t.Errorf("the preview is\n%s", out)
	}
	machines[0].isListed(l, "head") // a preview binds nothing
	out := l.dim("head", "node", "learn", "rack2", "--in-order", within, "--yes")
	if !inOrder(out, macs) || !inOrder(out, nodes) {
		t.Errorf("bound:\n%s", out)
	}
	for i, m := range machines {
		m.isGiven("10.77.0.2" + nodes[i][3:])
	}

	// Another description does not change what was learned, nor do restarts.
	xml := filepath.Join(t.TempDir(), "next.xml")
	text := strings.Replace(rackOfIS01, `arch="amd64" `, `arch="amd64" push="on" `, 1)
	testkit.Must(t, os.WriteFile(xml, []byte(text), 0o600))
	l.dim("head", "cluster", "apply", xml)
	for _, server := range []string{"head", "is01"} {
		l.servers[server].Kill()
		l.start(server)
	}
	if got := l.macs("head", nodes...); !slices.Equal(got, macs) {
		t.Errorf("after another description the head has the MACs %v", got)
	}
	machines[1].isGiven("10.77.0.22")

	// A blade is swapped. The image server, which its machine asks, changes nothing itself.
	spare := l.bareMachine("spare", "52:54:00:aa:00:09")
	if out, err := spare.ask("2"); err == nil {
		t.Fatalf("an unknown machine was given an address:\n%s", out)
	}
	for _, server := range []string{"is01", "head"} {
		spare.isListed(l, server)
	}
	out, err := l.servers["is01"].Dim(t.Context(), "node", "rebind", "r2n2", "--yes")
	if err == nil || !strings.Contains(err.Error(), "run the command on head") {
		t.Errorf("an image server binds: %v\n%s", err, out)
	}
	l.dim("head", "node", "rebind", "r2n2", "--yes")
	if got := l.macs("head", "r2n2"); got[0] != spare.mac {
		t.Errorf("the head has the MAC %v of r2n2", got)
	}
	spare.isGiven("10.77.0.22")
	if log := l.dim("head", "cluster", "log"); !strings.Contains(log, "node rebind") {
		t.Errorf("the log of the head:\n%s", log)
	}
}

// inOrder reports whether a text has all of parts in their order.
func inOrder(text string, parts []string) bool {
	for _, part := range parts {
		_, after, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = after
	}
	return true
}
