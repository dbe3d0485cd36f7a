package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/pki"
	"dim/internal/testkit"
)

const description = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off" api-port="%d">
    <interface network="boot" address="127.0.0.2"/></server>
  <server name="is1" roles="image" dhcp="off" api-port="%d"><interface network="boot" address="127.0.0.3"/></server>
  <server name="gone" roles="image" dhcp="off" api-port="%[1]d"><interface network="boot" address="127.0.0.4"/></server>
  <taxonomy><level name="node" from="1" to="1"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.11" mac="52:54:00:4d:00:01"/>
  </nodes>
</cluster>`

// network is a cluster with a head and an image server.
type network struct {
	head, is *site

	mu      sync.Mutex
	cluster *cluster.Cluster
}

func (n *network) declared() *cluster.Cluster {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cluster
}

// edit changes a server of the description.
func (n *network) edit(name cluster.ServerName, change func(*cluster.Server)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, _ := n.cluster.Server(name)
	change(s)
}

// site is one server, which runs.
type site struct {
	credentials *pki.Credentials
	addr        string // of its listener
	server      *Server
	client      *Client
	log         *lockedBuffer

	mu      sync.Mutex
	revoked string // an id
}

// newHead makes the credentials of the head of a new cluster.
func newHead(t *testing.T) *pki.Credentials {
	t.Helper()
	data := t.TempDir()
	testkit.Value(pki.Init(data))(t)
	c := testkit.Value(pki.Open(data))(t)
	testkit.Must(t, c.Assume("head", []cluster.Role{"head", "image"}, time.Now()))
	return c
}

// join makes the credentials of a server that a head has certified.
func join(t *testing.T, head *pki.Credentials, name string, now time.Time) *pki.Credentials {
	t.Helper()
	data := t.TempDir()
	testkit.Value(pki.Init(data))(t)
	c := testkit.Value(pki.Open(data))(t)
	key := testkit.Value(pki.ParseRequest(testkit.Value(c.Request())(t)))(t)
	id := Identity{ID: c.Identity().ID, Name: cluster.ServerName(name), Roles: []cluster.Role{"image"}}
	chain := testkit.Value(head.Authority().Certify(key, id, now))(t)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: head.Certificate().Certificate[2]})
	testkit.Must(t,
		os.RemoveAll(filepath.Join(data, "ca", "servers")), os.Remove(filepath.Join(data, "ca", "key.pem")),
		os.WriteFile(filepath.Join(data, "ca", "cert.pem"), root, 0o600),
		os.WriteFile(filepath.Join(data, "identity", "cert.pem"), chain, 0o600))
	return testkit.Value(pki.Open(data))(t)
}

// newNetwork starts the head and is1. GET /peer/v1/NAME answers who calls, for each name of an Allow.
func newNetwork(t *testing.T) *network {
	t.Helper()
	head := newHead(t)
	n := &network{}
	ends := map[string]net.Listener{}
	var ports []any
	for _, addr := range []string{"127.0.0.2", "127.0.0.3"} {
		ln := testkit.Value(net.Listen("tcp", addr+":0"))(t)
		ends[addr], ports = ln, append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	text := fmt.Sprintf(description, ports...)
	n.cluster = testkit.Value(cluster.Parse(cluster.Source{Name: "c.xml", XML: []byte(text)}))(t)
	n.head = n.start(t, head, ends["127.0.0.2"])
	n.is = n.start(t, join(t, head, "is1", time.Now()), ends["127.0.0.3"])
	return n
}

func (n *network) start(t *testing.T, c *pki.Credentials, ln net.Listener) *site {
	s := &site{credentials: c, addr: ln.Addr().String(), log: &lockedBuffer{}}
	o := Options{
		Credentials: c, Declared: n.declared, Refused: s.refused,
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	s.server, s.client = NewServer(o), NewClient(o)
	for name, allow := range map[string]Allow{"heads": Heads, "servers": Servers, "renewing": Renewing, "all": Anyone} {
		s.server.Handle("/peer/v1/"+name, allow, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, ok := From(r.Context())
			b, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %v %t %d %t", id.Name, id.Roles, ok, len(b), err != nil)
		}))
	}
	s.server.Handle("/peer/v1/stream", Servers, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("begin\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		s.client.Close()
		cancel()
		testkit.Must(t, <-ended)
		if t.Failed() {
			t.Logf("the log of %s:\n%s", s.addr, s.log)
		}
	})
	return s
}

func (s *site) refused(id Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id.ID == s.revoked {
		return errors.New("revoked")
	}
	return nil
}

func (s *site) revoke(id string) {
	s.mu.Lock()
	s.revoked = id
	s.mu.Unlock()
	s.server.Recheck()
	s.client.Recheck()
}

// call calls a server and returns the status and the body.
func call(t *testing.T, c *Client, server cluster.ServerName, path string) (int, string) {
	t.Helper()
	hc, base := c.To(server)
	resp, err := hc.Get(base + "/peer/v1/" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func TestServersKnowEachOther(t *testing.T) {
	n := newNetwork(t)
	for _, tt := range []struct {
		from *site
		to   cluster.ServerName
		path string
		code int
		want string
	}{
		{n.is, "head", "servers", 200, "is1 [image] true"},
		{n.is, "head", "renewing", 200, "is1 [image] true"},
		{n.is, "head", "all", 200, "is1 [image] true"},
		{n.is, "head", "heads", 403, "is1 is no head"},
		{n.head, "is1", "heads", 200, "head [head image] true"},
		{n.head, "head", "heads", 200, "head [head image] true"},
		{n.is, "nobody", "all", 0, "not in the description"},
		{n.is, "gone", "all", 0, "connect to server gone"},
	} {
		if code, got := call(t, tt.from.client, tt.to, tt.path); code != tt.code || !strings.Contains(got, tt.want) {
			t.Errorf("%s of %s: %d %q, want %d %q", tt.path, tt.to, code, got, tt.code, tt.want)
		}
	}
}

func TestAClientDemandsTheNameOfTheServer(t *testing.T) {
	n := newNetwork(t)
	is1, _ := n.cluster.Server("is1")
	n.edit("gone", func(s *cluster.Server) { s.Interfaces, s.Ports = is1.Interfaces, is1.Ports })
	if code, got := call(t, n.head.client, "gone", "all"); code != 0 || !strings.Contains(got, "it is server is1") {
		t.Errorf("%d %q", code, got)
	}
}

func TestARoleIsOfTheCertificateAndOfTheDescription(t *testing.T) {
	n := newNetwork(t)
	n.edit("is1", func(s *cluster.Server) { s.Roles = []cluster.Role{"head", "image"} })
	if code, got := call(t, n.is.client, "head", "heads"); code != 403 {
		t.Errorf("a role that the certificate does not have: %d %q", code, got)
	}
	n.edit("head", func(s *cluster.Server) { s.Roles = []cluster.Role{"image"} })
	if code, got := call(t, n.head.client, "is1", "heads"); code != 403 {
		t.Errorf("a role that the description does not give: %d %q", code, got)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	n := newNetwork(t)
	other := newHead(t)
	stranger := func(c *tls.Certificate) *http.Client {
		cfg := &tls.Config{InsecureSkipVerify: true}
		if c != nil {
			cfg.Certificates = []tls.Certificate{*c}
		}
		tr := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
		return &http.Client{Transport: tr}
	}
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		path string
		code int
		log  string
	}{
		{"no certificate", nil, "servers", 401, "no certificate"},
		{"no certificate", nil, "renewing", 401, "no certificate"},
		{"no certificate", nil, "all", 200, ""},
		{"a certificate of another cluster", other.Certificate(), "all", 0, "unknown authority"},
		{"an outdated one", join(t, n.head.credentials, "is1", time.Now().Add(-40*24*time.Hour)).Certificate(),
			"servers", 401, "not valid at this time"},
		{"an outdated one", join(t, n.head.credentials, "is1", time.Now().Add(-40*24*time.Hour)).Certificate(),
			"renewing", 200, ""},
		{"one that is not declared", join(t, n.head.credentials, "is9", time.Now()).Certificate(),
			"servers", 403, "is9 is not in the description"},
	} {
		before := n.head.server.Refused()
		resp, err := stranger(tt.cert).Get("https://" + n.head.addr + "/peer/v1/" + tt.path)
		code := 0
		if err == nil {
			code = resp.StatusCode
			resp.Body.Close()
		}
		if code != tt.code || !strings.Contains(n.head.log.String(), tt.log) {
			t.Errorf("%s, %s: %d, %v", tt.name, tt.path, code, err)
		}
		if counted := n.head.server.Refused() > before; counted != (tt.code != 200) {
			t.Errorf("%s, %s: counted: %t", tt.name, tt.path, counted)
		}
	}
}

func TestANodeIsRefusedAndGarbageToo(t *testing.T) {
	n := newNetwork(t)
	for name, send := range map[string]string{
		"127.0.0.11": "", "127.0.0.1": strings.Repeat("GET / HTTP/1.1\r\n\r\n", 99),
	} {
		before := n.head.server.Refused()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(name)}}
		c := testkit.Value(d.Dial("tcp", n.head.addr))(t)
		_, _ = c.Write([]byte(send))
		_, _ = io.Copy(io.Discard, c) // until the server closes it
		c.Close()
		testkit.Eventually(t, name+" is counted", func() bool { return n.head.server.Refused() > before })
	}
}

func TestConnectionsOfStrangersAreBounded(t *testing.T) {
	n := newNetwork(t)
	// Not a server's address, not a node's; on loopback the bound is that of a server.
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	before := n.head.server.Refused()
	for range perServer + atOnce*len(n.declared().Servers) + 1 {
		open = append(open, testkit.Value(net.Dial("tcp", n.head.addr))(t))
	}
	testkit.Eventually(t, "one is refused", func() bool { return n.head.server.Refused() > before })
	if code, got := call(t, n.is.client, "is1", "servers"); code != 200 {
		t.Errorf("another server: %d %q", code, got)
	}
}

// distant is a connection from an address, which is accepted and nothing more.
type distant struct {
	net.Conn
	from net.Addr
}

func (d *distant) RemoteAddr() net.Addr { return d.from }

func (d *distant) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 20} }

func TestAllServersMayConnectAtOnceFromOneAddress(t *testing.T) {
	n := newNetwork(t)
	for _, tt := range []struct {
		servers  int
		from     string
		accepted int
	}{
		{3, "192.0.2.1", 20}, {40, "192.0.2.1", 168}, {40, "127.0.0.2", 224},
	} {
		c := *n.declared()
		c.Servers = slices.Repeat(n.declared().Servers[:1], tt.servers)
		s := NewServer(Options{Declared: func() *cluster.Cluster { return &c }})
		accepted := 0
		for s.accept(&conn{Conn: &distant{from: &net.TCPAddr{IP: net.ParseIP(tt.from), Port: 1}}, s: s}) == nil {
			accepted++
		}
		if accepted != tt.accepted {
			t.Errorf("%d servers at %s: %d connections accepted, want %d", tt.servers, tt.from, accepted, tt.accepted)
		}
	}
}

func TestAConnectionIsUsedAgain(t *testing.T) {
	n := newNetwork(t)
	for range 20 {
		if code, got := call(t, n.is.client, "head", "servers"); code != 200 {
			t.Fatalf("%d %q", code, got)
		}
	}
	n.head.server.mu.Lock()
	defer n.head.server.mu.Unlock()
	if open := len(n.head.server.open); open != 1 {
		t.Errorf("20 requests one after the other, and %d connections are open", open)
	}
}

func TestABodyIsBounded(t *testing.T) {
	n := newNetwork(t)
	hc, base := n.is.client.To("head")
	resp, err := hc.Post(base+"/peer/v1/servers", "", io.LimitReader(zeros{}, maxBody+1))
	if err != nil {
		return // the server closed the connection while the client still sent
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("is1 [image] true %d true", maxBody); string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestARevocationEndsOpenConnections(t *testing.T) {
	for name, revoke := range map[string]func(n *network){
		"at the server": func(n *network) { n.head.revoke(n.is.credentials.Identity().ID) },
		"at the client": func(n *network) { n.is.revoke(n.head.credentials.Identity().ID) },
	} {
		n := newNetwork(t)
		hc, base := n.is.client.To("head")
		resp := testkit.Value(hc.Get(base + "/peer/v1/stream"))(t)
		begin := make([]byte, 6)
		testkit.Value(io.ReadFull(resp.Body, begin))(t)
		revoke(n)
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: the stream ended as if it was complete", name)
		}
		resp.Body.Close()
		if code, got := call(t, n.is.client, "head", "servers"); code == 200 || !strings.Contains(got, "revoked") {
			t.Errorf("%s: afterwards %d %q", name, code, got)
		}
	}
}

func TestARenewedCertificateIsShown(t *testing.T) {
	n := newNetwork(t)
	call(t, n.is.client, "head", "servers")
	c := n.is.credentials
	key := testkit.Value(pki.ParseRequest(testkit.Value(c.Request())(t)))(t)
	id := c.Identity()
	id.Roles = []cluster.Role{"head", "image"}
	testkit.Must(t, c.Install(testkit.Value(n.head.credentials.Authority().Certify(key, id, time.Now()))(t)))
	n.edit("is1", func(s *cluster.Server) { s.Roles = id.Roles })
	n.is.client.Close()
	if code, got := call(t, n.is.client, "head", "heads"); code != 200 {
		t.Errorf("%d %q", code, got)
	}
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

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
