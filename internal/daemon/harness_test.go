package daemon

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dim/internal/confine"
	"dim/internal/control"
	"dim/internal/control/client"
	"dim/internal/coord"
	"dim/internal/nfs/nfsclient"
	"dim/internal/pki"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// superuser is the user of the tests.
var superuser = &vfs.Cred{}

// site is one server of a test: its data directory, its description and, while it runs, the way to end it.
type site struct {
	t      *testing.T
	name   string // of the server
	data   string
	file   string // of the description
	addr   string // of the server
	master string
	ports  [4]int // NFS, HTTP, TFTP, API
	etcd   []string
	given  bool // the description, on the command line

	cancel context.CancelFunc
	ended  chan error
	log    *lockedBuffer
}

// newSite makes a data directory and a master for a server that is known by addr, one of 127.0.0.0/8. The nodes n01 to
// n04 are 127.0.0.11 to 127.0.0.14.
func newSite(t *testing.T, addr string) *site {
	t.Helper()
	return newSiteIn(t, t.TempDir(), addr)
}

func newSiteIn(t *testing.T, dir, addr string) *site {
	t.Helper()
	testkit.NeedRoot(t, "it captures owners, and keeps trusted extended attributes")
	s := &site{
		t: t, name: "head", data: filepath.Join(dir, "data"), file: filepath.Join(dir, "cluster.xml"), addr: addr,
		master: filepath.Join(dir, "master"),
		given:  true, log: &lockedBuffer{},
	}
	for i := range s.ports {
		s.ports[i] = freePort(t, addr)
	}
	_, err := pki.Init(s.data)
	testkit.Must(t, err)
	s.put("etc/motd", "one\n")
	s.put("etc/hostname", "golden\n")
	s.put("usr/bin/tool", "#!/bin/sh\n")
	s.describe("")
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.log.String())
		}
	})
	return s
}

const description = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off" nfs-port="%d" http-port="%d" tftp-port="%d"
          api-port="%d">
    <interface network="boot" address="%s"/>
  </server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:%s"><shared path="/usr"/></image>
  <image name="other" arch="amd64" master="dir:%s"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
