// Package pki makes a data directory and the keys in it, and gives the TLS configurations that follow from them.
//
// # Concepts
//
// The machine that is initialised first has the cluster's certificate authority (ca/). Every server has an identity: a random id, a
// key and a certificate of that authority (identity/). Servers prove to each other that they belong to the cluster, both ways; which of
// them they are is the certificate's common name.
//
// Keys are ECDSA on P-256: every TLS library and every TPM can do it.
//
// # Invariants
//
// DATA/format is written last, so a directory that has it is whole; an Init that was interrupted is simply run again. The
// directory is the superuser's alone (0700): layers hold setuid programs that nodes wrote.
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

// The errors to branch on.
var (
	// ErrInitialised: the directory is a data directory already.
	ErrInitialised = errors.New("already initialised")
	// ErrNotInitialised: the directory is not a data directory.
	ErrNotInitialised = errors.New("not initialised")
	// ErrNotEmpty: the directory holds something else.
	ErrNotEmpty = errors.New("not empty, and not a data directory")
	// ErrNewerFormat: the directory was made by a newer dim.
	ErrNewerFormat = errors.New("made by a newer dim")
)

// format is the version of the layout, see docs/formats/data.md.
const format = 1

// serverName is the name that every server's certificate is good for. Servers are found by address, which may change;
// that they belong to the cluster is what counts.
const serverName = "server.dim"

const (
	caLife       = 30 * 365 * 24 * time.Hour
	identityLife = 10 * 365 * 24 * time.Hour
	clockSkew    = 24 * time.Hour // a machine without a battery may live yesterday
)

// parts are the directories in a data directory.
func parts() []string { return []string{"ca", "identity", "store", "replicas", "coord", "cache"} }

// Init makes a data directory with a new authority and a new identity. It changes nothing in one that exists (ErrInitialised)
// and nothing in a directory that holds other things (ErrNotEmpty).
func Init(data string) (*Identity, error) {
	if err := initialise(data, time.Now()); err != nil {
		return nil, fmt.Errorf("initialise %s: %w", data, err)
	}
	return Load(data)
}

func initialise(data string, now time.Time) error {
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		if err == nil || errors.Is(err, ErrNewerFormat) {
			return ErrInitialised
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
	identity, err := ca.issue(now)
	if err != nil {
		return err
	}
	if err := ca.save(filepath.Join(data, "ca")); err != nil {
		return err
	}
	if err := identity.save(filepath.Join(data, "identity")); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(data, "format"), []byte(strconv.Itoa(format)+"\n"), 0o600)
}

// makeDirs makes data and what belongs in it, for the superuser alone.
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
			return fmt.Errorf("%w: there is %s", ErrNotEmpty, e.Name())
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

// Check tells whether data is a data directory that this program can use: nil, ErrNotInitialised, ErrNewerFormat or what
// keeps it from being read.
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
		return fmt.Errorf("data directory %s: format %q is none", data, b)
	}
	if n > format {
		return fmt.Errorf("data directory %s: format %d: %w", data, n, ErrNewerFormat)
	}
	return nil
}

// pair is a key with its certificate.
type pair struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newAuthority makes an authority that can do nothing but sign servers.
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

// certify makes a key and has by sign the certificate that t describes; nil: the key itself.
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

// Identity is what a server proves itself with.
type Identity struct {
	ID   string // random, for ever this server's
	cert tls.Certificate
	ca   *x509.CertPool
}

// Load reads the identity of the server whose data directory it is.
func Load(data string) (*Identity, error) {
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
	id := &Identity{cert: cert, ca: x509.NewCertPool(), ID: cert.Leaf.Subject.CommonName}
	if !id.ca.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("load authority %s: no certificate in it", caPath)
	}
	return id, nil
}

// ServerTLS returns how to listen for the cluster's other servers: nobody else gets in.
func (i *Identity) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    i.ca,
	}
}

// ClientTLS returns how to call one of the cluster's servers, at whatever address.
func (i *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.cert},
		RootCAs:      i.ca,
		ServerName:   serverName,
	}
}
