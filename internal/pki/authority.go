package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"dim/internal/durable"
)

const (
	authorityLife = 30 * 365 * 24 * time.Hour
	// authorityPast is longer than a certificate can be renewed, so that an expired one has a time at which all of its
	// chain was valid.
	authorityPast = 365 * 24 * time.Hour
	identityLife  = 30 * 24 * time.Hour
	renewable     = 180 * 24 * time.Hour // after the end of a certificate: a machine may be off for so long
	clockSkew     = 24 * time.Hour       // of a machine whose clock has no battery
)

// serverName is the DNS name in the certificates of all servers. Which server it is of is in the URI. Which addresses
// the server has is not part of it: they may change.
const serverName = "server.dim"

// pair is a key with its certificate.
type pair struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newRoot makes a root that can only sign intermediate authorities and certificates of servers.
func newRoot(now time.Time) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &pair{key: key, cert: &x509.Certificate{Subject: pkix.Name{CommonName: "dim cluster " + rand.Text()[:8]}}}
	return p.resign(now)
}

// resign makes a new certificate of a root, with its key and its name.
func (p *pair) resign(now time.Time) (*pair, error) {
	t := &x509.Certificate{
		Subject:               p.cert.Subject,
		NotBefore:             now.Add(-authorityPast),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            1,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	cert, err := certify(t, &p.key.PublicKey, &pair{key: p.key, cert: t})
	return &pair{key: p.key, cert: cert}, err
}

// makeIntermediates makes the authorities for servers and for nodes that do not exist yet.
func makeIntermediates(data string, root *pair, now time.Time) error {
	cluster := clusterOf(root.cert)
	for _, a := range []struct {
		name, host, dns string
		usages          []x509.ExtKeyUsage
	}{
		{"servers", hostServer, serverName, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
		{"nodes", hostNode, "node.dim", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		dir := filepath.Join(data, "ca", a.name)
		if p, err := loadPair(dir); err == nil && p.cert.CheckSignatureFrom(root.cert) == nil {
			continue
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		t := &x509.Certificate{
			Subject:                     pkix.Name{CommonName: root.cert.Subject.CommonName + ", " + a.name},
			NotBefore:                   now.Add(-authorityPast),
			NotAfter:                    root.cert.NotAfter,
			IsCA:                        true,
			BasicConstraintsValid:       true,
			MaxPathLenZero:              true,
			KeyUsage:                    x509.KeyUsageCertSign,
			ExtKeyUsage:                 a.usages,
			PermittedDNSDomainsCritical: true,
			PermittedDNSDomains:         []string{a.dns},
			PermittedURIDomains:         []string{a.host + cluster + hostEnd},
		}
		cert, err := certify(t, &key.PublicKey, root)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := (&pair{key: key, cert: cert}).save(dir); err != nil {
			return err
		}
	}
	return nil
}

// Authority certifies servers. A head has it.
type Authority struct {
	servers *pair
	root    *x509.Certificate
}

// loadAuthority returns the authority of a data directory, nil if the directory has none.
func loadAuthority(data string, root *x509.Certificate) (*Authority, error) {
	servers, err := loadPair(filepath.Join(data, "ca", "servers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = servers.cert.CheckSignatureFrom(root)
	}
	if err != nil {
		return nil, fmt.Errorf("load authority for servers: %w", err)
	}
	return &Authority{servers: servers, root: root}, nil
}

// Certify returns the certificate of a server, in PEM, with that of the authority after it. key is the server's public
// key. The cluster of id is ignored: it is the authority's.
func (a *Authority) Certify(key *ecdsa.PublicKey, id Identity, now time.Time) ([]byte, error) {
	id.Cluster = clusterOf(a.root)
	uri := id.uri()
	if _, err := parseURI(uri); err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: id.ID},
		DNSNames:              []string{serverName},
		URIs:                  []*url.URL{uri},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(identityLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := certify(t, key, a.servers)
	if err != nil {
		return nil, fmt.Errorf("certify server %s: %w", id.Name, err)
	}
	return append(encode(cert), encode(a.servers.cert)...), nil
}

// certify makes the certificate that t describes for a public key, signed by by.
func certify(t *x509.Certificate, key *ecdsa.PublicKey, by *pair) (*x509.Certificate, error) {
	var err error
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key, by.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Digest identifies a root: the digest of its public key. A new certificate for the same key has the same digest.
func Digest(root *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(root.RawSubjectPublicKeyInfo)
}

// clusterOf returns the id of a root's cluster.
func clusterOf(root *x509.Certificate) string {
	d := Digest(root)
	return hex.EncodeToString(d[:10])
}

// The files of a pair.
const (
	keyFile  = "key.pem"
	certFile = "cert.pem"
)

func encode(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func (p *pair) save(dir string) error {
	if err := saveKey(dir, p.key); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, certFile), encode(p.cert), 0o600)
}

func saveKey(dir string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return durable.WriteFile(filepath.Join(dir, keyFile), text, 0o600)
}

// loadPair reads a key and the certificate that belongs to it.
func loadPair(dir string) (*pair, error) {
	loaded, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	key, ok := loaded.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("load %s: the key is not an ECDSA key", dir)
	}
	return &pair{key: key, cert: loaded.Leaf}, nil
}
