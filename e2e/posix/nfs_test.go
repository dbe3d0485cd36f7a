package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/e2e/agent"
	"dim/internal/lab"
	"dim/internal/lab/netns"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
)

// oneExport is a single tree, exported to all clients.
type oneExport struct{ fs vfs.FS }

func (e oneExport) Client(nfs.Peer) (nfs.Client, error)           { return e, nil }
func (e oneExport) Current() bool                                 { return true }
func (e oneExport) Mount(context.Context, string) (vfs.FS, error) { return e.fs, nil }
func (e oneExport) Find(vfs.Handle) (nfs.Export, error)           { return nfs.Export{FS: e.fs}, nil }
func (e oneExport) Paths() []string                               { return []string{"/"} }

// TestARealNFSClientPasses serves a plain directory. What fails here, but not on a local disk or by FUSE, is a
// fault of package nfs.
func TestARealNFSClientPasses(t *testing.T) {
	if os.Getenv("DIM_E2E") == "" {
		t.Skip("boots a User Mode Linux guest: run `make e2e`")
	}
	testkit.NeedRoot(t, "the cases act as several users")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	net, err := netns.New(fmt.Sprintf("dim-posix-%d", os.Getpid()), netip.MustParsePrefix("10.78.0.1/24"))
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	serveNFS(t, net, dirfs.Options{NoSync: true}) // the disk of a test machine is by far the slowest part
	guest, err := lab.StartUML(ctx, lab.UMLSpec{
		Name: "posix", Net: net, Dir: t.TempDir(), Init: build(t, "dim/e2e/agentd"),
		Put: map[string]string{"bin/posix": build(t, "dim/e2e/posix")}, Addr: netip.MustParsePrefix("10.78.0.2/24"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer endGuest(t, guest, net.Name+"posix")
	const options = "vers=3,proto=tcp,mountproto=tcp,nolock,hard," +
		"port=2049,mountport=2049,addr=10.78.0.1,mountaddr=10.78.0.1"
	mount := agent.MountArgs{Source: "10.78.0.1:/", Dir: "/mnt/nfs", Type: "nfs", Options: options}
	if err := guest.Agent.Call("Agent.Mount", mount, &agent.None{}); err != nil {
		t.Fatal(err)
	}
	var out agent.Output
	run := agent.RunArgs{Argv: []string{"/bin/posix", "/mnt/nfs", "-nfs", "-forgets", "-v"}, Timeout: 4 * time.Minute}
	if err := guest.Agent.Call("Agent.Run", run, &out); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out.Text)
	if out.Exit != 0 || !strings.Contains(out.Text, " passed, 0 failed") {
		t.Errorf("posix ended with %d", out.Exit)
	}
}

// endGuest ends the guest with all its processes. Processes that remain after its kernel was killed keep its
// console open, and Kill would wait for them.
func endGuest(t *testing.T, guest *lab.UML, umid string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, line := range lines {
		b, err := os.ReadFile(line)
		if err != nil || !strings.HasPrefix(string(b), "linux.uml\x00") ||
			!strings.Contains(string(b), "\x00umid="+umid+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line))); err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	guest.Kill()
}

func serveNFS(t *testing.T, net *netns.Net, opt dirfs.Options) {
	t.Helper()
	fs, err := dirfs.Open(t.TempDir(), opt)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "10.78.0.1:2049")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		srv := oncrpc.NewServer(oncrpc.Options{}, nfs.New(oneExport{fs}, nfs.Options{}).Programs()...)
		done <- srv.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		fs.Close()
	})
}

// build builds a static program of this module.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, msg)
	}
	return out
}
