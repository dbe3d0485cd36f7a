// Package pki makes a data directory and the keys in it.
//
// # Concepts
//
// The first server of a cluster has the cluster's certificate authority (ca/). Every server has an identity
// (identity/): a random id, a key, and a certificate of that authority with the id as its common name. With their
// certificates, servers prove to each other over TLS that they belong to the cluster.
//
// Keys are ECDSA on P-256, which every TLS library and every TPM supports.
//
// # Invariants
//
// DATA/format is written last, so a directory that has it is complete. An Init that was interrupted can be run again.
// Only the superuser can enter the directory (0700): layers contain setuid programs that nodes wrote.
//
// It must not know what is kept in the directories that it makes.
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
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dim/internal/durable"
)

// ErrNotInitialised means that a directory is not a data directory.
var ErrNotInitialised = errors.New("not initialised")

var (
	errInitialised = errors.New("already initialised")
	errNotEmpty    = errors.New("not empty, and not a data directory")
	errNewerFormat = errors.New("made by a newer dim")
)

// format is the version of the layout, see docs/formats/data.md.
const format = 1

// serverName is the DNS name in the certificates of all servers. A certificate proves that a server belongs to the
// cluster. Which addresses the server has is not part of it: they may change.
const serverName = "server.dim"

const (
	caLife       = 30 * 365 * 24 * time.Hour
	identityLife = 10 * 365 * 24 * time.Hour
	clockSkew    = 24 * time.Hour // of a machine whose clock has no battery
)

// parts are the directories in a data directory.
func parts() []string { return []string{"ca", "identity", "store", "replicas", "coord", "cache"} }

// Init makes a data directory with a new authority and a new identity, and returns the identity's id. It fails, and
// changes nothing, if the directory is a data directory already or contains other files.
func Init(data string) (id string, err error) {
	if err := initialise(data, time.Now()); err != nil {
		return "", fmt.Errorf("initialise %s: %w", data, err)
	}
	made, err := load(data)
	if err != nil {
		return "", err
	}
	return made.id, nil
}

func initialise(data string, now time.Time) error {
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		if err == nil || errors.Is(err, errNewerFormat) {
			return errInitialised
		}
		return err
	}
	if err := makeDirs(data); err != nil {
		return err
	}
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	server, err := ca.issue(now)
	if err != nil {
		return err
	}
	if err := ca.save(filepath.Join(data, "ca")); err != nil {
		return err
	}
	if err := server.save(filepath.Join(data, "identity")); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(data, "format"), []byte(strconv.Itoa(format)+"\n"), 0o600)
}

// makeDirs makes data and its directories, for the superuser alone.
func makeDirs(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	ours := map[string]bool{"lost+found": true}
	for _, part := range parts() {
		ours[part] = true
	}
	there, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range there {
		if !ours[e.Name()] && !strings.HasPrefix(e.Name(), ".tmp-") {
			return fmt.Errorf("%w: it contains %s", errNotEmpty, e.Name())
		}
	}
	if err := os.Chmod(data, 0o700); err != nil {
		return err
	}
	for _, part := range parts() {
		if err := os.MkdirAll(filepath.Join(data, part), 0o700); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(data); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(filepath.Clean(data)))
}

// Check returns nil if data is a data directory that this program can use. The error is ErrNotInitialised if it is not
// a data directory.
func Check(data string) error {
	b, err := os.ReadFile(filepath.Join(data, "format"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory %s: %w", data, ErrNotInitialised)
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 {
		return fmt.Errorf("data directory %s: format is damaged: it contains %q; check the disk, then: echo %d > %s",
			data, b, format, filepath.Join(data, "format"))
	}
	if n > format {
		return fmt.Errorf("data directory %s: format %d: %w", data, n, errNewerFormat)
	}
	return nil
}

// pair is a key with its certificate.
type pair struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newAuthority makes an authority that can only sign certificates of servers.
func newAuthority(now time.Time) (*pair, error) {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "dim cluster " + rand.Text()[:8]},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	return certify(t, nil)
}

// issue makes a server's identity.
func (ca *pair) issue(now time.Time) (*pair, error) {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: strings.ToLower(rand.Text())},
		DNSNames:              []string{serverName},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(identityLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	return certify(t, ca)
}

// certify makes a key, and the certificate for it that t describes. The certificate is signed by by, or by its own key
// if by is nil.
func certify(t *x509.Certificate, by *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if by == nil {
		by = &pair{key: key, cert: t}
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, &key.PublicKey, by.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &pair{key: key, cert: cert}, err
}

// The files of a pair.
const (
	keyFile  = "key.pem"
	certFile = "cert.pem"
)

func (p *pair) save(dir string) error {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := durable.WriteFile(filepath.Join(dir, keyFile), key, 0o600); err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
	return durable.WriteFile(filepath.Join(dir, certFile), cert, 0o600)
}

// identity is what a server needs to authenticate itself and other servers.
type identity struct {
	id   string // random, the common name of cert
	cert tls.Certificate
	ca   *x509.CertPool
}

// load reads the identity from a data directory.
func load(data string) (*identity, error) {
	if err := Check(data); err != nil {
		return nil, err
	}
	dir := filepath.Join(data, "identity")
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("load identity %s: %w", dir, err)
	}
	caPath := filepath.Join(data, "ca", certFile)
	b, err := os.ReadFile(caPath)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	id := &identity{cert: cert, ca: x509.NewCertPool(), id: cert.Leaf.Subject.CommonName}
	if !id.ca.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("load authority %s: it has no certificate", caPath)
	}
	return id, nil
}
