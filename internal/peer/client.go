package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"dim/internal/cluster"
)

// Bounds of a Client.
const (
	connectTimeout   = 5 * time.Second  // for each address of a server
	handshakeTimeout = 10 * time.Second // of TLS
	answerTimeout    = time.Minute      // until the header of an answer
	idleConns        = 4                // that are kept for each server
)

// Client calls other servers. Its methods may be called from any number of goroutines.
type Client struct {
	Options
	http *http.Client

	mu   sync.Mutex
	open map[*outgoing]bool
}

// NewClient returns a Client.
func NewClient(o Options) *Client {
	c := &Client{Options: o, open: map[*outgoing]bool{}}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialTLSContext:        c.dial,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   idleConns,
			IdleConnTimeout:       idleTimeout / 2,
			ResponseHeaderTimeout: answerTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// To returns what calls a server: a client, and the URL that paths are appended to ("https://is07"). Each connection of
// the client is to a server whose certificate has the name in the URL. The answer must begin within a minute.
func (c *Client) To(server cluster.ServerName) (client *http.Client, base string) {
	return c.http, "https://" + string(server)
}

// Recheck closes the connections to servers that are refused now.
func (c *Client) Recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for o := range c.open {
		if _, err := c.checked(o.id); err != nil {
			c.Log.Warn("connection to a server closed", "server", o.id.Name, "error", err)
			// Without a TLS alert, after which the other end might complete an answer.
			_ = o.NetConn().Close()
			go o.Close() // which takes c.mu
		}
	}
}

// Close closes the connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dial connects to the server that is named by the host of addr.
func (c *Client) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s, ok := c.Declared().Server(cluster.ServerName(host))
	if !ok {
		return nil, fmt.Errorf("connect to %s: it is not in the description", host)
	}
	var errs []error
	for _, card := range s.Interfaces {
		conn, err := c.dialAt(ctx, s.Name, netip.AddrPortFrom(card.Address, s.Ports.API))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect to server %s: %w", host, errors.Join(errs...))
}

func (c *Client) dialAt(ctx context.Context, name cluster.ServerName, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: keepAlive()}
	raw, err := d.DialContext(ctx, "tcp", net.JoinHostPort(to.Addr().String(), strconv.Itoa(int(to.Port()))))
	if err != nil {
		return nil, err
	}
	var id Identity
	cfg := config()
	cfg.InsecureSkipVerify = true // VerifyConnection does it, by package pki
	cfg.VerifyConnection = func(cs tls.ConnectionState) (err error) {
		id, err = c.verify(name, cs.PeerCertificates)
		return err
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return c.Credentials.Certificate(), nil
	}
	o := &outgoing{Conn: tls.Client(raw, cfg), c: c}
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := o.HandshakeContext(hctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	o.id = id
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[o] = true
	return o, nil
}

// verify checks that the certificates are of the server name, and that it is not refused.
func (c *Client) verify(name cluster.ServerName, certs []*x509.Certificate) (Identity, error) {
	id, err := c.Credentials.Verify(certs, x509.ExtKeyUsageServerAuth)
	if err == nil && id.Name != name {
		err = fmt.Errorf("it is server %s", id.Name)
	}
	if err != nil {
		return id, err
	}
	return c.checked(id)
}

// outgoing is one connection of a Client.
type outgoing struct {
	*tls.Conn
	c  *Client
	id Identity
}

// Close implements net.Conn.
func (o *outgoing) Close() error {
	o.c.mu.Lock()
	delete(o.c.open, o)
	o.c.mu.Unlock()
	return o.Conn.Close()
}
