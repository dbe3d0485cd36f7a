package daemon

import (
	"os/exec"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
)

// unknownMachine returns the machine that asks with a MAC, after it was listed.
func (s *site) unknownMachine(mac string) (m control.Machine) {
	s.t.Helper()
	testkit.Eventually(s.t, mac+" is listed", func() bool {
		list, err := s.client().Machines(s.t.Context())
		for _, x := range list {
			if x.MAC == mac {
				m = x
			}
		}
		return err == nil && m.MAC != ""
	})
	return m
}

// A real client of DHCP asks in vain, is bound to a node, and is given the node's address.
func TestAMachineThatAsksBecomesANode(t *testing.T) {
	testkit.NeedProgram(t, "busybox")
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.describe(`<node name="spare" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.90"/>
  </node>
`, `dhcp="off" `, "", "127.0.0.0/8", "10.77.0.0/24", `"127.0.0.{`, `"10.77.0.{`)
	s.start()
	const first, second = "52:54:00:aa:00:01", "52:54:00:aa:00:02"
	ns := machineAt(t, "new", "link set cli address "+first)
	ask := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), "ip", "netns", "exec", ns, "busybox", "udhcpc", "-f", "-q", "-n",
			"-t", "2", "-T", "1", "-s", "/bin/true", "-i", "cli").CombinedOutput()
		return string(out), err
	}
	if out, err := ask(); err == nil {
		t.Fatalf("an unknown machine was given an address:\n%s", out)
	}
	m := s.unknownMachine(first)
	if m.Network != "boot" || m.Server != "head" {
		t.Errorf("the machine is listed as %+v", m)
	}
	done, err := s.client().Learn(t.Context(), control.LearnRequest{
		Mode: control.LearnFree, Machines: []control.Machine{m},
	})
	testkit.Must(t, err)
	if len(done.Bound) != 1 || done.Bound[0].Node != "spare" {
		t.Fatalf("bound: %+v", done)
	}
	if got := udhcpc(t, ns); !strings.Contains(got, "ip='10.77.0.90'") {
		t.Errorf("the machine was given\n%s", got)
	}

	ip(t, "-n "+ns+" link set cli down")
	ip(t, "-n "+ns+" link set cli address "+second)
	ip(t, "-n "+ns+" link set cli up")
	_, err = s.client().Learn(t.Context(), control.LearnRequest{
		Mode: control.LearnRebind, Nodes: "spare", Machines: []control.Machine{{MAC: second}},
	})
	testkit.Must(t, err)
	if got := udhcpc(t, ns); !strings.Contains(got, "ip='10.77.0.90'") {
		t.Errorf("the machine in its place was given\n%s", got)
	}
}

// A real client of DHCP asks from a MAC that is almost that of n04, and then from n04's.
func TestTheMACFromWhichANodeAsksIsNamed(t *testing.T) {
	testkit.NeedProgram(t, "busybox")
	if !inNetwork(t) {
		return
	}
	s := newNetworkSite(t)
	s.start()
	const wrong = "52:54:00:4d:00:05"
	ns := machineAt(t, "why", "link set cli address "+wrong)
	_ = exec.CommandContext(t.Context(), "ip", "netns", "exec", ns, "busybox", "udhcpc", "-f", "-q", "-n",
		"-t", "2", "-T", "1", "-s", "/bin/true", "-i", "cli").Run() // in vain
	s.unknownMachine(wrong)
	why := testkit.Value(s.client().NodeBoots(t.Context(), "n04"))(t)
	want := "a machine asks by DHCP from 52:54:00:4d:00:05, which is not in the description; " +
		"closest is eth0 of n04, 52:54:00:4d:00:04"
	if why.Finding != want || why.Well || len(why.Boots) != 0 {
		t.Errorf("%+v", why)
	}
	other := testkit.Value(s.client().NodeBoots(t.Context(), "n03"))(t)
	if strings.Contains(other.Finding, wrong) {
		t.Errorf("n03: %+v", other)
	}
	ip(t, "-n "+ns+" link set cli down")
	ip(t, "-n "+ns+" link set cli address 52:54:00:4d:00:04")
	ip(t, "-n "+ns+" link set cli up")
	if got := udhcpc(t, ns, "-V", "PXEClient:Arch:00000:UNDI:002001"); !strings.Contains(got, "ip='10.77.0.14'") {
		t.Errorf("the machine was given\n%s", got)
	}
	why = testkit.Value(s.client().NodeBoots(t.Context(), "n04"))(t)
	if strings.Contains(why.Finding, wrong) || len(why.Boots) != 1 || why.Boots[0].Ran ||
		why.Boots[0].Steps[0].Stage != "dhcp" {
		t.Errorf("%+v", why)
	}
}
