package nodeinit

import (
	"net/netip"
	"os"
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
