package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/bounds"
	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/pki"
)

// Bounds of a Server.
const (
	headerTimeout = 10 * time.Second // of the handshake, and of the header of a request
	bodyTimeout   = time.Minute      // of the body of a request; a handler that takes longer extends it
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	maxBody       = 64 << 20 // bytes
	perServer     = 64       // connections of one server
	perStranger   = 8        // connections of an address that have not proved who they are
	strangers     = 256      // the same, of all addresses that are of no server
	// atOnce are connections that a server opens at the same time: for the state, a report, and two for content. All
	// servers may do so at once, and may share an address: behind a router that translates addresses, or on one host.
	atOnce = 4
)

// Allow is who may call a handler.
type Allow int

// Who may call.
const (
	Heads    Allow = iota
	Servers        // any server of the cluster
	Renewing       // any server of the cluster, also one whose certificate is outdated
	Anyone         // also without a certificate
)

// Server answers other servers. Its methods may be called from any number of goroutines.
type Server struct {
	Options
	mux     *http.ServeMux
	unknown bounds.Table[netip.Addr, *conn]
	known   bounds.Table[string, *conn] // by id
	refused atomic.Uint64

	mu     sync.Mutex
	open   map[*conn]bool
	logged map[string]refusal // the last one, by identity
}

// NewServer returns a Server without handlers.
func NewServer(o Options) *Server {
	return &Server{Options: o, mux: http.NewServeMux(), open: map[*conn]bool{}, logged: map[string]refusal{}}
}

// Refused returns how many connections and requests were refused since the start.
func (s *Server) Refused() uint64 { return s.refused.Load() }

// Handle lets h answer the requests that pattern matches, of those that allow allows. The patterns are those of
// http.ServeMux; paths begin with /peer/v1/. A body has at most 64 MiB, and a minute to arrive; a handler may set other
// deadlines (http.ResponseController). Handle is called before Serve.
func (s *Server) Handle(pattern string, allow Allow, h http.Handler) {
	s.mux.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*conn)
		if !ok {
			s.refuse(w, r, http.StatusInternalServerError, errors.New("not a connection of this server"))
			return
		}
		status, err := s.admit(c, allow)
		if err == nil {
			status, err = http.StatusTooManyRequests, s.count(c)
		}
		if err != nil {
			s.refuse(w, r, status, err)
			return
		}
		rc := http.NewResponseController(w)
		if r.ContentLength != 0 {
			_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		r.Body = &body{http.MaxBytesReader(w, r.Body, maxBody), rc}
		ctx := r.Context()
		if id := c.id.Load(); id != nil {
			if id, err := s.checked(*id); err == nil {
				ctx = context.WithValue(ctx, identityKey{}, id)
			}
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
}

// admit returns why the other end of c may not call what is for allow, with the HTTP status for that.
func (s *Server) admit(c *conn, allow Allow) (status int, err error) {
	id := c.id.Load()
	switch {
	case allow == Anyone:
		return 0, nil
	case id == nil:
		return http.StatusUnauthorized, errors.New("no certificate")
	}
	now, err := s.checked(*id)
	switch {
	case err != nil:
		return http.StatusForbidden, err
	case c.outdated != nil && allow != Renewing:
		return http.StatusUnauthorized, c.outdated
	case allow == Heads && !now.Is(cluster.RoleHead):
		return http.StatusForbidden, fmt.Errorf("server %s is no head", id.Name)
	}
	return 0, nil
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	s.refused.Add(1)
	level := slog.LevelWarn
	if c, ok := r.Context().Value(connKey{}).(*conn); ok && !s.isNew(c.id.Load(), err) {
		level = slog.LevelDebug
	}
	s.Log.Log(r.Context(), level, "request of a server refused", "client", r.RemoteAddr, "path", r.URL.Path,
		"error", err)
	if ended, ok := errors.AsType[*pki.RevokedError](err); ok {
		ended.SetHeader(w.Header())
	}
	w.Header().Set("Connection", "close")
	http.Error(w, err.Error(), status)
}

// refusal is why a server was refused.
type refusal struct {
	text string
	at   time.Time
}

const (
	// logInterval is the interval between lines of the log about refusals of one server for the same reason. A server
	// that was removed continues to call.
	logInterval = time.Hour
	// maxLogged bounds Server.logged.
	maxLogged = 1000
)

// isNew reports whether a refusal is to be logged: of a server not for the same reason again.
func (s *Server) isNew(id *Identity, err error) bool {
	if id == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := refusal{err.Error(), time.Now()}
	if last := s.logged[id.ID]; last.text == now.text && now.at.Sub(last.at) < logInterval {
		return false
	}
	if len(s.logged) >= maxLogged {
		clear(s.logged)
	}
	s.logged[id.ID] = now
	return true
}

// body is the body of a request. Its deadline ends with it: it would end the connection while the answer is sent.
type body struct {
	io.ReadCloser
	rc *http.ResponseController
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Serve answers on ln until ctx ends. It cancels the requests that are in progress then.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	hs := &http.Server{
		Handler: s.mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withConn,
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), // errors of clients
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		_ = hs.Close()
	}()
	err := hs.Serve(&listener{ln, s, s.tls()})
	if ctx.Err() == nil {
		return err
	}
	<-ended
	return nil
}

