package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/lab"
	"dim/internal/lab/netns"
	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// levels is a head and two image servers, each in a network of its own, with cables between them. n01 and n02 are
// is01's nodes, n03 and n04 are is02's.
type levels struct {
	t       *testing.T
	net     *netns.Net
	hosts   map[string]*netns.Host
	servers map[string]*lab.Server
	disks   map[string]string // mount points of the servers' disks
	nodes   *netns.Host       // it has the addresses of all nodes
	master  string
}

// twoLevels is the description of levels.
const twoLevels = `<cluster name="levels">
  <network name="boot" subnet="10.77.0.0/24"/>
  <server name="head" roles="head"><interface network="boot" address="10.77.0.1"/></server>
  <server name="is01" roles="image" dhcp="off"><interface network="boot" address="10.77.0.2"/></server>
  <server name="is02" roles="image" dhcp="off"><interface network="boot" address="10.77.0.3"/></server>
  <taxonomy><level name="rack" from="1" to="2"/><level name="node" from="1" to="2"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/dim/masters/compute"/>
  <nodes name="n{(rack-1)*2+node:02}" each="rack node" image="compute" servers="is{rack:02}">
    <interface name="eth0" network="boot" address="10.77.0.{10+(rack-1)*2+node}"
      mac="52:54:00:4d:00:{(rack-1)*2+node:02x}"/>
  </nodes>
</cluster>
`

// newLevels makes the networks and starts the servers, which join the head. Each has a disk of a size such as "600m".
// The servers are the head, is01, is02, and more, with the addresses 10.77.0.1 and so on.
func newLevels(t *testing.T, master, description, disk string, more ...string) *levels {
	t.Helper()
	dir := t.TempDir()
	l := &levels{
		t: t, hosts: map[string]*netns.Host{}, servers: map[string]*lab.Server{}, disks: map[string]string{},
		master: master,
	}
	xml := filepath.Join(dir, "cluster.xml")
	testkit.Must(t, os.WriteFile(xml, []byte(description), 0o600))
	l.net = testkit.Value(netns.New(fmt.Sprintf("dim-lv-%d", os.Getpid())))(t)
	t.Cleanup(func() { testkit.Must(t, l.net.Close()) })
	bin := testkit.Value(filepath.Abs("../bin"))(t)
	for i, name := range append([]string{"head", "is01", "is02"}, more...) {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(1 + i)}), 24)
		spec := lab.ServerSpec{
			Net: l.host(name, addr.String()).Net, Dir: filepath.Join(dir, name), Bin: bin, Address: addr.Addr(),
		}
		testkit.Must(t, os.MkdirAll(spec.Dir, 0o700), unix.Mount("disk", spec.Dir, "tmpfs", 0, "size="+disk))
		t.Cleanup(func() { testkit.Must(t, unix.Unmount(spec.Dir, unix.MNT_DETACH)) })
		l.disks[name] = spec.Dir
		if name == "head" {
			spec.Master, spec.MasterAt, spec.Description, spec.As = l.master, "/srv/dim/masters/compute", xml, "head"
		}
		l.server(name, spec)
	}
	return l
}

// newSmallLevels is newLevels with a small master, and a network with the addresses of all nodes.
func newSmallLevels(t *testing.T) *levels {
	t.Helper()
	needLab(t)
	master := filepath.Join(t.TempDir(), "master")
	tree(t, master, map[string]string{"etc/motd": "one\n", "etc/counter": "0\n", "usr/bin/tool": "#!/bin/sh\n"})
	l := newLevels(t, master, twoLevels, "600m")
	l.nodes = l.host("nodes", "10.77.0.11/24", "10.77.0.12/24", "10.77.0.13/24", "10.77.0.14/24")
	return l
}

// host makes the network of one machine.
func (l *levels) host(name string, addr ...string) *netns.Host {
	l.t.Helper()
	var list []netip.Prefix
	for _, a := range addr {
		list = append(list, netip.MustParsePrefix(a))
	}
	h := testkit.Value(l.net.NewHost(name, list...))(l.t)
	l.t.Cleanup(func() { testkit.Must(l.t, h.Close()) })
	l.hosts[name] = h
	return h
}

// server makes and starts a server, which joins if it is not the head.
func (l *levels) server(name string, spec lab.ServerSpec) {
	l.t.Helper()
	s := lab.NewServer(spec)
	l.servers[name] = s
	l.t.Cleanup(func() {
		s.Stop()
		if l.t.Failed() {
			log, _ := os.ReadFile(s.ServerLog())
			l.t.Logf("the log of %s:\n%s", name, log[max(0, len(log)-6000):])
		}
	})
	switch {
	case name == "head":
		l.dim(name, "init")
	case strings.HasPrefix(name, "head"):
		l.joinBy("head", name, "head")
	default:
		l.join(name)
	}
	l.start(name)
}

