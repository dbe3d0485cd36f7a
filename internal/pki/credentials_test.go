package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// newHead makes the data directory of a head that has a name.
func newHead(t testing.TB) (data string, c *Credentials) {
	t.Helper()
	data = t.TempDir()
	testkit.Value(Init(data))(t)
	c = testkit.Value(Open(data))(t)
	testkit.Must(t, c.Assume("head", []cluster.Role{"image", "head"}, time.Now()))
	return data, c
}

// certifyOther certifies a new key as another server of a head's cluster.
func certifyOther(t testing.TB, c *Credentials, id Identity, now time.Time) []*x509.Certificate {
	t.Helper()
	key := testkit.Value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	request := testkit.Value(newRequest(key, ""))(t)
	public := testkit.Value(ParseRequest(request))(t)
	return decode(testkit.Value(c.Authority().Certify(public, id, now))(t))
}

const useServer, useClient = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth

func TestAHeadHasAName(t *testing.T) {
	data, c := newHead(t)
	want := Identity{
		Cluster: clusterOf(c.root), ID: c.Identity().ID, Name: "head", Roles: []cluster.Role{"head", "image"},
	}
	for name, c := range map[string]*Credentials{"at once": c, "after a restart": testkit.Value(Open(data))(t)} {
		if d := cmp.Diff(want, c.Identity()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		chain := decode(testkit.Value(os.ReadFile(filepath.Join(data, "identity", certFile)))(t))
		id, err := c.Verify(chain, useServer)
		if d := cmp.Diff(want, id); d != "" || err != nil {
			t.Errorf("%s: %s, %v", name, d, err)
		}
	}
	if c.Due(time.Now()) || !c.Due(time.Now().Add(16*24*time.Hour)) || !c.Due(time.Now().Add(-48*time.Hour)) {
		t.Error("the certificate is due at the wrong time")
	}
	before := c.Certificate().Leaf.SerialNumber
	testkit.Must(t, c.Assume("head", []cluster.Role{"head", "image"}, time.Now()))
	if c.Certificate().Leaf.SerialNumber.Cmp(before) != 0 {
		t.Error("a certificate that is good was replaced")
	}
}

func TestACertificateIsVerified(t *testing.T) {
	_, c := newHead(t)
	_, other := newHead(t)
	is07 := Identity{ID: "abc", Name: "is07", Roles: []cluster.Role{"image"}}
	now := time.Now()
	for _, tt := range []struct {
		name  string
		certs []*x509.Certificate
		want  string // in the error
	}{
		{"good", certifyOther(t, c, is07, now), ""},
		{"expired", certifyOther(t, c, is07, now.Add(-40*24*time.Hour)), ErrOutdated.Error()},
		{"not valid yet", certifyOther(t, c, is07, now.Add(40*24*time.Hour)), ErrOutdated.Error()},
		{"expired long ago", certifyOther(t, c, is07, now.Add(-211*24*time.Hour)), "the server has to join again"},
		{"of another cluster", certifyOther(t, other, is07, now), "unknown authority"},
		{"of another cluster, with our authority", append(certifyOther(t, other, is07, now)[:1], c.root),
			"unknown authority"},
		{"without the authority", certifyOther(t, c, is07, now)[:1], "unknown authority"},
		{"none", nil, "0 certificates"},
		{"too many", append(certifyOther(t, c, is07, now), c.root, c.root), "4 certificates"},
	} {
		id, err := c.Verify(tt.certs, useClient)
		if tt.want == "" {
			if err != nil || id.Name != "is07" || !id.Is(cluster.RoleImage) || id.Is(cluster.RoleHead) {
				t.Errorf("%s: %+v, %v", tt.name, id, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := id.Name == "is07"; got != errors.Is(err, ErrOutdated) {
			t.Errorf("%s: is %+v, %v", tt.name, id, err)
		}
	}
}

// TestTheAuthoritiesAreApart uses the keys of both intermediates for certificates of the other kind.
func TestTheAuthoritiesAreApart(t *testing.T) {
	data, c := newHead(t)
	nodes := testkit.Value(loadPair(filepath.Join(data, "ca", "nodes")))(t)
	key := testkit.Value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := func(u *url.URL, dns ...string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: "x"}, URIs: []*url.URL{u}, DNSNames: dns,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{useServer, useClient},
		}
	}
	server := Identity{Cluster: c.Identity().Cluster, ID: "abc", Name: "head", Roles: []cluster.Role{"head"}}.uri()
	node := &url.URL{Scheme: scheme, Host: hostNode + c.Identity().Cluster + hostEnd, Path: "/n01"}
	roots := x509.NewCertPool()
	roots.AddCert(c.root)
	verify := func(p *pair, tm *x509.Certificate, use x509.ExtKeyUsage) error {
		cert := testkit.Value(certify(tm, &key.PublicKey, p))(t)
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}}
		o.Intermediates.AddCert(p.cert)
		_, err := cert.Verify(o)
		return err
	}
	if err := verify(nodes, template(node), useClient); err != nil {
		t.Errorf("a node's certificate: %v", err)
	}
	if err := verify(nodes, template(node), useServer); err == nil {
		t.Error("a node's certificate can serve")
	}
	for _, dns := range [][]string{nil, {serverName}} {
		if err := verify(nodes, template(server, dns...), useClient); err == nil {
			t.Errorf("the authority for nodes certifies a server (%q)", dns)
		}
	}
	if err := verify(c.Authority().servers, template(node), useClient); err == nil {
		t.Error("the authority for servers certifies a node")
	}
	for use := range map[x509.ExtKeyUsage]bool{useServer: true, useClient: true} {
		cert := testkit.Value(certify(template(server, serverName), &key.PublicKey, nodes))(t)
		if id, err := c.Verify([]*x509.Certificate{cert, nodes.cert}, use); err == nil {
			t.Errorf("it passes for server %s", id.Name)
		}
	}
}

