package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/lab"
	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// attackedServer is a server with connections from two nodes. After each attack it must be the same process,
// and serve n01.
type attackedServer struct {
	*lab.Cluster
	pid    int
	n1, n2 *nfsclient.Tree
}

func startAttackedServer(t *testing.T, master string) *attackedServer {
	t.Helper()
	c := startCluster(t, t.TempDir(), master)
	addresses(t, c)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	b := &attackedServer{Cluster: c, pid: c.PID()}
	for name, tree := range map[string]**nfsclient.Tree{"n01": &b.n1, "n02": &b.n2} {
		var err error
		*tree, err = asNode(t, c, nodeAddrs[name].Addr().String()).Tree("/nodes/" + name)
		testkit.Must(t, err)
	}
	return b
}

// checkServes checks that the server is the same process and serves n01.
func (b *attackedServer) checkServes(t *testing.T) {
	t.Helper()
	if got := readFile(t, asNode(t, b.Cluster, "10.77.0.11"), "/nodes/n01", "etc/hostname"); got != "n01\n" {
		t.Errorf("n01 reads %q", got)
	}
	if err := exec.Command("kill", "-0", fmt.Sprint(b.pid)).Run(); err != nil || b.PID() != b.pid {
		t.Errorf("the server's process %d is not there any more: %v", b.pid, err)
	}
}

// ownFile creates a file in a replica and returns its handle.
func ownFile(t *testing.T, tree *nfsclient.Tree, dir, name, text string) vfs.Handle {
	t.Helper()
	made, err := tree.Create(&vfs.Cred{}, lookUp(t, tree, dir), name, &vfs.Create{})
	testkit.Must(t, err)
	_, err = tree.Write(&vfs.Cred{}, made.Handle, []byte(text), 0, vfs.FileSync)
	testkit.Must(t, err)
	return made.Handle
}

func TestHandlesOfOtherNodesAreRefused(t *testing.T) {
	needLab(t)
	b := startAttackedServer(t, smallMaster(t))
	own := ownFile(t, b.n1, "srv", "secret", "n01's secret\n")
	handles := map[string]vfs.Handle{
		"own file": own, "node file": lookUp(t, b.n1, "etc/hostname"), "root": b.n1.Root(),
		"directory": lookUp(t, b.n1, "srv"),
	}
	t.Run("replayed from another address", func(t *testing.T) {
		for _, from := range []string{"10.77.0.12", "10.77.0.99", "10.77.0.1"} {
			for what, h := range handles {
				checkRefused(t, asNode(t, b.Cluster, from).TreeAt(h), h, from+": "+what)
			}
		}
	})
	t.Run("with the tree of who calls", func(t *testing.T) {
		for what, h := range map[string]vfs.Handle{"own file": own, "node file": handles["node file"]} {
			forged := bytesOf(h)
			copy(forged[2:10], bytesOf(b.n2.Root())[2:10])
			f, _ := vfs.MakeHandle(forged)
			checkRefused(t, b.n2, f, what)
		}
	})
	t.Run("with another tree, id or digest", func(t *testing.T) {
		good := bytesOf(lookUp(t, b.n2, "etc/motd"))
		for i := range good {
			forged := bytes.Clone(good)
			forged[i] ^= 1
			f, _ := vfs.MakeHandle(forged)
			checkRefused(t, b.n2, f, fmt.Sprintf("byte %d", i))
		}
		for n := range 64 {
			f, _ := vfs.MakeHandle(bytes.Repeat([]byte{byte(n)}, n))
			checkRefused(t, b.n2, f, fmt.Sprintf("%d bytes", n))
		}
	})
	b.checkServes(t)
	if got := readFile(t, asNode(t, b.Cluster, "10.77.0.11"), "/nodes/n01", "srv/secret"); got != "n01's secret\n" {
		t.Errorf("n01's own file reads %q", got)
	}
}

