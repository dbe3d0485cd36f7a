package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/testkit"
)

// payloads is a kernel and an initramfs in memory, or the error that there is none. It reports the beginning of a boot,
// as it must.
type payloads struct {
	*progress
	kernel, initramfs []byte
	words             []string
	err               error
	begun             int
}

func (p *payloads) Begin(ctx context.Context, n *cluster.Node, e boot.Event) (Payload, error) {
	p.begun++
	if p.err == nil {
		p.Report(n.Name, e)
	}
	return p.Current(ctx, n)
}

func (p *payloads) Current(context.Context, *cluster.Node) (Payload, error) {
	return Payload{asset(p.kernel), asset(p.initramfs), p.words}, p.err
}

type memFile struct{ *bytes.Reader }

func (memFile) Close() error { return nil }

func asset(b []byte) Asset {
	return Asset{
		Digest: image.Sum(b), Size: int64(len(b)),
		Open: func() (File, error) { return memFile{bytes.NewReader(b)}, nil },
	}
}

// progress keeps the events of each node as they came.
type progress struct {
	events  map[cluster.NodeName][]boot.Event
	refused map[cluster.NodeName]boot.Refusal
}

func (p *progress) Report(node cluster.NodeName, e boot.Event) {
	p.events[node] = append(p.events[node], e)
}

func (p *progress) Refused(node cluster.NodeName, what boot.Refusal) bool {
	first := p.refused[node] != what
	p.refused[node] = what
	return first
}

func (p *progress) Stage(node cluster.NodeName) boot.Stage {
	if list := p.events[node]; len(list) > 0 {
		return list[len(list)-1].Stage
	}
	return ""
}

func (p *progress) Boots(_ context.Context, n *cluster.Node) bool {
	return p.Stage(n.Name) != boot.StageRunning
}

// fixture is one server of ../testdata/cluster.xml.
type fixture struct {
	*Server
	*payloads
	cluster *cluster.Cluster
}

func newFixture(t testing.TB, server cluster.ServerName) *fixture {
	t.Helper()
	c := testkit.Value(cluster.Load("../testdata/cluster.xml"))(t)
	kept := &progress{
		events: map[cluster.NodeName][]boot.Event{}, refused: map[cluster.NodeName]boot.Refusal{},
	}
	f := &fixture{
		cluster: c, payloads: &payloads{progress: kept, kernel: []byte("a kernel"), initramfs: []byte("an initramfs")},
	}
	loaders := LoadersIn(newLoaders(t))
	f.Server = New(Options{
		Policy: &boot.Policy{Server: server, Cluster: func() *cluster.Cluster { return c }, HasLoader: loaders.Has,
			Closed: func() error { return nil }},
		Payloads: f.payloads, Progress: kept, Loaders: loaders, Log: slog.New(slog.DiscardHandler),
	})
	return f
}

// newLoaders makes a directory with loaders and another file. One loader is a link out of it, as in Debian's package.
func newLoaders(t testing.TB) string {
	t.Helper()
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "ipxe.efi")
	for _, name := range []string{"undionly.kpxe", "snponly.efi", "secret"} {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, name), []byte("this is "+name), 0o644))
	}
	testkit.Must(t,
		os.WriteFile(elsewhere, []byte("this is ipxe.efi"), 0o644),
		os.Symlink(elsewhere, filepath.Join(dir, "ipxe.efi")))
	return dir
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// stage returns a node's last event, as "stage detail" or "stage! error".
func (f *fixture) stage(node cluster.NodeName) string {
	list := f.events[node]
	if len(list) == 0 {
		return ""
	}
	e := list[len(list)-1]
	if e.Error != "" {
		return string(e.Stage) + "! " + e.Error
	}
	return strings.TrimSpace(string(e.Stage) + " " + e.Detail)
}

var errNoVersion = errors.New("image compute has no version yet: capture it with dim image capture compute")

func TestDHCPIsReported(t *testing.T) {
	f := newFixture(t, "is1")
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 1}
	pxe := boot.Client{MAC: mac, VendorClass: "PXEClient:Arch:00000:UNDI:002001"}
	l, err := f.DHCP(pxe)
	if err != nil || l.BootFile != "undionly.kpxe" || f.stage("n01") != "dhcp PXE, BIOS" {
		t.Errorf("%+v, %v; stage %q", l, err, f.stage("n01"))
	}
	if _, err := f.DHCP(boot.Client{MAC: mac}); err != nil || len(f.events["n01"]) != 1 {
		t.Errorf("a client that does not boot: %v, events %+v", err, f.events)
	}
	if _, err := f.DHCP(boot.Client{MAC: net.HardwareAddr{0, 0, 0, 0, 0, 9}}); !errors.Is(err, boot.ErrUnknown) {
		t.Errorf("an unknown client: %v", err)
	}
}

