package nodeinit

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/testkit"
)

func TestAConfiguredCardAloneAnswersForItsAddress(t *testing.T) {
	testkit.NeedRoot(t, "it makes a network namespace")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine, because it is in another namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		add := exec.Command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
		if out, err := add.CombinedOutput(); err != nil {
			t.Errorf("make cards: %v: %s", err, out)
			return
		}
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
	}()
	<-done
}