// checkRefused checks that every operation on a handle is refused.
func checkRefused(t *testing.T, tree *nfsclient.Tree, h vfs.Handle, what string) {
	t.Helper()
	root := &vfs.Cred{}
	buf := make([]byte, 100)
	if n, _, err := tree.Read(root, h, buf, 0); err == nil || n > 0 {
		t.Errorf("%s: read %q, %v", what, buf[:n], err)
	}
	var a vfs.Attr
	if err := tree.Attr(h, &a); err == nil {
		t.Errorf("%s: attributes %+v", what, a)
	}
	if _, err := tree.Write(root, h, []byte("defaced"), 0, vfs.FileSync); err == nil {
		t.Errorf("%s: written", what)
	}
	if _, err := tree.Lookup(root, h, "etc", &a); err == nil {
		t.Errorf("%s: looked up", what)
	}
	if _, err := tree.Create(root, h, "x", &vfs.Create{}); err == nil {
		t.Errorf("%s: created in", what)
	}
	if _, err := tree.ReadDir(root, h, 0, 0, func(*vfs.DirEntry) bool { return true }); err == nil {
		t.Errorf("%s: listed", what)
	}
	if _, err := tree.Remove(root, h, "hostname"); err == nil {
		t.Errorf("%s: removed from", what)
	}
}

func TestGarbageDoesNotStopTheServer(t *testing.T) {
	needLab(t)
	b := startAttackedServer(t, smallMaster(t))
	random := rand.New(rand.NewPCG(1, 2))
	garbage := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		return p
	}
	record := func(p []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(p))|1<<31), p...) }
	call := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x86, 0xa3, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0}
	attacks := map[string][]byte{
		"nothing": {}, "garbage": garbage(64 << 10), "a fragment of 2 GB": {0xff, 0xff, 0xff, 0xff},
		"empty fragments":  make([]byte, 4096),
		"a truncated call": record(call)[:20], "a call without arguments": record(call),
		"a reply":          record([]byte{0, 0, 0, 1, 0, 0, 0, 1}),
		"a handle of 4 GB": record(append(bytes.Clone(call), 0xff, 0xff, 0xff, 0xff)),
		"HTTP":             []byte("GET / HTTP/1.1\r\n\r\n"),
	}
	for i := range 20 {
		p := append(bytes.Clone(call), garbage(200)...)
		p[23] = byte(i + 1)
		attacks[fmt.Sprintf("garbage as arguments of procedure %d", i+1)] = record(p)
	}
	for _, port := range []string{"2049", "80"} {
		for _, from := range []string{"10.77.0.99", "10.77.0.11"} {
			for what, p := range attacks {
				exchange(t, dialFrom(t, b.Cluster, from, "tcp", "10.77.0.1:"+port), p)
				if t.Failed() {
					t.Fatalf("%s to port %s from %s", what, port, from)
				}
			}
			b.checkServes(t)
		}
	}
	t.Run("DHCP and TFTP", func(t *testing.T) {
		dhcp := make([]byte, 240)
		copy(dhcp, []byte{1, 1, 6, 0})
		copy(dhcp[236:], []byte{0x63, 0x82, 0x53, 0x63})
		for port, good := range map[string][]byte{"67": dhcp,
			"69": []byte("\x00\x01undionly.kpxe\x00octet\x00blksize\x001468\x00")} {
			conn := dialFrom(t, b.Cluster, "10.77.0.99", "udp", "10.77.0.1:"+port)
			for n := range 300 {
				p := append(bytes.Clone(good), garbage(n)...)
				p[random.IntN(len(p))] ^= byte(1 + random.IntN(255))
				_, _ = conn.Write(p[:1+random.IntN(len(p))])
			}
			_, _ = conn.Write(nil)
			conn.Close()
		}
		b.checkServes(t)
	})
	t.Run("HTTP", func(t *testing.T) {
		for _, request := range []string{
			"GET /boot/../../../etc/shadow HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /boot/%2e%2e/%2e%2e/etc/shadow HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET http://[::1]/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /boot/report HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx",
			"POST /boot/report HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
			"BREW /boot HTTP/9.9\r\n\r\n",
			"GET / HTTP/1.1\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 100) + "\r\n",
			"GET /" + strings.Repeat("a", 100<<10) + " HTTP/1.1\r\n\r\n",
			"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		} {
			for _, from := range []string{"10.77.0.99", "10.77.0.11"} {
				reply := exchange(t, dialFrom(t, b.Cluster, from, "tcp", "10.77.0.1:80"), []byte(request))
				if bytes.HasPrefix(reply, []byte("HTTP/1.1 200")) || bytes.Contains(reply, []byte("root:")) {
					t.Errorf("%.60q is answered %.200q", request, reply)
				}
			}
		}
		b.checkServes(t)
	})
}