%s</cluster>
`

// describe writes the description, with more at its end; edits are pairs of what to replace and by what.
func (s *site) describe(more string, edits ...string) {
	s.t.Helper()
	text := fmt.Sprintf(description, s.ports[0], s.ports[1], s.ports[2], s.ports[3], s.addr, s.master, s.master, more)
	testkit.Must(s.t, os.WriteFile(s.file, []byte(strings.NewReplacer(edits...).Replace(text)), 0o600))
}

func (s *site) put(path, text string) {
	s.t.Helper()
	full := filepath.Join(s.master, path)
	testkit.Must(s.t, os.MkdirAll(filepath.Dir(full), 0o755))
	testkit.Must(s.t, os.WriteFile(full, []byte(text), 0o755))
}

// start runs the server and waits until it answers.
func (s *site) start() {
	s.t.Helper()
	s.launch()
	testkit.Eventually(s.t, "the server answers", func() bool {
		select {
		case err := <-s.ended:
			s.ended <- err
			s.t.Fatalf("the server ended: %v", err)
		default:
		}
		_, err := s.client().Description(s.t.Context(), 0)
		e, ok := errors.AsType[*control.Error](err)
		return err == nil || ok && e.Code == control.NotFound
	})
}

// launch runs the server.
func (s *site) launch() {
	c := Config{
		Data: s.data, As: s.name, Etcd: coord.Remote{Endpoints: s.etcd}, InitDir: s.data, Program: "test",
		Reader: confine.Program{Argv: []string{readerName}},
		Log:    slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if s.given {
		c.ClusterFile = s.file
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.ended = cancel, make(chan error, 1)
	go func() { s.ended <- Run(ctx, c) }()
}

// stop ends the server, if it runs, and returns what Run returned.
func (s *site) stop() error {
	if s.cancel == nil {
		return nil
	}
	s.cancel()
	s.cancel = nil
	select {
	case err := <-s.ended:
		return err
	case <-time.After(30 * time.Second):
		s.t.Error("the server does not end")
		return nil
	}
}

func (s *site) client() *client.Client { return client.New(s.data) }

// capture captures an image and lets its nodes follow, which must succeed.
func (s *site) capture(image string) control.CaptureResult {
	s.t.Helper()
	return s.captureWith(control.CaptureRequest{Image: image, Show: 10, Rollout: &control.RolloutRequest{When: "now"}})
}

func (s *site) captureWith(r control.CaptureRequest) control.CaptureResult {
	s.t.Helper()
	done, err := s.client().Capture(s.t.Context(), r, func(control.Progress) {})
	testkit.Must(s.t, err)
	return done
}

// apply applies the description as it is on disk now.
func (s *site) apply() error {
	text, err := os.ReadFile(s.file)
	testkit.Must(s.t, err)
	_, err = s.client().Apply(s.t.Context(), control.ApplyRequest{
		Description: control.Description{Main: "cluster.xml", Files: map[string][]byte{"cluster.xml": text}}, Yes: true,
	})
	return err
}

func (s *site) status() control.Status {
	s.t.Helper()
	st, err := s.client().Status(s.t.Context())
	testkit.Must(s.t, err)
	return st
}

// problem returns the problem of the status about something, empty when there is none.
func (s *site) problem(about string) control.Problem {
	s.t.Helper()
	for _, p := range s.status().Problems {
		if p.About == about {
			return p
		}
	}
	return control.Problem{}
}

// nfs connects to the server's NFS port from an address and a port: 0 is any, of another one it or the next lower that
// is free.
func (s *site) nfs(from string, port int) *nfsclient.Client {
	s.t.Helper()
	conn, err := s.dial(s.t.Context(), from, port, s.ports[0])
	testkit.Must(s.t, err)
	c := nfsclient.NewClient(conn)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// dial connects to a port of the server, as nfs does.
func (s *site) dial(ctx context.Context, from string, port, to int) (conn net.Conn, err error) {
	for {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from), Port: port}}
		conn, err = d.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", s.addr, to))
		if port <= 512 || !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return conn, err
		}
		port--
	}
}

// mount mounts an export as its node does, by an address.
func (s *site) mount(from, path string) *nfsclient.Tree {
	s.t.Helper()
	tree, err := s.nfs(from, 0).Tree(path)
	testkit.Must(s.t, err)
	return tree
}

// lookUp looks a path up.
func lookUp(fs vfs.FS, path string) (vfs.Handle, error) {
	h := fs.Root()
	for name := range strings.SplitSeq(path, "/") {
		var a vfs.Attr
		next, err := fs.Lookup(superuser, h, name, &a)
		if err != nil {
			return h, err
		}
		h = next
	}
	return h, nil
}

// read reads a small file.
func read(t *testing.T, fs vfs.FS, path string) string {
	t.Helper()
	h, err := lookUp(fs, path)
	if err != nil {
		t.Errorf("look up %s: %v", path, err)
		return ""
	}
	buf := make([]byte, 4096)
	n, _, err := fs.Read(superuser, h, buf, 0)
	if err != nil {
		t.Errorf("read %s: %v", path, err)
	}
	return string(buf[:n])
}

// write makes a file in a directory.
func write(t *testing.T, fs vfs.FS, dir, name, text string) {
	t.Helper()
	d, err := lookUp(fs, dir)
	testkit.Must(t, err)
	made, err := fs.Create(superuser, d, name, &vfs.Create{})
	testkit.Must(t, err)
	_, err = fs.Write(superuser, made.Handle, []byte(text), 0, vfs.FileSync)
	testkit.Must(t, err)
}

// lastPort is the port that freePort returned last, less firstPort. No two sites get the same port, also while neither
// listens.
var lastPort atomic.Uint32

const firstPort, portCount = 10_000, 20_000 // below those that the kernel gives to whoever asks for any

// freePort returns a port of addr and loopback that nobody listens on.
func freePort(t *testing.T, addr string) int {
	t.Helper()
	for range 100 {
		port := firstPort + int(lastPort.Add(1)%portCount)
		if free(addr, port) && free("127.0.0.1", port) {
			return port
		}
	}
	t.Fatalf("no port of %s is free", addr)
	return 0
}

const readerName = "dim-reader"

// TestMain runs the processes that the servers let read. It lets more tests run at once than there are processors,
// because they mostly wait for disks and timers. The flag -parallel counts more.
func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, Tasks()))
	}
	if os.Getenv(joinerName) != "" {
		os.Exit(joinAsChild(os.Args[1:]))
	}
	lastPort.Store(rand.Uint32N(portCount))
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func free(addr string, port int) bool {
	ln, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
