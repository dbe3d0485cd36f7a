// Package pki makes a data directory and the keys in it, and knows who holds a certificate.
//
// # Concepts
//
// The first head of a cluster has the cluster's certificate authority (ca/): a root, and two intermediate authorities
// that the root has signed, one for servers and one for nodes. Name constraints in the intermediates keep the two
// apart: no certificate of the one can pass for one of the other.
//
// Every server has an identity (identity/): a random id, a key, and a certificate of the authority for servers. Its URI
// names the cluster, the id, the name of the server in the description, and its roles. A server that joins a cluster
// makes its key itself; the key never leaves the machine.
//
// Certificates of servers are valid for 30 days. They are renewed when half of that is over, with the same key.
//
// Keys are ECDSA on P-256, which every TLS library and every TPM supports.
//
// # Invariants
//
// DATA/format is written last, so a directory that has it is complete. An Init that was interrupted can be run again,
// and so can an upgrade from format 1 and the completion of a join. Only the superuser can enter the directory (0700):
// layers contain setuid programs that nodes wrote.
//
// It must not know what is kept in the directories that it makes, nor how certificates travel.
package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dim/internal/durable"
)

// Errors to branch on.
var (
	// ErrNotInitialised means that a directory is not a data directory.
	ErrNotInitialised = errors.New("not initialised")
	// ErrInitialised means that a directory has an identity already.
	ErrInitialised = errors.New("already initialised")
)

var (
	errNotEmpty    = errors.New("not empty, and not a data directory")
	errNewerFormat = errors.New("made by a newer dim")
)

// format is the version of the layout, see docs/formats/data.md.
const format = 2

// parts are the directories in a data directory.
func parts() []string {
	return []string{"ca", "ca/servers", "ca/nodes", "identity", "store", "replicas", "coord", "cache"}
}

// Init makes a data directory with a new authority and a new identity, and returns the identity's id. It fails, and
// changes nothing, if the directory is a data directory already or contains other files.
func Init(data string) (id string, err error) {
	if err := initialise(data, time.Now()); err != nil {
		return "", fmt.Errorf("initialise %s: %w", data, err)
	}
	made, err := Open(data)
	if err != nil {
		return "", err
	}
	return made.Identity().ID, nil
}

func initialise(data string, now time.Time) error {
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		if err == nil || errors.Is(err, errNewerFormat) {
			return ErrInitialised
		}
		return err
	}
	if err := makeDirs(data); err != nil {
		return err
	}
	root, err := newRoot(now)
	if err != nil {
		return err
	}
	if err := root.save(filepath.Join(data, "ca")); err != nil {
		return err
	}
	if err := makeIntermediates(data, root, now); err != nil {
		return err
	}
	if err := makeIdentity(data, now); err != nil {
		return err
	}
	return writeFormat(data)
}

func writeFormat(data string) error {
	return durable.WriteFile(filepath.Join(data, "format"), []byte(strconv.Itoa(format)+"\n"), 0o600)
}

// checkEmpty returns an error if data has files that do not belong to a data directory. An interrupted join may have
// left any files: then there is no error.
func checkEmpty(data string) error {
	if _, err := os.Stat(filepath.Join(data, joiningDir)); err == nil {
		return nil
	}
	ours := map[string]bool{"lost+found": true, "lock": true}
	for _, part := range parts() {
		ours[part] = true
	}
	there, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range there {
		if !ours[e.Name()] && !strings.HasPrefix(e.Name(), ".tmp-") {
			return fmt.Errorf("%w: it contains %s", errNotEmpty, e.Name())
		}
	}
	return nil
}

// makeDirs makes data and its directories, for the superuser alone.
func makeDirs(data string) error {
	if err := checkEmpty(data); err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
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
	_, err := formatOf(data)
	return err
}

// formatOf returns the format of a data directory, which is at most this program's.
func formatOf(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, "format"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("data directory %s: %w", data, ErrNotInitialised)
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("data directory %s: format is damaged: it contains %q; check the disk, then: echo %d > %s",
			data, b, format, filepath.Join(data, "format"))
	}
	if n > format {
		return 0, fmt.Errorf("data directory %s: format %d: %w", data, n, errNewerFormat)
	}
	return n, nil
}

// upgrade brings a data directory of format 1 to this one. The root of format 1 may not sign intermediate authorities.
// It gets a new certificate with the same key and name, so that its identity goes on to hold. Nobody else has the old
// certificate, because servers could not join a cluster in format 1.
//
// A crash at any moment leaves a directory in which upgrade can be run again, and in which a program that knows only
// format 1 still runs.
func upgrade(data string, now time.Time) error {
	dir := filepath.Join(data, "ca")
	root, err := loadPair(dir)
	if err != nil {
		return err
	}
	if root.cert.MaxPathLen < 1 {
		if root, err = root.resign(now); err != nil {
			return err
		}
		if err := root.save(dir); err != nil {
			return err
		}
	}
	if err := makeIntermediates(data, root, now); err != nil {
		return err
	}
	return writeFormat(data)
}