// exchange sends bytes and returns the answer.
func exchange(t *testing.T, conn net.Conn, p []byte) []byte {
	t.Helper()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write(p) // the server may close the connection before all is sent
	_ = conn.(*net.TCPConn).CloseWrite()
	reply, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Error("the connection is held open after its end")
	}
	return reply
}

func TestUnknownAddressesAreRefused(t *testing.T) {
	needLab(t)
	b := startAttackedServer(t, smallMaster(t))
	for _, path := range []string{"/nodes/n01", "/nodes/none", "/nodes/", "/nodes", "/", "", "/images/compute@1",
		"/nodes/../nodes/n01"} {
		if _, err := asNode(t, b.Cluster, "10.77.0.99").Mount(path); err == nil {
			t.Errorf("a stranger mounts %q", path)
		}
	}
	if reply := tftp(t, b, "10.77.0.99", "undionly.kpxe"); len(reply) < 2 || reply[1] != 5 {
		t.Errorf("a stranger's question by TFTP is answered %.60q", reply)
	}
	if reply := tftp(t, b, "10.77.0.11", "undionly.kpxe"); len(reply) < 100 || reply[1] != 3 {
		t.Errorf("a node's question by TFTP is answered %.60q", reply)
	}
	for _, path := range []string{"/boot/ipxe", "/boot/kernel", "/boot/initramfs", "/boot/report", "/metrics",
		"/v1/status"} {
		reply := exchange(t, dialFrom(t, b.Cluster, "10.77.0.99", "tcp", "10.77.0.1:80"),
			[]byte("GET "+path+" HTTP/1.0\r\n\r\n"))
		if len(reply) != 0 {
			t.Errorf("GET %s from a stranger: %.100q", path, reply)
		}
	}
	b.checkServes(t)
}

// tftp requests a file and returns the first packet of the answer.
func tftp(t *testing.T, b *attackedServer, from, name string) []byte {
	t.Helper()
	var pc net.PacketConn
	testkit.Must(t, b.Net.Do(func() (err error) {
		pc, err = net.ListenPacket("udp", from+":0")
		return err
	}))
	defer pc.Close()
	reply := make([]byte, 1500)
	for range 5 {
		_, err := pc.WriteTo([]byte("\x00\x01"+name+"\x00octet\x00"),
			&net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 69})
		testkit.Must(t, err)
		_ = pc.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, _, err := pc.ReadFrom(reply); err == nil {
			return reply[:n]
		}
	}
	return nil
}

func TestUnusualNamesAreCapturedAndListedExactly(t *testing.T) {
	needLab(t)
	master := smallMaster(t)
	nasty := filepath.Join(master, "srv/nasty")
	testkit.Must(t, os.Mkdir(nasty, 0o755))
	names := []string{
		"new\nline", "tab\tand space ", "\xff\xfe not UTF-8 \x80", strings.Repeat("x", 255), strings.Repeat("ü", 127),
		"-rf", ".dim", "..x", "*", "\\", "\x1b[31mred",
		".wh.notawhiteout", "%2e%2e", "ends in dot.",
	}
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("%05d", i))
	}
	for _, name := range names {
		testkit.Must(t, os.WriteFile(filepath.Join(nasty, name), []byte(name), 0o644))
	}
	b := startAttackedServer(t, master)
	dir := lookUp(t, b.n1, "srv/nasty")
	var got []string
	_, err := b.n1.ReadDir(&vfs.Cred{}, dir, 0, 0, func(e *vfs.DirEntry) bool {
		if e.Name != "." && e.Name != ".." {
			got = append(got, e.Name)
		}
		return true
	})
	testkit.Must(t, err)
	slices.Sort(got)
	slices.Sort(names)
	if d := cmp.Diff(names, got); d != "" {
		t.Errorf("the list differs (-want +got):\n%s", d)
	}
	client := asNode(t, b.Cluster, "10.77.0.11")
	for _, name := range names[:20] {
		if text := readFile(t, client, "/nodes/n01", "srv/nasty/"+name); text != name {
			t.Errorf("%q reads %q", name, text)
		}
	}
	testkit.Must(t, os.RemoveAll(nasty))
	out := dim(t, b.Cluster, "image", "capture", "compute", "--rollout", "now", "--accept", "/") // most names are gone
	if strings.Contains(out, "\x1b") || strings.Contains(out, "\xff") {
		t.Errorf("raw bytes of names are printed: %q", out)
	}
	b.checkServes(t)
}