func TestACertificateForAnotherKeyIsNotInstalled(t *testing.T) {
	data, c := newHead(t)
	before := testkit.Value(os.ReadFile(filepath.Join(data, "identity", certFile)))(t)
	key := testkit.Value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	for name, chain := range map[string][]byte{
		"of another key": testkit.Value(c.Authority().Certify(&key.PublicKey, c.Identity(), time.Now()))(t),
		"of another id": testkit.Value(c.Authority().Certify(&c.key.PublicKey,
			Identity{ID: "other", Name: "head", Roles: []cluster.Role{"head"}}, time.Now()))(t),
		"none": []byte("garbage"),
	} {
		if err := c.Install(chain); err == nil {
			t.Errorf("a certificate %s was installed", name)
		}
	}
	after := testkit.Value(os.ReadFile(filepath.Join(data, "identity", certFile)))(t)
	if string(after) != string(before) {
		t.Error("the file changed")
	}
}

// downgrade makes a data directory of format 1: the root may not sign intermediates, and has signed the identity.
func downgrade(t *testing.T, data string) (id string) {
	t.Helper()
	dir := filepath.Join(data, "ca")
	root := testkit.Value(loadPair(dir))(t)
	tm := *root.cert
	tm.MaxPathLen, tm.MaxPathLenZero = 0, true
	root.cert = testkit.Value(certify(&tm, &root.key.PublicKey, root))(t)
	testkit.Must(t, root.save(dir),
		os.RemoveAll(filepath.Join(dir, "servers")), os.RemoveAll(filepath.Join(dir, "nodes")))
	own := testkit.Value(loadPair(filepath.Join(data, "identity")))(t)
	own.cert = testkit.Value(certify(&x509.Certificate{
		Subject: own.cert.Subject, DNSNames: []string{serverName}, NotBefore: time.Now(),
		NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
	}, &own.key.PublicKey, root))(t)
	testkit.Must(t, own.save(filepath.Join(data, "identity")),
		os.WriteFile(filepath.Join(data, "format"), []byte("1\n"), 0o600))
	return own.cert.Subject.CommonName
}

