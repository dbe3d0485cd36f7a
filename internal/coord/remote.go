package coord

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
)

// Remote is an existing etcd, and what makes the connection to it safe. The zero Remote is none.
type Remote struct {
	Endpoints    []string // "https://etcd1:2379"
	CA           string   // file with the certificates of its authorities (PEM); "": those of the system
	Cert, Key    string   // files of the certificate that proves who we are
	User         string   // of etcd; "": none
	PasswordFile string   // holds the user's password
}

// Check returns an error unless it takes more than a network connection to read and change the state: whoever can
// change it decides what all nodes run. A unix socket has the permissions of its file. The loopback address does not
// count as safe, because every user of this machine reaches it; but a password may be sent there without TLS.
func (r Remote) Check() error {
	if (r.Cert == "") != (r.Key == "") {
		return errors.New("a certificate and its key belong together")
	}
	if (r.User == "") != (r.PasswordFile == "") {
		return errors.New("a user and a file with the password belong together")
	}
	for _, e := range r.Endpoints {
		if err := r.checkEndpoint(e); err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
	}
	return nil
}

func (r Remote) checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" && u.Scheme != "unix" {
		return errors.New("not a URL such as https://etcd1:2379")
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	loopback := addr.IsLoopback() || u.Hostname() == "localhost"
	switch {
	case u.Scheme == "unix" || u.Scheme == "unixs":
		return nil
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback):
		return errors.New("its connection is not encrypted, so anyone on the way can change what all nodes run")
	case u.Scheme == "https" && (r.CA != "" || r.Cert != ""), r.User != "":
		return nil
	}
	return errors.New("nothing proves that it is the right etcd, or that only this server may change it")
}

// tls returns the TLS configuration, nil if no endpoint needs one.
func (r Remote) tls() (*tls.Config, error) {
	if r.CA == "" && r.Cert == "" {
		return nil, nil // https uses the authorities of the system
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.CA != "" {
		text, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read %s: no certificates in PEM form", r.CA)
		}
	}
	if r.Cert != "" {
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// password returns the user's password, without the end of its line.
func (r Remote) password() (string, error) {
	if r.PasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(r.PasswordFile)
	if err != nil {
		return "", err
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return "", fmt.Errorf("read %s: it is empty", r.PasswordFile)
	}
	return string(text), nil
}