func TestFilesRemovedDuringACaptureDoNoHarm(t *testing.T) {
	needLab(t)
	master := smallMaster(t)
	tree(t, master, map[string]string{"srv/stays": "x"})
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			dir := filepath.Join(master, "srv", fmt.Sprint("comes-and-goes-", i%50))
			_ = os.MkdirAll(filepath.Join(dir, "below"), 0o755)
			_ = os.WriteFile(filepath.Join(dir, "below", "file"), bytes.Repeat([]byte{byte(i)}, 10_000), 0o644)
			_ = os.RemoveAll(filepath.Join(master, "srv", fmt.Sprint("comes-and-goes-", (i+25)%50)))
		}
	}()
	b := startAttackedServer(t, master)
	for range 5 {
		dim(t, b.Cluster, "image", "capture", "compute", "--rollout", "now")
		if got := readFile(t, asNode(t, b.Cluster, "10.77.0.11"), "/nodes/n01", "srv/stays"); got != "x" {
			t.Errorf("n01 reads %q", got)
		}
	}
	close(stop)
	<-ended
	b.checkServes(t)
}

func TestAllProblemsOfADescriptionAreReported(t *testing.T) {
	needLab(t)
	good, err := os.ReadFile("../examples/small.xml")
	testkit.Must(t, err)
	for _, c := range []struct {
		name, old, new string
		want           []string // each on a line of its own, with its position
	}{
		{"two unknown elements", "<taxonomy>", "<bogus/><another x='1'/><taxonomy>", []string{"bogus", "another"}},
		{"wrong values", `subnet="10.77.0.0/24" gateway="10.77.0.1"`, `subnet="10.77.0.0/240" gateway="ten"`,
			[]string{"10.77.0.0/240", "ten"}},
		{"unknown image and server", `image="compute" servers="head"`, `image="none" servers="nobody"`,
			[]string{"none", "nobody"}},
		{"an address twice", "10.77.0.{10+node}", "10.77.0.10", []string{"10.77.0.10"}},
		{"a bad expression", "{10+node}", "{10+}", []string{"is missing in the expression"}},
		{"not closed", "</cluster>", "", []string{"EOF"}},
		{"not UTF-8", `name="small"`, "name=\"\xff\xfe\"", []string{"UTF-8"}},
		{"empty", string(good), "", nil},
		{"a bomb", "<cluster", "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><cluster", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cluster.xml")
			testkit.Must(t, os.WriteFile(file, []byte(strings.Replace(string(good), c.old, c.new, 1)), 0o644))
			testkit.Must(t, os.WriteFile(filepath.Join(filepath.Dir(file), "hosts.tmpl"),
				[]byte("127.0.0.1 localhost\n"), 0o644))
			cmd := exec.Command("../bin/dim", "cluster", "check", file)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != 3 {
				t.Errorf("exit code %d, want 3: %s", code, out)
			}
			for _, want := range append(c.want, "cluster.xml:") {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not tell of %q:\n%s", want, out)
				}
			}
		})
	}
}

func bytesOf(h vfs.Handle) []byte { return bytes.Clone(h.Bytes()) }