// join lets a server join the head with a token of its own.
func (l *levels) join(name string) {
	l.t.Helper()
	l.joinBy("head", name, "image")
}

// joinBy lets a server with a role join by a head.
func (l *levels) joinBy(head, name, role string) {
	l.t.Helper()
	var token struct{ URL, Token string }
	testkit.Must(l.t, l.servers[head].DimJSON(l.t.Context(), &token, "token", "--for", name, "--roles", role))
	l.dim(name, "join", token.URL, token.Token, "--as", name)
}

func (l *levels) start(name string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	testkit.Must(l.t, l.servers[name].Start(ctx))
}

// dim runs a dim command on a server, which must succeed.
func (l *levels) dim(server string, args ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Minute)
	defer cancel()
	return testkit.Value(l.servers[server].Dim(ctx, args...))(l.t)
}

// status returns what the head says of the cluster; the command fails when there are problems.
func (l *levels) status() string {
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	out, err := l.servers["head"].Dim(ctx, "status")
	return fmt.Sprintf("%s%v", out, err)
}

// serverOf returns the address and port of NFS of the server of node n01 to n04, and the node's own address.
func serverOf(node string) (server string, own netip.Addr) {
	i := node[2] - '0'
	return fmt.Sprintf("10.77.0.%d:2049", 2+(i-1)/2), netip.AddrFrom4([4]byte{10, 77, 0, 10 + i})
}

// connect mounts a node's root as the node does.
func (l *levels) connect(ctx context.Context, node string) (*nfsclient.Tree, func(), error) {
	server, own := serverOf(node)
	var conn net.Conn
	err := l.nodes.Do(func() (err error) {
		conn, err = dialPrivileged(ctx, own, server)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	cl := nfsclient.NewClient(conn)
	root, err := cl.Tree("/nodes/" + node)
	if err != nil {
		cl.Close()
		return nil, nil, fmt.Errorf("mount %s: %w", node, err)
	}
	return root, func() { cl.Close() }, nil
}

// read returns a file of a node's root, or an error.
func (l *levels) read(node, path string) (string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	root, end, err := l.connect(ctx, node)
	if err != nil {
		return "", err
	}
	defer end()
	return readPath(root, path)
}

// write puts a file with a name and text into the root directory of a node's root, and returns nil when the server has
// acknowledged it.
func (l *levels) write(node, name, text string) error {
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	root, end, err := l.connect(ctx, node)
	if err != nil {
		return err
	}
	defer end()
	made, err := root.Create(&vfs.Cred{}, root.Root(), name, &vfs.Create{})
	if err != nil {
		return err
	}
	_, err = root.Write(&vfs.Cred{}, made.Handle, []byte(text), 0, vfs.FileSync)
	return err
}

// await waits until all the nodes have the text in a file.
func (l *levels) await(path, text string, nodes ...string) {
	l.t.Helper()
	for _, node := range nodes {
		var got string
		var err error
		ok := within(time.Minute, func() bool {
			got, err = l.read(node, path)
			return err == nil && got == text
		})
		if !ok {
			l.t.Fatalf("%s on %s is %q, %v; want %q\n%s", path, node, got, err, text, l.status())
		}
	}
}

func within(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// The main job with two levels: servers join, a captured image reaches the nodes of both, and so does each change.
// With the head dead an image server serves, takes writes and restarts.
func TestTwoLevels(t *testing.T) {
	l := newSmallLevels(t)
	all := []string{"n01", "n02", "n03", "n04"}
	l.dim("head", "image", "capture", "compute", "--rollout", "now")
	l.await("etc/motd", "one\n", all...)

	tree(t, l.master, map[string]string{"etc/motd": "two\n"})
	t.Log(l.dim("head", "image", "capture", "compute", "--rollout", "now"))
	l.await("etc/motd", "two\n", all...)
	t.Log(l.status())
	testkit.Eventually(t, "the head knows what the nodes show", func() bool {
		return strings.Contains(l.status(), "4 on compute@2")
	})
	t.Log(l.dim("head", "server", "ls"))
	t.Log(l.dim("head", "node", "ls"))

	l.servers["head"].Kill()
	testkit.Must(t, l.write("n01", "own", "mine\n"))
	l.servers["is01"].Kill()
	l.start("is01")
	l.await("own", "mine\n", "n01")
	l.await("etc/motd", "two\n", "n01", "n03")

	l.servers["is02"].Stop()
	l.start("head")
	tree(t, l.master, map[string]string{"etc/motd": "three\n"})
	l.dim("head", "image", "capture", "compute", "--rollout", "now")
	l.await("etc/motd", "three\n", "n01", "n02")
	l.start("is02")
	l.await("etc/motd", "three\n", all...)
	l.await("own", "mine\n", "n01")
	if out := l.dim("head", "node", "diff", "n01"); !strings.Contains(out, "own") {
		t.Errorf("the head does not show what n01 changed:\n%s", out)
	}
}
