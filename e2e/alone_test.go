package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dim/internal/lab"
	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// asNode adds an address to the network and connects from it to the server's NFS port.
func asNode(t *testing.T, c *lab.Cluster, from string) *nfsclient.Client {
	t.Helper()
	cl := nfsclient.NewClient(dialFrom(t, c, from, "tcp", "10.77.0.1:2049"))
	t.Cleanup(func() { cl.Close() })
	return cl
}

// dialFrom connects from one address of the network to another.
func dialFrom(t *testing.T, c *lab.Cluster, from, network, to string) net.Conn {
	t.Helper()
	var conn net.Conn
	testkit.Must(t, c.Net.Do(func() (err error) {
		if network == "udp" {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
			conn, err = d.DialContext(t.Context(), network, to)
			return err
		}
		conn, err = dialPrivileged(t.Context(), netip.MustParseAddr(from), to)
		return err
	}))
	return conn
}

// dialPrivileged connects by TCP from a port below 1024, as root does: the server refuses the ports of others.
func dialPrivileged(ctx context.Context, from netip.Addr, to string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	for port := uint16(1023); port > 700; port-- {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, port))
		conn, err = d.DialContext(ctx, "tcp", to)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return conn, err
}

// addresses adds the addresses of two nodes, and one that the description does not name, to the network.
func addresses(t *testing.T, c *lab.Cluster) {
	t.Helper()
	for _, addr := range []string{"10.77.0.11/24", "10.77.0.12/24", "10.77.0.99/24"} {
		testkit.Must(t, c.Net.AddAddr(netip.MustParsePrefix(addr)))
	}
}

// readFile reads a small file of a replica.
func readFile(t *testing.T, cl *nfsclient.Client, export, path string) string {
	t.Helper()
	return testkit.Value(readPath(testkit.Value(cl.Tree(export))(t), path))(t)
}

// readPath reads a small file of a mounted tree.
func readPath(tree *nfsclient.Tree, path string) (string, error) {
	h, err := findPath(tree, path)
	if err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, _, err := tree.Read(&vfs.Cred{}, h, buf, 0)
	return string(buf[:n]), err
}

func lookUp(t *testing.T, tree *nfsclient.Tree, path string) vfs.Handle {
	t.Helper()
	return testkit.Value(findPath(tree, path))(t)
}

func findPath(tree *nfsclient.Tree, path string) (h vfs.Handle, err error) {
	h = tree.Root()
	for name := range strings.SplitSeq(path, "/") {
		var a vfs.Attr
		if h, err = tree.Lookup(&vfs.Cred{}, h, name, &a); err != nil {
			return h, err
		}
	}
	return h, nil
}

// dimExit runs dim and returns its output, with errors, and its exit code.
func dimExit(t *testing.T, c *lab.Cluster, data string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := c.Net.Command(ctx, "../bin/dim", append(args, "--data", data)...).CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), e.ExitCode()
	}
	testkit.Must(t, err)
	return string(out), 0
}

// checkServesAlone checks that a server without usable shared state serves its nodes and reports the problem.
func checkServesAlone(t *testing.T, c *lab.Cluster, data, about string) {
	t.Helper()
	if got := readFile(t, asNode(t, c, "10.77.0.11"), "/nodes/n01", "etc/motd"); got != "one\n" {
		t.Errorf("n01 reads %q", got)
	}
	testkit.Eventually(t, "dim status tells it", func() bool {
		out, code := dimExit(t, c, data, "status")
		return code == 3 && strings.Contains(out, "problem") && strings.Contains(out, "shared state: ") &&
			strings.Contains(out, about) &&
			strings.Contains(out, "nodes are served what was declared last")
	})
	out, code := dimExit(t, c, data, "status")
	t.Logf("dim status: exit code %d\n%s", code, out)
	out, code = dimExit(t, c, data, "image", "capture", "compute")
	if code != 4 || !strings.Contains(out, "hint: nodes are served") {
		t.Errorf("dim image capture: exit code %d, %s", code, out)
	}
	t.Logf("dim image capture: exit code %d\n%s", code, out)
}

