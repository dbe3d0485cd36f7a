package nodeinit

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"dim/internal/testkit"
)

func TestAConfiguredCardAloneAnswersForItsAddress(t *testing.T) {
	testkit.InNetwork(t, []string{"link add eth0 type veth peer name eth1"}, func() {
		k := &kernel{}
		if err := k.Configure("eth0", lease{Address: netip.MustParsePrefix("10.77.0.12/24")}, 0); err != nil {
			t.Errorf("configure: %v", err)
		}
		for _, s := range strictARP {
			b, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/" + s.name)
			if got := strings.TrimSpace(string(b)); err != nil || got != s.value {
				t.Errorf("%s is %q, %v; want %s", s.name, got, err, s.value)
			}
		}
	})
}

// The address and the route are set, also when the program has executed itself anew and finds them there.
func TestACardGetsAnIPv6Address(t *testing.T) {
	cards := []string{"link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up"}
	testkit.InNetwork(t, cards, func() {
		k := &kernel{}
		at, router := netip.MustParsePrefix("2001:db8:77::11/64"), netip.MustParseAddr("2001:db8:77::fe")
		for range 2 {
			if err := k.AddIPv6("eth0", at, router); err != nil {
				t.Errorf("add IPv6 address: %v", err)
			}
		}
		for show, want := range map[string]string{
			"address show dev eth0": "inet6 2001:db8:77::11/64 scope global",
			"route show default":    "default via 2001:db8:77::fe dev eth0",
		} {
			out, err := exec.Command("ip", append([]string{"-6"}, strings.Fields(show)...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("ip -6 %s: no %q: %v\n%s", show, want, err, out)
			}
		}
	})
}
