package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/cluster"
	"dim/internal/durable"
)

// ErrOutdated means that a certificate is good in every respect but that now is before or after its time. It can be
// renewed.
var ErrOutdated = errors.New("the certificate is not valid at this time")

// Credentials are what a server needs to prove who it is, and to check who others are. The methods may be called from
// any number of goroutines.
type Credentials struct {
	dir       string // of the identity
	root      *x509.Certificate
	authority *Authority // nil: this server does not certify others
	key       *ecdsa.PrivateKey

	mu   sync.Mutex // held by who replaces the certificate
	held atomic.Pointer[held]
}

// held is the certificate that is used.
type held struct {
	cert tls.Certificate
	id   Identity
}

// Open reads the keys of a data directory. It brings a directory of an earlier format to this program's first, and
// completes a join that was interrupted. The caller keeps other processes from the directory.
func Open(data string) (*Credentials, error) {
	if err := completeJoin(data); err != nil {
		return nil, fmt.Errorf("complete the join of %s: %w", data, err)
	}
	n, err := formatOf(data)
	if err == nil && n < format {
		err = upgrade(data, time.Now())
	}
	if err != nil {
		return nil, err
	}
	c := &Credentials{dir: filepath.Join(data, "identity")}
	if c.root, err = loadCertificate(filepath.Join(data, "ca", certFile)); err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	if c.authority, err = loadAuthority(data, c.root); err != nil {
		return nil, err
	}
	own, err := loadPair(c.dir)
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	c.key = own.key
	chain, err := os.ReadFile(filepath.Join(c.dir, certFile))
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	c.hold(chain)
	return c, nil
}

// hold uses a chain of certificates in PEM from now on. The root is sent along, so that a server that is about to join
// can find by its digest that the chain leads to the right one.
func (c *Credentials) hold(chain []byte) {
	h := &held{cert: tls.Certificate{PrivateKey: c.key}}
	for _, cert := range decode(chain) {
		h.cert.Certificate = append(h.cert.Certificate, cert.Raw)
		if h.cert.Leaf == nil {
			h.cert.Leaf = cert
		}
	}
	h.cert.Certificate = append(h.cert.Certificate, c.root.Raw)
	id, err := identityOf(h.cert.Leaf)
	if err != nil {
		id = Identity{Cluster: clusterOf(c.root), ID: h.cert.Leaf.Subject.CommonName}
	}
	h.id = id
	c.held.Store(h)
}

// Identity returns who this server is. A server that has no name yet was never started.
func (c *Credentials) Identity() Identity { return c.held.Load().id }

// Expires returns the end of the certificate.
func (c *Credentials) Expires() time.Time { return c.held.Load().cert.Leaf.NotAfter }

// Certificate returns the certificate to show to others, with its key.
func (c *Credentials) Certificate() *tls.Certificate { return &c.held.Load().cert }

// Root returns the certificate of the cluster's root.
func (c *Credentials) Root() *x509.Certificate { return c.root }

// Authority returns the authority that certifies servers, nil if this server does not have it.
func (c *Credentials) Authority() *Authority { return c.authority }

