package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dim/internal/durable"
)

// memberName is the DNS name in the certificates with which heads prove themselves to each other as members of the
// shared state. The name constraint of the authority for servers allows it. Certificates of servers do not have it, and
// these certificates do not have serverName, so neither can be used as the other.
const memberName = "etcd." + serverName

// MemberFiles are the files that prove a head to the other members of the shared state.
type MemberFiles struct {
	Authority string // the certificate of the root
	Cert, Key string
	Host      string // the DNS name in the certificates of all members
}

// MemberFiles returns the files with which this head proves itself to other members of the shared state. It makes or
// renews the certificate if it is due. Only a server with an authority may call it.
func (c *Credentials) MemberFiles(now time.Time) (MemberFiles, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := filepath.Join(c.dir, "etcd")
	f := MemberFiles{
		Authority: filepath.Join(filepath.Dir(c.dir), "ca", certFile), Cert: filepath.Join(dir, certFile),
		Key: filepath.Join(dir, keyFile), Host: memberName,
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, err
	}
	key, err := loadKey(dir)
	if err != nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return f, err
		}
		if err := saveKey(dir, key); err != nil {
			return f, err
		}
	}
	if own, err := loadPair(dir); err == nil && c.memberGood(own.cert, now) {
		return f, nil
	}
	chain, err := c.authority.certifyMember(&key.PublicKey, c.Identity().ID, now)
	if err != nil {
		return f, err
	}
	return f, durable.WriteFile(f.Cert, chain, 0o600)
}

// memberGood reports whether a certificate of a member need not be made again.
func (c *Credentials) memberGood(cert *x509.Certificate, now time.Time) bool {
	return now.After(cert.NotBefore) && now.Before(cert.NotAfter.Add(-identityLife/2)) &&
		cert.Subject.CommonName == c.Identity().ID && cert.CheckSignatureFrom(c.authority.servers.cert) == nil
}

// certifyMember returns the certificate of a member of the shared state, in PEM, with that of the authority after it.
func (a *Authority) certifyMember(key *ecdsa.PublicKey, id string, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: id},
		DNSNames:              []string{memberName},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(identityLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := certify(t, key, a.servers)
	if err != nil {
		return nil, fmt.Errorf("certify member %s: %w", id, err)
	}
	return append(encode(cert), encode(a.servers.cert)...), nil
}

// maxAuthority is the size of the largest text with authorities, in bytes. Ours have 2,000.
const maxAuthority = 32 << 10

// sharedPair is a key and its certificate, in PEM.
type sharedPair struct {
	Key  string `json:"key"`
	Cert string `json:"cert"`
}

// sharedAuthorities are the names of the authorities that every head has. The root's key is not one of them.
func sharedAuthorities() []string { return []string{"servers", "nodes"} }

// ShareAuthority returns the authorities for servers and nodes with their keys, as another head gets them. Whoever has
// the result can make servers of the cluster.
func (c *Credentials) ShareAuthority() ([]byte, error) {
	all := map[string]sharedPair{}
	for _, name := range sharedAuthorities() {
		dir := filepath.Join(filepath.Dir(c.dir), "ca", name)
		key, err := os.ReadFile(filepath.Join(dir, keyFile))
		if err != nil {
			return nil, err
		}
		cert, err := os.ReadFile(filepath.Join(dir, certFile))
		if err != nil {
			return nil, err
		}
		all[name] = sharedPair{string(key), string(cert)}
	}
	return json.Marshal(all)
}

// parseAuthority is the inverse of ShareAuthority. All authorities must be signed by root.
func parseAuthority(text []byte, root *x509.Certificate) (map[string]*pair, error) {
	if len(text) > maxAuthority {
		return nil, fmt.Errorf("authorities of another head: %d bytes; %d at most", len(text), maxAuthority)
	}
	var all map[string]sharedPair
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("authorities of another head: %v", err)
	}
	made := map[string]*pair{}
	for _, name := range sharedAuthorities() {
		loaded, err := tls.X509KeyPair([]byte(all[name].Cert), []byte(all[name].Key))
		if err != nil {
			return nil, fmt.Errorf("authority for %s of another head: %v", name, err)
		}
		key, ok := loaded.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("authority for %s of another head: the key is not an ECDSA key", name)
		}
		if err := loaded.Leaf.CheckSignatureFrom(root); err != nil {
			return nil, fmt.Errorf("authority for %s of another head: %v", name, err)
		}
		made[name] = &pair{key: key, cert: loaded.Leaf}
	}
	return made, nil
}

// installAuthority reads the authorities that a head has sent from a file, and writes them below ca. There may be no
// file.
func installAuthority(data, file string, root *x509.Certificate) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := parseAuthority(text, root)
	if err != nil {
		return err
	}
	for name, p := range all {
		dir := filepath.Join(data, "ca", name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := p.save(dir); err != nil {
			return err
		}
	}
	return nil
}

// Certificate returns what the joining server proves itself with before the join is complete. chain is what a head has
// answered.
func (j *Joining) Certificate(chain []byte) (*tls.Certificate, error) {
	certs := decode(chain)
	if len(certs) == 0 {
		return nil, errors.New("join: the head has sent no certificate")
	}
	made := &tls.Certificate{PrivateKey: j.key, Leaf: certs[0]}
	for _, cert := range certs {
		made.Certificate = append(made.Certificate, cert.Raw)
	}
	return made, nil
}

// loadKey reads the ECDSA key in a directory.
func loadKey(dir string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return ec, nil
}
