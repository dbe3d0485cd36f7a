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
)

func TestInitMakesADirectoryThatLoads(t *testing.T) {
	data := filepath.Join(t.TempDir(), "a", "b")
	id, err := Init(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(data)
	if err != nil {
		t.Fatal(err)
	}
	if id.ID == "" || again.ID != id.ID {
		t.Errorf("id %q, loaded %q", id.ID, again.ID)
	}
	for _, part := range parts() {
		if fi, err := os.Stat(filepath.Join(data, part)); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v", part, err)
		}
	}
	err = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := e.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v, %v", path, fi.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInitChangesNothingThatExists(t *testing.T) {
	data := t.TempDir()
	if _, err := Init(data); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(data, "ca", keyFile)
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(data); !errors.Is(err, ErrInitialised) {
		t.Errorf("second Init: %v", err)
	}
	if err := os.WriteFile(filepath.Join(data, "format"), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(data); !errors.Is(err, ErrInitialised) {
		t.Errorf("Init over a newer format: %v", err)
	}
	if _, err := Load(data); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("Load of a newer format: %v", err)
	}
	if after, err := os.ReadFile(key); err != nil || string(after) != string(before) {
		t.Errorf("the key changed: %v", err)
	}
}

func TestInitLeavesOtherPeoplesDirectoriesAlone(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(data); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("Init: %v", err)
	}
	if there, err := os.ReadDir(data); err != nil || len(there) != 1 {
		t.Errorf("there is now %v, %v", there, err)
	}
}

func TestAnInterruptedInitIsRunAgain(t *testing.T) {
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "ca"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "ca", keyFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		t.Errorf("Check: %v", err)
	}
	if _, err := Init(data); err != nil {
		t.Error(err)
	}
}

func TestOnlyServersOfOneClusterTalk(t *testing.T) {
	ours, err := Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		client *tls.Config
		ok     bool
	}{
		{"of the cluster", ours.ClientTLS(), true},
		{"of another cluster", theirs.ClientTLS(), false},
		{"with another cluster's certificate", &tls.Config{
			RootCAs: ours.ca, ServerName: serverName, Certificates: []tls.Certificate{theirs.cert},
		}, false},
		{"without a certificate", &tls.Config{RootCAs: ours.ca, ServerName: serverName}, false},
	} {
		if err := handshake(t, ours.ServerTLS(), tt.client); (err == nil) != tt.ok {
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
