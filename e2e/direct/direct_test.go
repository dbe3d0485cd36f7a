// Package direct boots a guest from a plain directory, without firmware and without the dim server: it tests the
// initramfs, dim-init and the NFS server together.
package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/dhcp"
	"dim/internal/initramfs"
	"dim/internal/lab"
	"dim/internal/lab/netns"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
)

const (
	directMAC  = "52:54:00:4d:00:01"
	directAddr = "10.78.0.11"
)

// oneTree exports a directory to every client.
type oneTree struct{ fs vfs.FS }

func (o oneTree) Client(nfs.Peer) (nfs.Client, error) { return o, nil }
func (o oneTree) Current() bool                       { return true }

func (o oneTree) Mount(_ context.Context, path string) (vfs.FS, error) {
	if path != "/nodes/n01" {
		return nil, vfs.ENOENT
	}
	return o.fs, nil
}

func (o oneTree) Find(vfs.Handle) (nfs.Export, error) { return nfs.Export{FS: o.fs}, nil }
func (o oneTree) Paths() []string                     { return []string{"/nodes/n01"} }

// installed returns a copy of DIM_LAB_MASTER, which the test may change.
func installed(t *testing.T) string {
	t.Helper()
	have := os.Getenv("DIM_LAB_MASTER")
	if have == "" || os.Getuid() != 0 {
		t.Skip(
			"needs root, DIM_LAB_MASTER and a minute or two: it boots a guest from a copy of the installed root there")
	}
	dir := os.Getenv("DIM_LAB_COPY") // a copy that is kept between runs
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "root")
	}
	if _, err := os.Stat(dir); err != nil {
		if out, err := exec.Command("cp", "-a", "--reflink=auto", have, dir).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", have, err, out)
		}
	}
	return dir
}

// buildInit builds dim-init with the release's options.
func buildInit(t *testing.T) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "dim-init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "dim/cmd/dim-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build dim-init: %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("dim-init: %d bytes", len(b))
	return b
}

// serveNode starts NFS, DHCP and a receiver of reports in the network. The first unanswered DHCP messages get no reply;
// if there are any, NFS starts as many seconds after the first reply.
func serveNode(t *testing.T, n *netns.Net, root string, unanswered int) {
	t.Helper()
	answered := make(chan struct{})
	once := sync.OnceFunc(func() { close(answered) })
	if unanswered == 0 {
		once()
	}
	delay := time.Duration(unanswered) * time.Second
	tree, err := dirfs.Open(root, dirfs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	httpLn, err := n.Listen("tcp", "10.78.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := n.ListenPacket("udp4", "0.0.0.0:67")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	rpc := oncrpc.NewServer(oncrpc.Options{}, nfs.New(oneTree{tree}, nfs.Options{Log: log}).Programs()...)
	answers := &dhcp.Server{Log: log, Answer: func(r *dhcp.Request) (dhcp.Lease, error) {
		if r.MAC.String() != directMAC {
			return dhcp.Lease{}, errors.New("not the guest")
		}
		if unanswered--; unanswered >= 0 {
			return dhcp.Lease{}, errors.New("not yet")
		}
		once()
		return dhcp.Lease{
			Address: netip.MustParseAddr(directAddr), Subnet: netip.MustParsePrefix("10.78.0.0/24"),
			Server: netip.MustParseAddr("10.78.0.1"), Router: netip.MustParseAddr("10.78.0.1"), HostName: "n01",
		}, nil
	}}
	reports := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
		t.Logf("report: %s", strings.TrimSpace(string(b)))
		w.WriteHeader(http.StatusNoContent)
	})
	web := &http.Server{Handler: reports}
	go func() {
		<-answered
		time.Sleep(delay)
		ln, err := n.Listen("tcp", "10.78.0.1:2049")
		if err != nil {
			return
		}
		defer ln.Close()
		_ = rpc.Serve(t.Context(), ln)
	}()
	go func() { _ = answers.Serve(t.Context(), udp) }()
	go func() { _ = web.Serve(httpLn) }()
	t.Cleanup(func() {
		_ = web.Close()
		_ = udp.Close()
	})
}

// setup is a network with servers, and the files from which guests boot.
type setup struct {
	net            *netns.Net
	ssh            *lab.SSH
	root, work     string
	kernel, initrd string
}

func newSetup(t *testing.T, unanswered int) *setup {
	t.Helper()
	s := &setup{root: installed(t), work: t.TempDir()}
	if keep := os.Getenv("DIM_LAB_OUT"); keep != "" {
		s.work = keep
	}
	var err error
	if s.net, err = netns.New("dimirfs0", netip.MustParsePrefix("10.78.0.1/24")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.net.Close() })
	var key string
	if s.ssh, key, err = lab.NewSSH(s.net, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	write(t, s.root, "root/.ssh/authorized_keys", key+"\n")
	write(t, s.root, "etc/hostname", "n01\n")
	s.kernel, s.initrd = files(t, s.root, s.work)
	serveNode(t, s.net, s.root, unanswered)
	return s
}

