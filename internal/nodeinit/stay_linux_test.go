package nodeinit

import (
	"bufio"
	"debug/elf"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program is also what runs on the node of TestTheProcessThatStaysOutlivesTheHandover: first the /init of an initramfs, then
// the process that stays, and the root's own init.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case ResidentName:
		fmt.Println(Stay(os.Args[1:]))
		os.Exit(1)
	case "initramfs-init":
		fmt.Println(beNode(os.Args[1], os.Args[2]))
		os.Exit(1)
	case "own-init":
		fmt.Println("own init runs")
		if err := unix.Mount("over", "/etc", "tmpfs", 0, ""); err != nil {
			fmt.Println(err)
		}
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends it
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beNode is process 1 of a machine of its own, as far as mounts and processes go: it makes dir, which has the test program as /init, the root
// as an initramfs is, starts the process that stays, and hands over to the init of a root that is mounted on /root.
func beNode(dir, server string) error {
	at, err := netip.ParseAddrPort(server)
	if err != nil {
		return err
	}
	for _, m := range []struct{ source, dir, kind string }{
		{dir, dir, ""}, {"dev", dir + "/dev", "devtmpfs"}, {"proc", dir + "/proc", "proc"}, {"sys", dir + "/sys", "tmpfs"}, {"run", dir + "/run", "tmpfs"},
		{"root", dir + "/root", "tmpfs"},
	} {
		flags := uintptr(0)
		if m.kind == "" {
			flags = unix.MS_BIND
		}
		if err := unix.Mount(m.source, m.dir, m.kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for _, sub := range []string{"etc", "sbin", "dev", "proc", "sys", "run"} {
		if err := os.MkdirAll("/root/"+sub, 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile("/init")
	if err == nil {
		err = os.WriteFile("/root/sbin/own-init", program, 0o755)
	}
	if err != nil {
		return err
	}
	k := &kernel{}
	if err := k.Remain(at, "compute:7"); err != nil {
		return fmt.Errorf("remain: %w", err)
	}
	return k.HandOver("/sbin/own-init", nil)
}

// heard is the server's side: it takes calls, and answers those that the test says.
type heard struct{ calls chan hearing }

type hearing struct {
	said   string
	answer chan string
}

func (h *heard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		b.WriteString(s.Text() + "\n")
	}
	call := hearing{b.String(), make(chan string)}
	select {
	case h.calls <- call:
	case <-r.Context().Done():
		return
	}
	select {
	case text := <-call.answer:
		if text == "" {
			w.WriteHeader(http.StatusConflict)
		}
		fmt.Fprint(w, text)
	case <-r.Context().Done():
	}
}

func (h *heard) call(t *testing.T) hearing {
	t.Helper()
	select {
	case c := <-h.calls:
		return c
	case <-time.After(time.Minute):
		t.Fatal("the node does not call")
		return hearing{}
	}
}

func TestTheProcessThatStaysOutlivesTheHandover(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes mounts")
	}
	dir := t.TempDir()
	if err := unix.Mount("initramfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, sub := range []string{"dev", "proc", "sys", "run", "root"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	if f, err := elf.Open("/proc/self/exe"); err != nil || len(f.Progs) == 0 || slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Skip("the test program is not static, and would not run in a root of its own: set CGO_ENABLED=0, as make does")
	}
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "init"), program, 0o755))
	h := &heard{calls: make(chan hearing)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: h}
	go server.Serve(ln)
	defer server.Close()

	cmd := exec.Command(filepath.Join(dir, "init"), dir, ln.Addr().String())
	cmd.Args[0] = "initramfs-init"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	hold, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		hold.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the node said: %s", out.String())
		}
	}()

	// Its init mounts something over /etc: a call that waits then is given up for one that tells of it.
	call := h.call(t)
	for !strings.Contains(call.said, `{"mount":"/etc","type":"tmpfs"}`) {
		call = h.call(t)
	}
	if !strings.Contains(call.said, `"seen":"compute:7"`) || !strings.Contains(call.said, `{"mount":"/proc","type":"proc"}`) {
		t.Errorf("the call: %s", call.said)
	}
	if _, err := os.Stat(filepath.Join(dir, "init")); !os.IsNotExist(err) {
		t.Errorf("the initramfs was not emptied: %v", err)
	}
	call.answer <- "now compute:8\nlook /\nlook /etc\nlook /gone\nend\n"
	if call = h.call(t); !strings.Contains(call.said, `"seen":"compute:8"`) {
		t.Errorf("after the answer: %s", call.said)
	}
	call.answer <- "" // somebody on the node has called, too
	if call = h.call(t); !strings.Contains(call.said, `"seen":"compute:8"`) {
		t.Errorf("after another process has called: %s", call.said)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
