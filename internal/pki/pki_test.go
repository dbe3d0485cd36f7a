package pki

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/testkit"
)

func TestInitMakesADirectoryThatLoads(t *testing.T) {
	data := filepath.Join(t.TempDir(), "a", "b")
	id := testkit.Value(Init(data))(t)
	if loaded := testkit.Value(load(data))(t); id == "" || loaded.id != id {
		t.Errorf("id %q, loaded %q", id, loaded.id)
	}
	for _, part := range parts() {
		if fi, err := os.Stat(filepath.Join(data, part)); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v", part, err)
		}
	}
	testkit.Must(t, filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := e.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v, %v", path, fi.Mode(), err)
		}
		return nil
	}))
}

func TestInitChangesNothingThatExists(t *testing.T) {
	data := t.TempDir()
	testkit.Value(Init(data))(t)
	key := filepath.Join(data, "ca", keyFile)
	before := testkit.Value(os.ReadFile(key))(t)
	if _, err := Init(data); !errors.Is(err, errInitialised) {
		t.Errorf("second Init: %v", err)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(data, "format"), []byte("2\n"), 0o600))
	if _, err := Init(data); !errors.Is(err, errInitialised) {
		t.Errorf("Init over a newer format: %v", err)
	}
	if _, err := load(data); !errors.Is(err, errNewerFormat) {
		t.Errorf("load of a newer format: %v", err)
	}
	if after, err := os.ReadFile(key); err != nil || string(after) != string(before) {
		t.Errorf("the key changed: %v", err)
	}
}

func TestInitRefusesADirectoryWithOtherFiles(t *testing.T) {
	data := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(data, "thesis.txt"), nil, 0o644))
	if _, err := Init(data); !errors.Is(err, errNotEmpty) || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("Init: %v", err)
	}
	if there, err := os.ReadDir(data); err != nil || len(there) != 1 {
		t.Errorf("there is now %v, %v", there, err)
	}
}

func TestInitCompletesADirectoryOfAnInterruptedInit(t *testing.T) {
	data := t.TempDir()
	testkit.Must(t,
		os.MkdirAll(filepath.Join(data, "ca"), 0o700),
		os.WriteFile(filepath.Join(data, "ca", keyFile), []byte("half"), 0o600),
	)
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		t.Errorf("Check: %v", err)
	}
	if _, err := Init(data); err != nil {
		t.Error(err)
	}
}

// clientTLS and serverTLS are the configurations by which servers of one cluster talk to each other.
func clientTLS(i *identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.cert}, RootCAs: i.ca, ServerName: serverName,
	}
}

func serverTLS(i *identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: i.ca,
	}
}

func TestServersOfOneClusterOnlyAcceptEachOther(t *testing.T) {
	identityOf := func(data string) *identity {
		testkit.Value(Init(data))(t)
		return testkit.Value(load(data))(t)
	}
	ours, theirs := identityOf(t.TempDir()), identityOf(t.TempDir())
	for _, tt := range []struct {
		name   string
		client *tls.Config
		ok     bool
	}{
		{"of the cluster", clientTLS(ours), true},
		{"of another cluster", clientTLS(theirs), false},
		{"with another cluster's certificate", &tls.Config{
			RootCAs: ours.ca, ServerName: serverName, Certificates: []tls.Certificate{theirs.cert},
		}, false},
		{"without a certificate", &tls.Config{RootCAs: ours.ca, ServerName: serverName}, false},
	} {
		if err := handshake(t, serverTLS(ours), tt.client); (err == nil) != tt.ok {
			t.Errorf("a client %s: %v", tt.name, err)
		}
	}
}

// handshake connects a client to a server and passes one byte.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		_, err := s.Write([]byte{1})
		if err != nil {
			a.Close()
		}
		served <- err
	}()
	c := tls.Client(b, client)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := c.Read(make([]byte, 1))
	if err != nil {
		b.Close()
	}
	return errors.Join(err, <-served)
}
