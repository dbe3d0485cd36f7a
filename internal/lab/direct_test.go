package lab_test

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
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
)

const (
	directMAC  = "52:54:00:4d:00:01"
	directAddr = "10.78.0.11"
)

// oneTree exports a directory to everybody.
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

// installed returns a root that the test may change, made of DIM_LAB_MASTER as the node's files would leave it.
func installed(t *testing.T) string {
	t.Helper()
	have := os.Getenv("DIM_LAB_MASTER")
	if have == "" || os.Getuid() != 0 {
		t.Skip("boots a guest from a copy of the installed root in DIM_LAB_MASTER, as root, in a minute or two")
	}
	dir := os.Getenv("DIM_LAB_COPY") // kept between runs
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

// buildInit builds dim-init as the release does.
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

// serveNode starts NFS, DHCP and a receiver of reports in the network. The first deaf DHCP messages are not
// answered, and if there are any NFS comes seconds after the first answer.
func serveNode(t *testing.T, n *lab.Net, root string, deaf int) {
	t.Helper()
	answered := make(chan struct{})
	once := sync.OnceFunc(func() { close(answered) })
	if deaf == 0 {
		once()
	}
	pause := time.Duration(deaf) * time.Second
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
		if deaf--; deaf >= 0 {
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
		time.Sleep(pause)
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

// place is where a guest lives.
type place struct {
	net            *lab.Net
	ssh            *lab.SSH
	root, work     string
	kernel, initrd string
}

func newPlace(t *testing.T, deaf int) *place {
	t.Helper()
	p := &place{root: installed(t), work: t.TempDir()}
	if keep := os.Getenv("DIM_LAB_OUT"); keep != "" {
		p.work = keep
	}
	var err error
	if p.net, err = lab.NewNet("dimirfs0", netip.MustParsePrefix("10.78.0.1/24")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.net.Close() })
	var key string
	if p.ssh, key, err = lab.NewSSH(p.net, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	write(t, p.root, "root/.ssh/authorized_keys", key+"\n")
	write(t, p.root, "etc/hostname", "n01\n")
	p.kernel, p.initrd = files(t, p.root, p.work)
	serveNode(t, p.net, p.root, deaf)
	return p
}

func (p *place) start(t *testing.T, name string, nics ...lab.NIC) *lab.Guest {
	t.Helper()
	for i := range nics {
		var err error
		if nics[i].Tap, err = p.net.Tap(fmt.Sprintf("%s%d", name, i)); err != nil {
			t.Fatal(err)
		}
	}
	guest, err := lab.StartGuest(t.Context(), lab.GuestSpec{
		Name: "n01", Net: p.net, Firmware: lab.Direct, NICs: nics,
		Kernel: p.kernel, Initrd: p.initrd, Log: filepath.Join(p.work, name+".log"),
		Append: "BOOTIF=01-52-54-00-4d-00-01 dim.node=n01 dim.server=10.78.0.1 dim.nfs=10.78.0.1:2049:/nodes/n01 " +
			"dim.http=10.78.0.1:80 dim.if=eth0 fstab=no quiet console=ttyS0 " + os.Getenv("DIM_LAB_APPEND"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guest.Kill)
	return guest
}

// TestANodeBootsRunsAndEndsCleanly boots a real guest, without firmware, from a plain directory, and sees it reboot
// and power off. The image asks DHCP on the boot card and has a fstab with disks, as after an installation.
func TestANodeBootsRunsAndEndsCleanly(t *testing.T) {
	p := newPlace(t, 0)
	write(t, p.root, "etc/network/interfaces", "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n")
	write(t, p.root, "etc/fstab", "UUID=0b2c6a0e-6f43-4a6b-9e6c-1f6f1a0e6d11 / ext4 errors=remount-ro 0 1\n"+
		"UUID=9a2a7c58-2d8c-4a36-8a1b-ffb1b1a6b0c2 none swap sw 0 0\n")
	for _, end := range []string{"reboot", "poweroff"} {
		guest := p.start(t, end, lab.NIC{MAC: directMAC})
		live(t, guest, p.ssh, end)
	}
}

// TestServersMayComeLateAndOtherCardsMayBeThere boots a guest whose first card is another's, before anybody answers.
func TestServersMayComeLateAndOtherCardsMayBeThere(t *testing.T) {
	p := newPlace(t, 3)
	guest := p.start(t, "late", lab.NIC{MAC: "52:54:00:4d:00:99", Model: "e1000"}, lab.NIC{MAC: directMAC})
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
	names, err := p.ssh.Await(ctx, directAddr, "cat /sys/class/net/eth[01]/address /sys/class/net/eth[01]/name_assign_type")
	if err != nil {
		t.Fatal(err)
	}
	if want := directMAC + "\n52:54:00:4d:00:99\n4\n4\n"; names != want {
		t.Errorf("eth0 and eth1 are %q, want %q", names, want)
	}
	t.Log(guest.Tail(30))
}

func live(t *testing.T, guest *lab.Guest, ssh *lab.SSH, end string) {
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
	facts, err := ssh.Run(ctx, directAddr, "hostname; cat /sys/class/net/eth0/name_assign_type; grep ' / ' /proc/mounts; "+
		"cat /run/dim/boot; ip -br addr; ip route; free -m; systemd-analyze; dmesg | grep dim:; "+os.Getenv("DIM_LAB_RUN"))
	if err != nil {
		t.Error(err)
	}
	t.Logf("the node says:\n%s", facts)
	told := time.Now()
	_, _ = ssh.Run(ctx, directAddr, "systemctl "+end)
	if err := guest.Wait(ctx); err != nil {
		t.Errorf("%s: %v", end, err)
	}
	t.Logf("%s took %.1f s; the guest used %v of processor time", end, time.Since(told).Seconds(), guest.CPUTime())
}

// files builds what the guest boots.
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
