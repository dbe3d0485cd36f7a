package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dim/internal/boot"
	"dim/internal/control"
	"dim/internal/liveness"
	"dim/internal/testkit"
)

// web makes an HTTP request from an address.
func (s *site) web(from, method, path, body string) (int, string) {
	s.t.Helper()
	dial := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: dial.DialContext}
	req, err := http.NewRequestWithContext(context.Background(), method,
		fmt.Sprintf("http://%s:%d%s", s.addr, s.ports[1], path), strings.NewReader(body))
	testkit.Must(s.t, err)
	resp, err := (&http.Client{Transport: tr}).Do(req)
	testkit.Must(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.Must(s.t, err)
	return resp.StatusCode, string(text)
}

var assetPattern = regexp.MustCompile(`/boot/(?:kernel|initramfs)/[0-9a-f]+`)

// bootable makes a master that has a kernel, another one in each version.
func bootable(s *site, version string) {
	s.t.Helper()
	testkit.Must(s.t, os.WriteFile(filepath.Join(s.data, "dim-init-amd64"), []byte("an init"), 0o600))
	s.put("boot/vmlinuz-6.1.0-1-amd64", "kernel "+version)
	s.put("lib/modules/6.1.0-1-amd64/modules.dep", "")
	s.put("lib/modules/6.1.0-1-amd64/modules.builtin",
		"kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\nkernel/version"+version+".ko\n")
	s.put("etc/motd", version+"\n")
	s.captureWith(control.CaptureRequest{Image: "compute"})
}

// script lets a node begin to boot, and returns what it is to fetch.
func (s *site) script(from string) []string {
	s.t.Helper()
	_, text := s.web(from, "GET", "/boot/ipxe", "")
	assets := assetPattern.FindAllString(text, -1)
	if len(assets) != 2 {
		s.t.Fatalf("the boot script: %s", text)
	}
	return assets
}

func TestARolloutForTheNextBootWaitsForIt(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	bootable(s, "1")
	bootable(s, "2")
	r := rollOut(s, control.RolloutRequest{Nodes: "n[01-02]", Version: "compute", When: "boot"})
	if got := motds(s); got != "1111" || r.State != "running" || r.States[0].Verdict != "changes when it boots" {
		t.Errorf("nodes read %s: %+v", got, r)
	}
	s.web("127.0.0.1", "GET", "/boot/ipxe?node=n01", "") // a request of an administrator
	if got := motds(s); got != "1111" {
		t.Errorf("nodes read %s", got)
	}
	assets := s.script("127.0.0.11")
	if got := motds(s); got != "2111" {
		t.Errorf("when n01 boots nodes read %s", got)
	}
	if code, text := s.web("127.0.0.11", "GET", assets[0], ""); code != 200 || text != "kernel 2" {
		t.Errorf("its kernel: %d %s", code, text)
	}
	testkit.Must(t, s.stop()) // perhaps before it is in the shared state
	s.start()
	if got := motds(s); got != "2111" {
		t.Errorf("after a restart nodes read %s", got)
	}
	testkit.Eventually(t, "it is in the shared state", func() bool {
		n, err := s.client().Node(t.Context(), "n01")
		testkit.Must(t, err)
		return n.Next == "" && n.Wanted == "compute@2"
	})
	changeRollout(s, 1, "undo")
	if n, err := s.client().Node(t.Context(), "n02"); err != nil || n.Next != "" {
		t.Errorf("n02 is to boot %q, %v", n.Next, err)
	}
	if got := motds(s); got != "2111" {
		t.Errorf("after an undo for the next boot nodes read %s", got)
	}
	s.script("127.0.0.11")
	if got := motds(s); got != "1111" {
		t.Errorf("when n01 boots again nodes read %s", got)
	}
}

func TestANodeThatBootsKeepsTheVersionOfItsKernel(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	bootable(s, "1")
	bootable(s, "2")
	assets := s.script("127.0.0.12")
	r := rollOut(s, control.RolloutRequest{Version: "compute", When: "now"})
	if got := motdOf(s, "n01") + motdOf(s, "n02"); got != "21" {
		t.Errorf("while n02 boots n01 and n02 read %s", got)
	}
	if got := r.States[1].Verdict; got != "changes when its boot with compute@1 is over" {
		t.Errorf("n02: %s", got)
	}
	testkit.Must(t, s.stop())
	s.start()
	if got := motdOf(s, "n01") + motdOf(s, "n02"); got != "21" {
		t.Errorf("after a restart n01 and n02 read %s", got)
	}
	for i, want := range []string{"kernel 1", ""} {
		if code, text := s.web("127.0.0.12", "GET", assets[i], ""); code != 200 || want != "" && text != want {
			t.Errorf("%s: %d %.20s", assets[i], code, text)
		}
	}
	for _, stage := range []string{"mount", "handover"} {
		if got := motdOf(s, "n02"); got != "1" {
			t.Errorf("before %s n02 reads %s", stage, got)
		}
		if code, text := s.web("127.0.0.12", "POST", "/boot/stage", `{"stage":"`+stage+`"}`); code != 204 {
			t.Errorf("report of %s: %d %s", stage, code, text)
		}
	}
	testkit.Eventually(t, "n02 runs, and its replica is switched", func() bool { return motdOf(s, "n02") == "2" })

	// A node whose boot ended in the middle begins another one.
	s.script("127.0.0.13")
	bootable(s, "3")
	rollOut(s, control.RolloutRequest{Version: "compute", When: "now"})
	if got := motdOf(s, "n03"); got != "2" {
		t.Errorf("n03 reads %s", got)
	}
	if _, text := s.web("127.0.0.13", "GET", s.script("127.0.0.13")[0], ""); text != "kernel 3" ||
		motdOf(s, "n03") != "3" {
		t.Errorf("n03 boots %q and reads %s", text, motdOf(s, "n03"))
	}
}