// TestADirectoryOfFormat1IsUpgraded interrupts the upgrade after each file that it writes.
func TestADirectoryOfFormat1IsUpgraded(t *testing.T) {
	data, before := newHead(t)
	id := downgrade(t, data)
	if root := testkit.Value(loadCertificate(filepath.Join(data, "ca", certFile)))(t); root.MaxPathLen != 0 {
		t.Fatal("the directory is not of format 1")
	}
	written := []string{"ca/servers/key.pem", "ca/servers/cert.pem", "ca/nodes/key.pem", "ca/nodes/cert.pem", "format"}
	for _, lost := range append(written, "") {
		if lost != "" { // the upgrade ended before this file was written
			testkit.Value(Open(data))(t)
			for i := range written {
				if written[i] == lost {
					for _, name := range written[i:] {
						testkit.Must(t, os.Remove(filepath.Join(data, name)))
					}
				}
			}
			testkit.Must(t, os.WriteFile(filepath.Join(data, "format"), []byte("1\n"), 0o600))
		}
		c, err := Open(data)
		if err != nil {
			t.Fatalf("without %s: %v", lost, err)
		}
		if c.Identity().ID != id || c.Identity().Cluster != before.Identity().Cluster {
			t.Errorf("without %s: the id is %+v, want %s", lost, c.Identity(), id)
		}
		testkit.Must(t, c.Assume("head", []cluster.Role{"head"}, time.Now()))
		if _, err := c.Verify(certifyOther(t, c, Identity{ID: "a", Name: "is1", Roles: []cluster.Role{"image"}},
			time.Now()), useClient); err != nil {
			t.Errorf("without %s: %v", lost, err)
		}
		if n, err := formatOf(data); n != format || err != nil {
			t.Errorf("format %d, %v", n, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("dim://server.0123456789abcdef0123.dim/abc/is07/head+image")
	f.Add("dim://node.0123456789abcdef0123.dim/n01")
	f.Add("dim://server.x.dim/a/b/image+head?x=1#y")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		id, err := parseURI(u)
		if err != nil {
			return
		}
		if got := id.uri().String(); got != u.String() || strings.ContainsAny(string(id.Name), "/?#%") {
			t.Errorf("%q is read as %+v and written as %q", text, id, got)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(f, err)
	f.Add(testkit.Value(newRequest(key, "x"))(f))
	f.Add(make([]byte, maxRequest+1))
	f.Fuzz(func(t *testing.T, der []byte) {
		if key, err := ParseRequest(der); err == nil && (len(der) > maxRequest || key.Curve != elliptic.P256()) {
			t.Errorf("accepts %d bytes, %v", len(der), key)
		}
	})
}

func TestDamageOnTheDiskIsTold(t *testing.T) {
	data, c := newHead(t)
	testkit.Must(t, c.Damage())
	for _, name := range []string{"ca/cert.pem", "ca/servers/cert.pem", "ca/nodes/key.pem", "identity/key.pem"} {
		path := filepath.Join(data, name)
		text := testkit.Value(os.ReadFile(path))(t)
		damaged := []byte(strings.Replace(string(text), "M", "!", 1))
		testkit.Must(t, os.WriteFile(path, damaged, 0o600))
		if err := c.Damage(); err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
			t.Errorf("%s damaged: %v", name, err)
		}
		testkit.Must(t, os.Remove(path))
		if err := c.Damage(); err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
			t.Errorf("%s missing: %v", name, err)
		}
		testkit.Must(t, os.WriteFile(path, text, 0o600), c.Damage())
	}
}

// A machine whose clock lost its battery cannot renew its certificate, and still is who it was.
func TestAClockFromBeforeTheAuthorityKeepsTheIdentity(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	testkit.Value(Init(data))(t)
	c := testkit.Value(Open(data))(t)
	roles := []cluster.Role{cluster.RoleImage, cluster.RoleHead}
	testkit.Must(t, c.Assume("head", roles, time.Now()))
	synctest.Test(t, func(t *testing.T) { // in which it is the year 2000
		if err := c.Assume("head", roles, time.Now()); err == nil {
			t.Error("the certificate was renewed to a time at which its authority is not valid")
		}
	})
	again := testkit.Value(Open(data))(t)
	if !c.Says("head", roles) || !again.Says("head", roles) || !again.Expires().After(time.Now()) {
		t.Errorf("the certificate is of %+v, and on the disk of %+v", c.Identity(), again.Identity())
	}
	if c.Says("is1", roles) || c.Says("head", roles[:1]) {
		t.Error("the certificate says what it does not say")
	}
}
