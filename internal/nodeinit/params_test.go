package nodeinit

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// full is the example of docs/reference/kernel-parameters.md.
const full = `initrd=initramfs BOOTIF=01-52-54-00-4d-00-01 dim.node=n01 dim.server=10.77.0.1 ` +
	`dim.nfs=10.77.0.1:2049:/nodes/n01 dim.http=10.77.0.1:80 dim.if=eth0 fstab=no quiet console=ttyS0`

func compare(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func fullParams() params {
	return params{
		BootMAC: net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 1}, Node: "n01", Server: netip.MustParseAddr("10.77.0.1"),
		Root:      export{Server: netip.MustParseAddrPort("10.77.0.1:2049"), Path: "/nodes/n01"},
		HTTP:      netip.MustParseAddrPort("10.77.0.1:80"),
		Interface: "eth0",
	}
}

func TestParseParams(t *testing.T) {
	got, problems := parseParams(full)
	compare(t, fullParams(), got)
	compare(t, []string(nil), problems)
}

func TestTheLastOfSeveralWordsCounts(t *testing.T) {
	got, _ := parseParams(full + ` dim.node=n02 ro rw ro init="/opt/my init" dim.mount=actimeo=30,rsize=8192 ` +
		`dim.mtu=9000 dim.debug dim.push virtio-net.napi_tx=0 modprobe.blacklist=tg3,bnx2 ` +
		`dim.ip6=2001:db8::1/64 dim.gw6=2001:db8::fe -- dim.node=n03`)
	want := fullParams()
	want.Node, want.ReadOnly, want.Init, want.MTU, want.Debug = "n02", true, "/opt/my init", 9000, true
	want.IPv6, want.Router6 = netip.MustParsePrefix("2001:db8::1/64"), netip.MustParseAddr("2001:db8::fe")
	want.Mount, want.Push = "actimeo=30,rsize=8192", true
	want.ModuleOptions = map[string][]string{"virtio_net": {"napi_tx=0"}}
	want.Blacklist = []string{"tg3", "bnx2"}
	compare(t, want, got)
}

func TestAnInvalidWordIsAProblemAndIgnored(t *testing.T) {
	for _, word := range []string{
		"BOOTIF=01-52-54", "dim.server=head", "dim.nfs=10.77.0.1:/nodes/n01", "dim.nfs=10.77.0.1:2049:nodes",
		"dim.nfs=10.77.0.1:2049:/a,b", "dim.http=80", "dim.if=a/b", "dim.if=sixteenletterslong", "dim.mtu=12",
		"dim.ip6=10.77.0.1/24", "dim.ip6=2001:db8::1", "dim.gw6=router",
	} {
		p, problems := parseParams(word)
		if len(problems) != 1 || !strings.Contains(problems[0], word) {
			t.Errorf("%s: problems %q", word, problems)
		}
		compare(t, params{}, p)
	}
}

func TestMountOptionsAreThoseOfTheReference(t *testing.T) {
	p := fullParams()
	p.Mount = "actimeo=30"
	want := "vers=3,proto=tcp,mountproto=tcp,nolock,hard,actimeo=3,nocto," +
		"port=2049,mountport=2049,addr=10.77.0.1,actimeo=30"
	compare(t, want, p.mountData(pollTime))
	compare(t, strings.Replace(want, "actimeo=3,", "actimeo=3600,", 1), p.mountData(pushTime))
	compare(t, "10.77.0.1:/nodes/n01", p.mountSource())
}

func TestFillKeepsWhatIsSet(t *testing.T) {
	words, _ := parseParams("dim.node=other " + full)
	p := params{Node: "mine"}
	p.fill(words)
	want := fullParams()
	want.Node, want.BootMAC = "mine", nil
	compare(t, want, p)
}

func FuzzParseParams(f *testing.F) {
	f.Add(full)
	f.Add(`a="b c" "--" dim.nfs=[::1]:1:/x init=`)
	f.Fuzz(func(t *testing.T, line string) {
		p, _ := parseParams(line)
		if p.BootMAC != nil && len(p.BootMAC) != 6 {
			t.Errorf("boot card %v", p.BootMAC)
		}
		if p.Root.Path != "" && (p.Root.Path[0] != '/' || !p.Root.Server.IsValid()) {
			t.Errorf("root %+v", p.Root)
		}
		if strings.Contains(p.Root.Path, ",") {
			t.Errorf("the path %q would become mount options", p.Root.Path)
		}
	})
}