func TestADeclinedAddressIsReportedUnlessTheNodeRuns(t *testing.T) {
	f := newFixture(t, "is1")
	declined := boot.Client{MAC: net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 1}, Declined: true}
	const want = "dhcp! another machine uses 10.77.0.11"
	if _, err := f.DHCP(declined); err != nil || f.stage("n01") != want {
		t.Errorf("stage %q, %v; want %q", f.stage("n01"), err, want)
	}
	f.Progress.Report("n01", boot.Event{Stage: boot.StageRunning})
	if _, err := f.DHCP(declined); err != nil || f.stage("n01") != "running" {
		t.Errorf("a node that runs: stage %q, %v", f.stage("n01"), err)
	}
}

func TestWhatANodeDoesNotGetLeavesAReason(t *testing.T) {
	f := newFixture(t, "is1")
	mac, client := net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, 0x81}, netip.MustParseAddrPort("10.77.0.11:2070")
	for _, tt := range []struct {
		name string
		ask  func()
		node cluster.NodeName
		want boot.Refusal
	}{
		{"DHCP", func() { f.Unanswered(mac, boot.Refusal{Text: "it asks by BOOTP"}, netip.Addr{}) },
			"n01", boot.Refusal{Text: "DHCP by eth1: it asks by BOOTP"}},
		{"the offer of another DHCP server", func() { f.Unanswered(mac, boot.Refusal{Text: "x"}, addr("10.77.0.254")) },
			"n01", boot.Refusal{Text: "DHCP by eth1: x"}},
		{"the offer of another server of the cluster",
			func() { f.Unanswered(mac, boot.Refusal{Text: "x"}, addr("10.77.0.2")) },
			"n01", boot.Refusal{Text: "DHCP by eth1: x", Expected: true}},
		{"a file by TFTP", func() { _, _ = f.OpenTFTP(t.Context(), client, "grubx64.efi") },
			"n01", boot.Refusal{Text: `TFTP: open loader "grubx64.efi": file does not exist`, Expected: true}},
		{"a file by HTTP", func() { f.call("GET", "/boot/loader/grubx64.efi", "10.77.0.11", "") },
			"n01", boot.Refusal{Text: `HTTP: open loader "grubx64.efi": file does not exist`, Expected: true}},
		{"a node of another server", func() { f.call("GET", "/boot/ipxe", "10.77.0.12", "") },
			"n02", boot.Refusal{
				Text:     "HTTP: is2 serves n02: this server does not, because it does not have the node's layer",
				Expected: true, NotMine: true,
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clear(f.progress.refused)
			tt.ask()
			want := map[cluster.NodeName]boot.Refusal{tt.node: tt.want}
			if d := cmp.Diff(want, f.progress.refused); d != "" {
				t.Error(d)
			}
		})
	}
	if f.Unanswered(net.HardwareAddr{0, 0, 0, 0, 0, 9}, boot.Refusal{}, netip.Addr{}) {
		t.Error("an unknown client is a declared node")
	}
}

func TestLoadersAreFoundWhereTheyAre(t *testing.T) {
	dir := t.TempDir()
	if l := LoadersIn(dir); l.Dir() != dir || l.Any() {
		t.Errorf("in an empty directory: %s, %v", l.Dir(), l.Any())
	}
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "undionly.kpxe"), []byte("a loader"), 0o644))
	if !LoadersIn(dir).Any() {
		t.Error("a loader is not found")
	}
}

func TestANodeThatDoesNotWaitForItsAnswerIsReported(t *testing.T) {
	f := newFixture(t, "is1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.err = fmt.Errorf("boot compute@1: %w", ctx.Err())
	if _, err := f.OpenTFTP(ctx, netip.AddrPortFrom(addr("10.77.0.11"), 2070), "pxelinux.cfg/default"); err == nil {
		t.Error("it gets an answer")
	}
	list := f.events["n01"]
	if len(list) == 0 || !strings.Contains(list[len(list)-1].Error, "its request ended before the answer was ready") {
		t.Errorf("its boot: %+v", list)
	}
}
