package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"dim/internal/cluster"
	"dim/internal/durable"
)

// joiningDir has the key of a server that is joining, and then its certificates. readyFile is written last: from then
// on the join is complete, and Open puts everything in its place.
const (
	joiningDir = "joining"
	rootFile   = "root.pem"
	shareFile  = "authorities.json" // of a head
	tokenFile  = "token"
	readyFile  = "ready"
)

// JoinedWith reports whether this server has joined with a token, which is named by what Answer.Token was.
func (c *Credentials) JoinedWith(token string) bool {
	used, err := os.ReadFile(filepath.Join(c.dir, tokenFile))
	return err == nil && string(used) == token+"\n"
}

// Joining is a server that is about to join a cluster.
type Joining struct {
	data string
	key  *ecdsa.PrivateKey
}

// BeginJoin makes the key of a server that is to join a cluster, and its data directory if there is none. A join that
// was interrupted goes on with the same key. The caller keeps other processes from the directory.
//
// The error is ErrInitialised if the directory has an identity already and existing is KeepIdentity.
func BeginJoin(data string, existing Existing) (*Joining, error) {
	if err := completeJoin(data); err != nil {
		return nil, err
	}
	switch err := Check(data); {
	case err == nil && existing != ReplaceIdentity:
		return nil, fmt.Errorf("join with %s: %w", data, ErrInitialised)
	case errors.Is(err, ErrNotInitialised):
		if err := makeDirs(data); err != nil {
			return nil, fmt.Errorf("join with %s: %w", data, err)
		}
	case err != nil:
		return nil, err
	}
	dir := filepath.Join(data, joiningDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if key, err := loadKey(dir); err == nil {
		return &Joining{data, key}, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Joining{data, key}, saveKey(dir, key)
}

// Existing says what becomes of an identity that a data directory has.
type Existing int

// What becomes of an existing identity.
const (
	KeepIdentity    Existing = iota // it is an error
	ReplaceIdentity                 // a join replaces it, and its authority if it has one
)

// Request returns a request to certify the key, in DER (PKCS #10).
func (j *Joining) Request() ([]byte, error) { return newRequest(j.key, "") }

// Answer is what a head answers to a server that joins.
type Answer struct {
	Root      []byte // the certificate of the root, in DER
	Chain     []byte // the chain of certificates for the server's key, in PEM
	Authority []byte // what ShareAuthority has returned there, for a head; nil: the server is to be none
	Token     string // a name of the token with which the server joins, not its secret
}

// Complete stores what a head has answered. prepare is called with who the server is then, before anything is replaced.
// A crash at any moment leaves the identity before or the new one.
func (j *Joining) Complete(a Answer, prepare func(Identity) error) error {
	rootCert, err := x509.ParseCertificate(a.Root)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	certs := decode(a.Chain)
	id, err := verify(certs, x509.ExtKeyUsageServerAuth, rootCert)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if key, ok := certs[0].PublicKey.(*ecdsa.PublicKey); !ok || !key.Equal(&j.key.PublicKey) {
		return errors.New("join: the certificate is for another key")
	}
	if a.Authority != nil {
		if _, err := parseAuthority(a.Authority, rootCert); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if err := prepare(id); err != nil {
		return err
	}
	return j.keep(encode(rootCert), a)
}

// keep writes the files of the join, and puts them in their places.
func (j *Joining) keep(root []byte, a Answer) error {
	dir := filepath.Join(j.data, joiningDir)
	share := filepath.Join(dir, shareFile)
	if a.Authority == nil {
		if err := os.RemoveAll(share); err != nil {
			return err
		}
	} else if err := durable.WriteFile(share, a.Authority, 0o600); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{rootFile, root}, {certFile, a.Chain}, {tokenFile, []byte(a.Token + "\n")}, {readyFile, []byte("1\n")}} {
		if err := durable.WriteFile(filepath.Join(dir, f.name), f.text, 0o600); err != nil {
			return err
		}
	}
	return completeJoin(j.data)
}

// completeJoin puts the files of a complete join in their places. It does nothing if there is none.
func completeJoin(data string) error {
	dir, done := filepath.Join(data, joiningDir), filepath.Join(data, ".tmp-joined")
	if err := os.RemoveAll(done); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, readyFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		return err
	}
	if err := setStateAside(data); err != nil {
		return err
	}
	for _, name := range []string{"ca/servers", "ca/nodes", "ca/" + keyFile, "identity/etcd"} {
		if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
			return err
		}
	}
	for _, move := range [][2]string{
		{rootFile, "ca/" + certFile}, {keyFile, "identity/" + keyFile}, {certFile, "identity/" + certFile},
		{tokenFile, "identity/" + tokenFile},
	} {
		text, err := os.ReadFile(filepath.Join(dir, move[0]))
		if move[0] == tokenFile && errors.Is(err, fs.ErrNotExist) {
			continue // an earlier program began the join
		}
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(data, move[1]), text, 0o600); err != nil {
			return err
		}
	}
	root, err := loadCertificate(filepath.Join(dir, rootFile))
	if err != nil {
		return err
	}
	if err := installAuthority(data, filepath.Join(dir, shareFile), root); err != nil {
		return err
	}
	if err := writeFormat(data); err != nil {
		return err
	}
	for _, part := range []string{".", "ca", "ca/servers", "ca/nodes", "identity"} {
		if err := durable.RemoveTemps(filepath.Join(data, part)); err != nil {
			return err
		}
	}
	if err := os.Rename(dir, done); err != nil {
		return err
	}
	if err := durable.SyncDir(data); err != nil {
		return err
	}
	return os.RemoveAll(done)
}

// setStateAside renames the directory of the embedded etcd, if it has one: with a new identity a head takes part in the
// shared state as a new member.
func setStateAside(data string) error {
	coord := filepath.Join(data, "coord")
	if _, err := os.Stat(filepath.Join(coord, "member")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	aside := coord + ".replaced"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(coord, aside); err != nil {
		return err
	}
	return os.Mkdir(coord, 0o700)
}

// VerifyHead checks that certificates, which a stranger shows, are of a head of the cluster whose root has the digest.
// They must contain the root.
func VerifyHead(certs []*x509.Certificate, digest [sha256.Size]byte) error {
	for _, cert := range certs {
		if Digest(cert) != digest {
			continue
		}
		id, err := verify(certs, x509.ExtKeyUsageServerAuth, cert)
		if err == nil && !id.Is(cluster.RoleHead) {
			err = fmt.Errorf("it is server %s, which is no head", id.Name)
		}
		return err
	}
	return errors.New("it is not a head of the cluster that the token is from")
}

// KeyDigest identifies a public key in the shared state.
func KeyDigest(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
