package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// joinAsHead lets a machine join as a head of the cluster of head, up to the end of Complete.
func joinAsHead(t *testing.T, head *Credentials) (data string, a Answer, prepared func(func(Identity) error) error) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	j := testkit.Value(BeginJoin(data, KeepIdentity))(t)
	key := testkit.Value(ParseRequest(testkit.Value(j.Request())(t)))(t)
	id := Identity{ID: NewID(), Name: "head2", Roles: []cluster.Role{cluster.RoleHead}}
	chain := testkit.Value(head.Authority().Certify(key, id, time.Now()))(t)
	a = Answer{Root: head.Root().Raw, Chain: chain, Authority: testkit.Value(head.ShareAuthority())(t)}
	return data, a, func(prepare func(Identity) error) error { return j.Complete(a, prepare) }
}

// TestEveryHeadCanCertify also interrupts the join after each file that it writes.
func TestEveryHeadCanCertify(t *testing.T) {
	_, head := newHead(t)
	for _, written := range [][]string{
		nil, {"ca/" + certFile}, {"ca/servers/" + keyFile}, {"ca/servers/" + keyFile, "ca/servers/" + certFile},
		{"ca/nodes/" + keyFile, "identity/" + keyFile},
	} {
		data, a, complete := joinAsHead(t, head)
		key := testkit.Value(os.ReadFile(filepath.Join(data, joiningDir, keyFile)))(t)
		testkit.Must(t, complete(accept))
		dir := filepath.Join(data, joiningDir)
		testkit.Must(t, os.MkdirAll(dir, 0o700))
		for name, text := range map[string][]byte{
			keyFile: key, certFile: a.Chain, rootFile: encode(head.Root()), shareFile: a.Authority, readyFile: nil,
		} {
			testkit.Must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		}
		for _, name := range written {
			testkit.Must(t, os.WriteFile(filepath.Join(data, name), []byte("half"), 0o600))
		}
		c := testkit.Value(Open(data))(t)
		if c.Authority() == nil || c.Damage() != nil {
			t.Fatalf("after %v: it has no authority: %v", written, c.Damage())
		}
		if _, err := os.Stat(filepath.Join(data, "ca", keyFile)); err == nil {
			t.Error("the key of the root has left its machine")
		}
		made := certifyOther(t, c, Identity{ID: NewID(), Name: "is07", Roles: []cluster.Role{"image"}}, time.Now())
		if _, err := head.Verify(made, x509.ExtKeyUsageServerAuth); err != nil {
			t.Errorf("the first head refuses a server that the second one has certified: %v", err)
		}
	}
}

func TestAnAuthorityOfAnotherClusterIsRefused(t *testing.T) {
	_, head := newHead(t)
	_, other := newHead(t)
	for what, bad := range map[string]string{
		"no JSON": "x", "nothing": "{}", "too large": strings.Repeat(" ", maxAuthority+1),
		"another cluster": string(testkit.Value(other.ShareAuthority())(t)),
	} {
		data, a, _ := joinAsHead(t, head)
		a.Authority = []byte(bad)
		j := testkit.Value(BeginJoin(data, KeepIdentity))(t)
		if err := j.Complete(a, accept); err == nil {
			t.Errorf("%s: accepted", what)
		}
		if err := Check(data); !errors.Is(err, ErrNotInitialised) {
			t.Errorf("%s: the directory has an identity: %v", what, err)
		}
	}
}

// TestCertificatesOfMembersHaveOneUse: one of a member is not one of a server, nor the reverse.
func TestCertificatesOfMembersHaveOneUse(t *testing.T) {
	_, head := newHead(t)
	now := time.Now()
	f := testkit.Value(head.MemberFiles(now))(t)
	pair := testkit.Value(tls.LoadX509KeyPair(f.Cert, f.Key))(t)
	var certs []*x509.Certificate
	for _, der := range pair.Certificate {
		certs = append(certs, testkit.Value(x509.ParseCertificate(der))(t))
	}
	if _, err := head.Verify(certs, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a certificate of a member is taken for one of a server")
	}
	if err := head.Certificate().Leaf.VerifyHostname(f.Host); err == nil {
		t.Error("a certificate of a server is taken for one of a member")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(head.Root())
	between.AddCert(certs[1])
	o := x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: f.Host}
	testkit.Value(certs[0].Verify(o))(t)

	again := testkit.Value(head.MemberFiles(now.Add(10 * 24 * time.Hour)))(t)
	if got := testkit.Value(tls.LoadX509KeyPair(again.Cert, again.Key))(t); !got.Leaf.Equal(certs[0]) {
		t.Error("a certificate that is not due was made again")
	}
	later := testkit.Value(head.MemberFiles(now.Add(20 * 24 * time.Hour)))(t)
	if got := testkit.Value(tls.LoadX509KeyPair(later.Cert, later.Key))(t); got.Leaf.Equal(certs[0]) {
		t.Error("a certificate that is due was not made again")
	}
}

func FuzzAuthorities(f *testing.F) {
	_, head := newHead(f)
	f.Add(testkit.Value(head.ShareAuthority())(f))
	f.Add([]byte(`{"servers":{"key":"","cert":""}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if all, err := parseAuthority(text, head.Root()); err == nil && len(all) != 2 {
			t.Errorf("%d authorities without an error", len(all))
		}
	})
}