// Damage returns what is wrong with the keys and certificates on the disk, of which this server holds copies until it
// ends; nil: nothing is.
func (c *Credentials) Damage() error {
	ca := filepath.Join(filepath.Dir(c.dir), "ca")
	root, err := loadCertificate(filepath.Join(ca, certFile))
	if err == nil && !root.Equal(c.root) {
		err = fmt.Errorf("%s has another certificate than when the server started", ca)
	}
	all := []error{err}
	pairs := []string{c.dir}
	if c.authority != nil {
		pairs = append(pairs, filepath.Join(ca, "servers"), filepath.Join(ca, "nodes"))
	}
	for _, dir := range pairs {
		_, err := loadPair(dir)
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Due reports whether it is time to renew the certificate: half of its time is over, or it is not valid yet because a
// clock was wrong.
func (c *Credentials) Due(now time.Time) bool {
	leaf := c.held.Load().cert.Leaf
	return now.Before(leaf.NotBefore) || now.After(leaf.NotAfter.Add(-identityLife/2))
}

// Request returns a request to certify this server's key, in DER (PKCS #10).
func (c *Credentials) Request() ([]byte, error) { return newRequest(c.key, c.Identity().ID) }

func newRequest(key *ecdsa.PrivateKey, id string) ([]byte, error) {
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}

// maxRequest is the size of the largest request to certify a key, in bytes. Ours have 200.
const maxRequest = 4096

// ParseRequest returns the public key in a request to certify it, after a check that who made the request has the key.
func ParseRequest(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > maxRequest {
		return nil, fmt.Errorf("request to certify a key: %d bytes; %d at most", len(der), maxRequest)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("request to certify a key: %v", err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("request to certify a key: it is not an ECDSA key on P-256")
	}
	return key, nil
}

// Says reports whether the certificate, valid now or not, has a name and roles.
func (c *Credentials) Says(name cluster.ServerName, roles []cluster.Role) bool {
	id := c.Identity()
	return id.Name == name && slices.Equal(id.Roles, slices.Sorted(slices.Values(roles)))
}

// Assume makes this server's own authority certify it by a name and roles, unless its certificate says that already and
// is not due. Only a server with an authority may call it.
func (c *Credentials) Assume(name cluster.ServerName, roles []cluster.Role, now time.Time) error {
	if c.Says(name, roles) && !c.Due(now) {
		return nil
	}
	id := c.Identity()
	id.Name, id.Roles = name, slices.Sorted(slices.Values(roles))
	chain, err := c.authority.Certify(&c.key.PublicKey, id, now)
	if err != nil {
		return err
	}
	return c.Install(chain)
}

// Install makes a chain of certificates in PEM those of this server, on disk too. The first one must be for its key and
// its id.
func (c *Credentials) Install(chain []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	certs := decode(chain)
	id, err := c.Verify(certs, x509.ExtKeyUsageServerAuth)
	if err != nil && !errors.Is(err, ErrOutdated) {
		return fmt.Errorf("install certificate: %w", err)
	}
	key, ok := certs[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || !key.Equal(&c.key.PublicKey) || id.ID != c.Identity().ID {
		return errors.New("install certificate: it is not for this server's key and id")
	}
	if err := durable.WriteFile(filepath.Join(c.dir, certFile), chain, 0o600); err != nil {
		return err
	}
	c.hold(chain)
	return nil
}

// maxChain is how many certificates a server shows at most: its own, that of the authority for servers, the root's.
const maxChain = 3

// Verify returns which server of this cluster the certificates are of, the server's own first. use is what it uses them
// for: to serve or to call. If all is right but the time, it returns who it is, and ErrOutdated.
func (c *Credentials) Verify(certs []*x509.Certificate, use x509.ExtKeyUsage) (Identity, error) {
	return verify(certs, use, c.root)
}

func verify(certs []*x509.Certificate, use x509.ExtKeyUsage, root *x509.Certificate) (Identity, error) {
	if len(certs) == 0 || len(certs) > maxChain {
		return Identity{}, fmt.Errorf("%d certificates, want 1 to %d", len(certs), maxChain)
	}
	leaf, o := certs[0], x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: serverName,
		KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: time.Now(),
	}
	o.Roots.AddCert(root)
	for _, cert := range certs[1:] {
		o.Intermediates.AddCert(cert)
	}
	id, err := identityOf(leaf)
	if err != nil {
		return Identity{}, err
	}
	_, err = leaf.Verify(o)
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		outdated := fmt.Errorf("%w (%s to %s; this machine's clock says %s)", ErrOutdated,
			moment(leaf.NotBefore), moment(leaf.NotAfter), moment(o.CurrentTime))
		if o.CurrentTime.After(leaf.NotAfter.Add(renewable)) {
			return Identity{}, fmt.Errorf("%v, and too old to be renewed: the server has to join again", outdated)
		}
		o.CurrentTime = leaf.NotAfter
		if _, err = leaf.Verify(o); err == nil {
			err = outdated
		}
	}
	if err != nil && !errors.Is(err, ErrOutdated) {
		return Identity{}, err
	}
	if id.Cluster != clusterOf(root) {
		return Identity{}, errors.New("the certificate names another cluster than its authority")
	}
	return id, err
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// decode returns the certificates in a text in PEM. It stops at what is none.
func decode(text []byte) (list []*x509.Certificate) {
	for len(list) < maxChain {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			break
		}
		list = append(list, cert)
	}
	return list
}

func loadCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs := decode(text)
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate", path)
	}
	return certs[0], nil
}

// NewID returns a random id of a server.
func NewID() string { return strings.ToLower(rand.Text()) }

// makeIdentity makes the identity of a server that has no name yet. No other server accepts it.
func makeIdentity(data string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: NewID()}, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(identityLife),
	}
	cert, err := certify(t, &key.PublicKey, &pair{key: key, cert: t})
	if err != nil {
		return err
	}
	return (&pair{key: key, cert: cert}).save(filepath.Join(data, "identity"))
}