// checkRecovered checks that the shared state can be used again and has everything that was declared.
func checkRecovered(t *testing.T, c *lab.Cluster, data, master, text string) {
	t.Helper()
	testkit.Eventually(t, "the shared state is back", func() bool {
		out, _ := dimExit(t, c, data, "status")
		return !strings.Contains(out, "shared state: ")
	})
	if out, code := dimExit(t, c, data, "image", "show", "compute@first"); code != 0 {
		t.Errorf("the tag is lost: %s", out)
	}
	tree(t, master, map[string]string{"etc/motd": text})
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	if got := readFile(t, asNode(t, c, "10.77.0.11"), "/nodes/n01", "etc/motd"); got != text {
		t.Errorf("n01 reads %q", got)
	}
}

func TestAServerServesWithoutSharedState(t *testing.T) {
	needLab(t)
	dir, master := t.TempDir(), smallMaster(t)
	data := filepath.Join(dir, "data")
	c := startCluster(t, dir, master)
	addresses(t, c)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	dim(t, c, "image", "tag", "compute@1", "first")

	t.Run("its etcd damaged", func(t *testing.T) {
		c.Stop()
		logs, err := filepath.Glob(filepath.Join(data, "coord", "member", "wal", "*.wal"))
		testkit.Must(t, err)
		for _, path := range logs {
			testkit.Must(t, os.WriteFile(path, []byte(strings.Repeat("damage", 4096)), 0o600))
		}
		start(t, c)
		coord := filepath.Join(data, "coord")
		checkServesAlone(t, c, data, "mv "+coord+" "+coord+".damaged")
		testkit.Must(t, os.Rename(coord, coord+".damaged"))
		checkRecovered(t, c, data, master, "two\n")
	})
	tree(t, master, map[string]string{"etc/motd": "one\n"})
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	t.Run("an etcd that does not answer", func(t *testing.T) {
		c.Stop()
		log, err := os.Create(filepath.Join(dir, "external.log"))
		testkit.Must(t, err)
		defer log.Close()
		cmd := c.Net.Command(t.Context(), "../bin/dim", "serve", "--data", data, "--as", "head",
			"--etcd", "https://10.77.0.99:2379", "--etcd-ca", filepath.Join(data, "ca/cert.pem"))
		cmd.Stdout, cmd.Stderr = log, log
		testkit.Must(t, cmd.Start())
		defer func() {
			testkit.Must(t, cmd.Process.Signal(syscall.SIGTERM))
			testkit.Must(t, cmd.Wait())
		}()
		testkit.Eventually(t, "it listens", func() bool {
			conn, err := c.Net.DialContext(t.Context(), "tcp", "10.77.0.1:2049")
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		checkServesAlone(t, c, data, "https://10.77.0.99:2379")
	})
	start(t, c)
	checkRecovered(t, c, data, master, "three\n")
}

func TestAServerRestartsItselfAfterAFullDisk(t *testing.T) {
	needLab(t)
	dir, master := t.TempDir(), smallMaster(t)
	testkit.Must(t, syscall.Mount("dim-e2e", dir, "tmpfs", 0, "size=400m"))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_FORCE) })
	data := filepath.Join(dir, "data")
	c := startCluster(t, dir, master)
	addresses(t, c)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	dim(t, c, "image", "tag", "compute@1", "first")
	pid := c.PID()

	ballast := filepath.Join(dir, "ballast")
	_ = exec.Command("sh", "-c", "cat /dev/zero > "+ballast).Run() // until the disk is full
	testkit.Eventually(t, "etcd ends", func() bool {
		_, _ = dimExit(t, c, data, "image", "tag", "compute@1", "x")
		out, _ := dimExit(t, c, data, "status")
		return strings.Contains(out, "etcd ended")
	})
	checkServesAlone(t, c, data, "MB free on the disk")
	testkit.Must(t, os.Remove(ballast))
	checkRecovered(t, c, data, master, "two\n")
	if c.PID() != pid {
		t.Errorf("the server's process was %d, is %d", pid, c.PID())
	}
	log, err := os.ReadFile(c.ServerLog())
	testkit.Must(t, err)
	if !strings.Contains(string(log), "msg=restarting") {
		t.Error("it did not start itself anew")
	}
}

func start(t *testing.T, c *lab.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	testkit.Must(t, c.Start(ctx))
}
