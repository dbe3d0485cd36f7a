package nodeinit

import (
	"bufio"
	"debug/elf"
	"errors"
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

	"dim/internal/testkit"
)

// The test program is also every program on the node of TestTheResidentProcessOutlivesTheHandover: the /init of the
// initramfs, the resident process, and the root's own init.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case ResidentName:
		fmt.Println(RunResident(os.Args[1:]))
		os.Exit(1)
	case "initramfs-init":
		fmt.Println(runTestNode(os.Args[1], os.Args[2]))
		os.Exit(1)
	case "own-init":
		fmt.Println("own init runs")
		makeGenerators()
		if err := unix.Mount("over", "/etc", "tmpfs", 0, ""); err != nil {
			fmt.Println(err)
		}
		for _, err := os.Stdin.Read(make([]byte, 1)); err == nil; _, err = os.Stdin.Read(make([]byte, 1)) {
			makeGenerators()
		}
		os.Exit(0) // the test has closed the pipe
	}
	os.Exit(m.Run())
}

// makeGenerators does what systemd does before it reads its units.
func makeGenerators() {
	const dir = "/run/systemd/generator"
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		fmt.Println(err)
	}
}

// runTestNode is process 1 in namespaces of its own. It makes dir, which has the test program as /init, its root in
// place of an initramfs. Then it starts the resident process and hands over to the init of a root that is mounted on
// /root.
func runTestNode(dir, server string) error {
	at, err := netip.ParseAddrPort(server)
	if err != nil {
		return err
	}
	for _, m := range []struct{ source, dir, kind string }{
		{dir, dir, ""}, {"dev", dir + "/dev", "devtmpfs"}, {"proc", dir + "/proc", "proc"},
		{"sys", dir + "/sys", "tmpfs"}, {"run", dir + "/run", "tmpfs"}, {"root", dir + "/root", "tmpfs"},
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
	if err := k.StartResident(at, "compute:7"); err != nil {
		return fmt.Errorf("start the resident process: %w", err)
	}
	return k.HandOver("/sbin/own-init", nil)
}

// testServer passes calls on to the test, which answers them.
type testServer struct{ calls chan testCall }

type testCall struct {
	body   string
	answer chan string // "": status 409
}

func (h *testServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		b.WriteString(s.Text() + "\n")
	}
	call := testCall{b.String(), make(chan string)}
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

func (h *testServer) call(t *testing.T) testCall {
	t.Helper()
	select {
	case c := <-h.calls:
		return c
	case <-time.After(time.Minute):
		t.Fatal("the node does not call")
		return testCall{}
	}
}

func TestTheResidentProcessOutlivesTheHandover(t *testing.T) {
	testkit.NeedRoot(t, "makes mounts")
	dir := t.TempDir()
	if err := unix.Mount("initramfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, sub := range []string{"dev", "proc", "sys", "run", "root"} {
		testkit.Must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	interpreted := func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }
	f, err := elf.Open("/proc/self/exe")
	if err != nil || len(f.Progs) == 0 || slices.ContainsFunc(f.Progs, interpreted) {
		t.Skip("needs a static test program, which runs in a root of its own: set CGO_ENABLED=0, as make does")
	}
	program := testkit.Value(os.ReadFile("/proc/self/exe"))(t)
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "init"), program, 0o755))
	h := &testServer{calls: make(chan testCall)}
	ln := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(t)
	server := &http.Server{Handler: h}
	go server.Serve(ln)
	defer server.Close()

	cmd := exec.Command(filepath.Join(dir, "init"), dir, ln.Addr().String())
	cmd.Args[0] = "initramfs-init"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	hold := testkit.Value(cmd.StdinPipe())(t)
	testkit.Must(t, cmd.Start())
	defer func() {
		hold.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("output of the node: %s", out.String())
		}
	}()

	// The node's init mounts something on /etc: a waiting call is then replaced by one that reports it.
	call := h.call(t)
	for !strings.Contains(call.body, `{"mount":"/etc","type":"tmpfs"}`) {
		call = h.call(t)
	}
	for _, want := range []string{`"seen":"compute:7"`, `{"mount":"/proc","type":"proc"}`} {
		if !strings.Contains(call.body, want) {
			t.Errorf("the call has no %s: %s", want, call.body)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "init")); !os.IsNotExist(err) {
		t.Errorf("the initramfs was not emptied: %v", err)
	}
	call.answer <- "now compute:8\nlook /\nlook /etc\nlook /gone\nend\n"
	if call = h.call(t); !strings.Contains(call.body, `"seen":"compute:8","units":"compute:7"`) {
		t.Errorf("after the answer: %s", call.body)
	}
	testkit.Value(hold.Write([]byte{1}))(t) // systemctl daemon-reload
	if call = h.call(t); !strings.Contains(call.body, `"seen":"compute:8","units":"compute:8"`) {
		t.Errorf("after the units were read again: %s", call.body)
	}
	call.answer <- "" // another process of the node has called
	if call = h.call(t); !strings.Contains(call.body, `"seen":"compute:8"`) {
		t.Errorf("after another process has called: %s", call.body)
	}
}