func (s *setup) start(t *testing.T, name string, nics ...lab.NIC) *lab.Guest {
	t.Helper()
	for i := range nics {
		var err error
		if nics[i].Tap, err = s.net.Tap(fmt.Sprintf("%s%d", name, i)); err != nil {
			t.Fatal(err)
		}
	}
	guest, err := lab.StartGuest(t.Context(), lab.GuestSpec{
		Name: "n01", Net: s.net, Firmware: lab.Direct, NICs: nics,
		Kernel: s.kernel, Initrd: s.initrd, Log: filepath.Join(s.work, name+".log"),
		Append: "BOOTIF=01-52-54-00-4d-00-01 dim.node=n01 dim.server=10.78.0.1 dim.nfs=10.78.0.1:2049:/nodes/n01 " +
			"dim.http=10.78.0.1:80 dim.if=eth0 fstab=no quiet console=ttyS0 " + os.Getenv("DIM_LAB_APPEND"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guest.Kill)
	return guest
}

// TestANodeBootsRunsAndEndsCleanly boots a guest, and checks that it reboots and powers off. As after an installation,
// the image configures the boot card by DHCP and has a fstab with disks.
func TestANodeBootsRunsAndEndsCleanly(t *testing.T) {
	s := newSetup(t, 0)
	write(t, s.root, "etc/network/interfaces", "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n")
	write(t, s.root, "etc/fstab", "UUID=0b2c6a0e-6f43-4a6b-9e6c-1f6f1a0e6d11 / ext4 errors=remount-ro 0 1\n"+
		"UUID=9a2a7c58-2d8c-4a36-8a1b-ffb1b1a6b0c2 none swap sw 0 0\n")
	for _, end := range []string{"reboot", "poweroff"} {
		guest := s.start(t, end, lab.NIC{MAC: directMAC})
		runUntil(t, guest, s.ssh, end)
	}
}

// TestANodeWaitsForItsServers boots a guest before the servers run. The guest's first card is not its boot card.
func TestANodeWaitsForItsServers(t *testing.T) {
	s := newSetup(t, 3)
	guest := s.start(t, "late", lab.NIC{MAC: "52:54:00:4d:00:99", Model: "e1000"}, lab.NIC{MAC: directMAC})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	for _, mark := range []string{
		"dim: n01: no address on eth0 yet: no DHCP server answers",
		"dim: n01: cannot mount the root from 10.78.0.1:/nodes/n01: the NFS server does not answer",
		"dim: n01: the root is mounted",
	} {
		if _, err := guest.WaitFor(ctx, regexp.MustCompile(mark)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := s.ssh.Await(ctx, directAddr,
		"cat /sys/class/net/eth[01]/address /sys/class/net/eth[01]/name_assign_type")
	if err != nil {
		t.Fatal(err)
	}
	if want := directMAC + "\n52:54:00:4d:00:99\n4\n4\n"; names != want {
		t.Errorf("eth0 and eth1 are %q, want %q", names, want)
	}
	t.Log(guest.Tail(30))
}

// runUntil waits until the guest runs, checks its state, and ends it with systemctl.
func runUntil(t *testing.T, guest *lab.Guest, ssh *lab.SSH, end string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	began := time.Now()
	defer func() {
		for _, l := range guest.Lines() {
			if strings.Contains(l.Text, "dim:") {
				t.Logf("%6.1fs %s", l.At.Seconds(), l.Text)
			}
		}
	}()
	if _, err := guest.WaitFor(ctx, regexp.MustCompile("dim: n01: starting /sbin/init")); err != nil {
		t.Fatal(err)
	}
	if _, err := ssh.Await(ctx, directAddr, "true"); err != nil {
		t.Fatalf("%v\n%s", err, guest.Tail(30))
	}
	t.Logf("ssh after %.1f s", time.Since(began).Seconds())
	state, _ := ssh.Run(ctx, directAddr, "systemctl is-system-running --wait; systemctl --failed --no-legend")
	t.Logf("systemd after %.1f s: %s", time.Since(began).Seconds(), state)
	if !strings.HasPrefix(state, "running") {
		t.Errorf("systemd is %q, want running", state)
	}
	facts, err := ssh.Run(ctx, directAddr,
		"hostname; cat /sys/class/net/eth0/name_assign_type; grep ' / ' /proc/mounts; "+
			"cat /run/dim/boot; ip -br addr; ip route; free -m; systemd-analyze; dmesg | grep dim:; "+os.Getenv(
			"DIM_LAB_RUN"))
	if err != nil {
		t.Error(err)
	}
	t.Logf("state of the node:\n%s", facts)
	asked := time.Now()
	_, _ = ssh.Run(ctx, directAddr, "systemctl "+end)
	if err := guest.Wait(ctx); err != nil {
		t.Errorf("%s: %v", end, err)
	}
	t.Logf("%s took %.1f s; the guest used %v of CPU time", end, time.Since(asked).Seconds(), guest.CPUTime())
}

// files builds the kernel and initramfs that the guest boots.
func files(t *testing.T, root, work string) (kernel, initrd string) {
	t.Helper()
	image, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	began := time.Now()
	res, err := initramfs.Build(t.Context(), initramfs.Spec{Image: image.FS().(initramfs.FS), Init: buildInit(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initramfs: %d modules, %d bytes, %d with %s, in %.1f s", len(res.Modules), res.Size,
		len(res.Initramfs), res.Compression, time.Since(began).Seconds())
	initrd = filepath.Join(work, "initramfs")
	if err := os.WriteFile(initrd, res.Initramfs, 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, res.Kernel.Path), initrd
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, name), 0o644); err != nil {
		t.Fatal(err)
	}
}
