// Package peer is the HTTP API between the servers of a cluster: a server of it, and a client.
//
// # Concepts
//
// Both ends prove by their certificates who they are (package pki): TLS 1.3, mutual. The server listens on the api-port
// of the description. Others add handlers to it, each with who may call it; a handler finds in its context who calls.
// The client connects to a server by its name, at the addresses and the port of the description, and talks to nobody
// whose certificate has another name.
//
// # Who is refused
//
//   - whoever has a certificate that is not one of this cluster: at the handshake
//   - whoever has none: at every handler that is not for Anyone
//   - a server that is not in the description, or that Options.Refused refuses: at every request. Recheck closes the
//     connections that it has open then
//   - addresses of nodes: at accept
//   - connections beyond the bounds, and those that are silent
//
// The roles of an Identity are those that both its certificate and the description give to the server.
//
// # What it must not know
//
// What is asked and answered.
package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/pki"
)

// Identity is who a server is.
type Identity = pki.Identity

// Options of a Server and of a Client. All are needed.
type Options struct {
	Credentials *pki.Credentials
	Declared    func() *cluster.Cluster // the description that holds now
	Refused     func(Identity) error    // why a server of the cluster is refused now; nil: it is not
	Log         *slog.Logger
}

// checked returns who is at the other end, by what its certificate says and by what holds now. The error says why it is
// refused.
func (o *Options) checked(id Identity) (Identity, error) {
	s, ok := o.Declared().Server(id.Name)
	if !ok {
		return id, fmt.Errorf("server %s is not in the description", id.Name)
	}
	if err := o.Refused(id); err != nil {
		return id, err
	}
	id.Roles = slices.DeleteFunc(slices.Clone(id.Roles), func(r cluster.Role) bool { return !s.Has(r) })
	return id, nil
}

// identityKey is the key of the Identity of who made a request, in its context.
type identityKey struct{}

// From returns who made the request whose context ctx is; ok is false if it was made without a certificate.
func From(ctx context.Context) (id Identity, ok bool) {
	id, ok = ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// config is what both ends demand of a connection. It has no session tickets: a resumed session would not be verified.
func config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
	}
}

// keepAlive lets the kernel end a connection within half a minute when the other machine is gone.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}
}