func TestTheStartOfABootIsDurableBeforeTheNodeIsAnswered(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	bootable(s, "1")
	s.script("127.0.0.12")
	b, err := os.ReadFile(layout(s.data).boots()) // as it is when the server is killed now
	testkit.Must(t, err)
	path := filepath.Join(t.TempDir(), "boots.log")
	testkit.Must(t, os.WriteFile(path, b, 0o600))
	nodes, err := liveness.Open(path, nil, slog.New(slog.DiscardHandler))
	testkit.Must(t, err)
	if got := nodes.Stage("n02"); got != boot.StageScript {
		t.Errorf("n02 is in the stage %q", got)
	}
	testkit.Must(t, nodes.Close())
}

// motdOf is the first character of what a node reads.
func motdOf(s *site, node string) string {
	s.t.Helper()
	return readAs(s, node, "etc/motd")[:1]
}

// readAs reads a file as a node does. The node ends its connection, as if it were switched off then.
func readAs(s *site, node, path string) string {
	s.t.Helper()
	c := s.nfs("127.0.0.1"+node[2:], 0)
	defer c.Close()
	tree, err := c.Tree("/nodes/" + node)
	testkit.Must(s.t, err)
	return read(s.t, tree, path)
}

// A user of a node that runs has its address, and another machine can send DHCP and TFTP packets in its name. Neither
// makes the server believe that the node boots.
func TestANodeThatRunsIsNotMadeToBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	bootable(s, "1")
	bootable(s, "2")
	rollOut(s, control.RolloutRequest{Nodes: "n01", Version: "compute", When: "boot"})
	c := s.nfs("127.0.0.11", 1023)
	tree, err := c.Tree("/nodes/n01")
	testkit.Must(t, err)
	if got := read(t, tree, "etc/motd"); got != "1\n" {
		t.Fatalf("n01 reads %q", got)
	}
	testkit.Must(t, s.stop()) // what is known so far is saved
	s.start()
	c = s.nfs("127.0.0.11", 1023)
	tree, err = c.Tree("/nodes/n01")
	testkit.Must(t, err)
	if got := read(t, tree, "etc/motd"); got != "1\n" {
		t.Fatalf("n01 reads %q", got)
	}
	saved := testkit.Value(os.ReadFile(layout(s.data).boots()))(t)
	for range 3 {
		if assets := s.script("127.0.0.11"); len(assets) != 2 {
			t.Errorf("%d assets", len(assets))
		}
	}
	n, err := s.client().Node(t.Context(), "n01")
	testkit.Must(t, err)
	if got := read(t, tree, "etc/motd"); n.Stage != string(boot.StageRunning) || got != "1\n" {
		t.Errorf("n01 is in the stage %q and reads %q", n.Stage, got)
	}
	if now := testkit.Value(os.ReadFile(layout(s.data).boots()))(t); string(now) != string(saved) {
		t.Errorf("the journal of boots grew:\n%s", now[len(saved):])
	}
	testkit.Must(t, c.Close()) // it is switched off, and boots
	s.script("127.0.0.11")
	if got := motdOf(s, "n01"); got != "2" {
		t.Errorf("after its boot n01 reads %s", got)
	}
}

// The server waits for an address that no interface has.
func TestCommandsSayThatTheDaemonIsStarting(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.79")
	s.describe(`<network name="lab" subnet="192.0.2.0/24"/>`, `address="127.0.0.79"/>`,
		`address="127.0.0.79"/><interface network="lab" address="192.0.2.79"/>`)
	s.launch()
	testkit.Eventually(t, "a command says so", func() bool {
		_, err := s.client().Status(t.Context())
		e, ok := errors.AsType[*control.Error](err)
		return ok && e.Code == control.Unavailable && strings.Contains(e.Message, "the daemon is starting")
	})
	if err := s.stop(); err != nil {
		t.Errorf("the server ended: %v", err)
	}
}