// tls returns the configuration of connections. Certificates are verified by package pki alone, which knows more of
// them than crypto/tls does.
func (s *Server) tls() *tls.Config {
	base := config()
	base.ClientAuth = tls.RequestClientCert
	base.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.Credentials.Certificate(), nil
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, ok := hello.Conn.(*conn)
		if !ok {
			return nil, errors.New("not a connection of this server")
		}
		own := base.Clone()
		own.GetConfigForClient = nil
		own.VerifyConnection = func(cs tls.ConnectionState) error { return s.identify(c, cs.PeerCertificates) }
		return own, nil
	}
	return base
}

// identify finds out who is at the other end of a connection. Without a certificate it goes on to be unknown.
func (s *Server) identify(c *conn, certs []*x509.Certificate) error {
	c.secure.Store(true)
	if len(certs) == 0 {
		return nil
	}
	id, err := s.Credentials.Verify(certs, x509.ExtKeyUsageClientAuth)
	if err != nil && !errors.Is(err, pki.ErrOutdated) {
		s.refused.Add(1)
		s.Log.Warn("certificate refused", "client", c.RemoteAddr(), "error", err)
		return err
	}
	c.outdated = err
	c.id.Store(&id)
	return nil
}

// count counts a connection for the server that it is of. That is done at its first request: identify is called before
// the other end has proved that it has the key.
func (s *Server) count(c *conn) error {
	id := c.id.Load()
	if id == nil || c.counted.Swap(true) {
		return nil
	}
	s.unknown.Remove(c.from, c)
	all := perServer * (1 + len(s.Declared().Servers))
	if !s.known.Add(id.ID, c, bounds.Limit{Each: perServer, All: all}) {
		return fmt.Errorf("server %s has too many connections", id.Name)
	}
	return nil
}

// Recheck closes the connections of those who are refused now. Whoever changes the answer of Options.Refused, or the
// description, calls it.
func (s *Server) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		id := c.id.Load()
		if id == nil {
			continue
		}
		if _, err := s.checked(*id); err != nil {
			s.Log.Warn("connection of a server closed", "server", id.Name, "client", c.RemoteAddr(), "error", err)
			go c.Close() // which takes s.mu
		}
	}
}

// listener accepts connections that prove who they are by TLS.
type listener struct {
	net.Listener
	s   *Server
	tls *tls.Config
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if tcp, ok := raw.(*net.TCPConn); ok {
			_ = tcp.SetKeepAliveConfig(keepAlive())
		}
		c := &conn{Conn: raw, s: l.s}
		if err := l.s.accept(c); err != nil {
			l.s.refused.Add(1)
			l.s.Log.Warn("connection refused", "kind", "api", "client", raw.RemoteAddr(), "error", err)
			_ = raw.Close()
			continue
		}
		return tls.Server(c, l.tls), nil
	}
}

// accept counts a new connection, whose other end has only an address yet.
func (s *Server) accept(c *conn) error {
	remote, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return fmt.Errorf("%q is no address", c.RemoteAddr())
	}
	local, _ := netip.ParseAddrPort(c.LocalAddr().String())
	who, err := caller.Resolve(s.Declared(), caller.Peer{Remote: remote, Local: local})
	if err == nil && who.Node != nil && who.Server == nil {
		return fmt.Errorf("%s is a node", who.Node.Name)
	}
	c.from = remote.Addr().Unmap()
	burst := atOnce * len(s.Declared().Servers)
	limit := bounds.Limit{Each: perStranger + burst, All: strangers + burst}
	if err == nil && (who.Local || who.Server != nil) {
		limit = bounds.Limit{Each: perServer + burst}
	}
	if !s.unknown.Add(c.from, c, limit) {
		return errors.New("too many connections without a certificate")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = true
	return nil
}

// conn is one connection.
type conn struct {
	net.Conn
	s        *Server
	from     netip.Addr
	secure   atomic.Bool              // the handshake came to the certificates
	id       atomic.Pointer[Identity] // nil: it has no certificate
	outdated error                    // why the certificate is not valid now; set before id
	counted  atomic.Bool              // it counts for its server
	once     sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		if !c.secure.Load() {
			c.s.refused.Add(1)
			c.s.Log.Debug("connection without a handshake", "client", c.RemoteAddr())
		}
		c.s.unknown.Remove(c.from, c)
		if id := c.id.Load(); id != nil {
			c.s.known.Remove(id.ID, c)
		}
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		delete(c.s.open, c)
	})
	return c.Conn.Close()
}

// connKey is the key of the connection in the context of its requests.
type connKey struct{}

func withConn(ctx context.Context, nc net.Conn) context.Context {
	if t, ok := nc.(*tls.Conn); ok {
		return context.WithValue(ctx, connKey{}, t.NetConn())
	}
	return ctx
}
