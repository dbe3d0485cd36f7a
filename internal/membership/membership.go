// Package membership decides which machines are servers of the cluster, and keeps this one's certificate valid.
//
// # Concepts
//
// Every head certifies servers: it has the authority (package pki), which another head sends to it when it joins. Which
// server has which identity, and which identities have ended, is in the shared state. Every server refuses identities
// that have ended as soon as it has adopted that state.
//
// A server renews its certificate when half of its time is over: a head by its own authority, other servers by asking a
// head. While that fails it is tried again and again. A certificate that has expired can be renewed for half a year.
//
// # Concurrency
//
// Begin is called first. The other methods may be called from any number of goroutines.
//
// # What it must not know
//
// What servers say to each other besides.
package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/bounds"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/peer"
	"dim/internal/periodic"
	"dim/internal/pki"
	"dim/internal/problems"
)

// Options of a Membership. All are needed.
type Options struct {
	Server      cluster.ServerName // this server
	Credentials *pki.Credentials
	Follow      *follow.Follower
	Log         *slog.Logger
}

// Membership is this server's part in who belongs to the cluster.
type Membership struct {
	Options

	wake     chan struct{} // capacity 1: a state was adopted
	heads    heads
	attempts bounds.Rate[netip.Addr]

	mu         sync.Mutex
	unlisted   map[cluster.ServerName]peer.Identity // with valid certificates, that the shared state lacks
	duplicates map[cluster.ServerName]duplicate
	marks      map[cluster.ServerName]mark
	err        error // why the certificate could not be renewed; nil: all is well
}

// New returns a Membership.
func New(o Options) *Membership {
	return &Membership{
		Options: o, wake: make(chan struct{}, 1),
		attempts:   bounds.Rate[netip.Addr]{Every: joinEvery, Burst: joinBurst},
		duplicates: map[cluster.ServerName]duplicate{}, marks: map[cluster.ServerName]mark{},
	}
}

// renewInterval is the interval between checks whether the certificate is due, and between tries to renew it.
const renewInterval = time.Minute

// Begin decides whether this machine may be the server that it was told to be, and gives a head its name. The error is
// a control.Error that tells a person what to do.
func (m *Membership) Begin() error {
	me, _ := m.Follow.Cluster().Server(m.Server)
	id := m.Credentials.Identity()
	if m.Credentials.Authority() == nil {
		if id.Name != m.Server {
			return control.Errorf(control.Invalid, "serve as %s: this machine has joined as %s", m.Server, id.Name).
				WithHint("leave --as out")
		}
		if me.Has(cluster.RoleHead) && len(m.Follow.Etcd.Endpoints) == 0 {
			return control.Errorf(control.Invalid, "serve as %s: this machine has joined, but not as a head", m.Server).
				WithHint(fmt.Sprintf("on a head: dim token --for %s --roles %s; then here the command that it prints, "+
					"with --replace", m.Server, rolesText(me)))
		}
		return nil
	}
	first := firstHead(m.Follow.Cluster())
	if first.Name != me.Name && (id.Name != me.Name || !me.Has(cluster.RoleHead)) {
		return control.Errorf(control.Invalid,
			"serve as %s: this machine has not joined the cluster, whose head is %s", me.Name, first.Name).
			WithHint(fmt.Sprintf("on %s: dim token --for %s; then here the command that it prints", first.Name,
				me.Name))
	}
	err := m.Credentials.Assume(me.Name, me.Roles, time.Now())
	if m.Credentials.Says(me.Name, me.Roles) {
		return nil // A machine whose clock is wrong serves nodes all the same. Run goes on to renew the certificate.
	}
	return err
}

// firstHead returns the head that may begin a cluster. All others join it.
func firstHead(c *cluster.Cluster) *cluster.Server {
	i := slices.IndexFunc(c.Servers, func(s *cluster.Server) bool { return s.Has(cluster.RoleHead) })
	return c.Servers[i] // every description has one
}

// Refused returns why a server of the cluster is refused now, or nil.
func (m *Membership) Refused(id peer.Identity) error {
	now := m.Follow.Now().State
	if r, ok := now.Revoked[id.ID]; ok {
		return &pki.RevokedError{
			Name: id.Name, Time: r.Time, Head: cluster.ServerName(r.GoesOn), Proof: r.Proof,
		}
	}
	if id.Name == m.Server || m.Credentials.Authority() == nil {
		return nil
	}
	switch listed, ok := now.Servers[string(id.Name)]; {
	case !ok:
		m.noteUnlisted(id)
	case listed.ID != id.ID:
		m.noteDuplicate(id)
		return fmt.Errorf("another machine is %s by the shared state: the one that joined at %s", id.Name,
			listed.Joined.UTC().Format(time.RFC3339))
	}
	return nil
}

// noteUnlisted notes a server that the shared state does not have: that was lost, or is put back from a copy that is
// older than the server. Run enters it again: otherwise nobody could remove it, and another machine could join in its
// name beside it.
func (m *Membership) noteUnlisted(id peer.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unlisted == nil {
		m.unlisted = map[cluster.ServerName]peer.Identity{}
	}
	if _, ok := m.unlisted[id.Name]; !ok {
		m.unlisted[id.Name] = id
		m.wakeUp()
	}
}

// enterUnlisted puts the servers that were noted into the shared state.
func (m *Membership) enterUnlisted(ctx context.Context) error {
	m.mu.Lock()
	list := m.unlisted
	m.unlisted = nil
	m.mu.Unlock()
	var errs []error
	for name, id := range list {
		shared, err := m.Follow.Reachable(ctx)
		if err != nil {
			return nil // it is noted again when it calls again
		}
		key := string(name)
		if err := shared.AddServer(ctx, key, listed(id)); err != nil && !errors.Is(err, coord.ErrConflict) {
			errs = append(errs, err)
			continue
		}
		m.Log.Warn("a server that the shared state did not have was entered again", "server", name)
		errs = append(errs, m.Follow.Refresh(ctx, shared))
	}
	return errors.Join(errs...)
}

// listed returns what the shared state has of a server.
func listed(id peer.Identity) coord.Server {
	s := coord.Server{ID: id.ID, Joined: time.Now().UTC().Truncate(time.Second)}
	for _, r := range id.Roles {
		s.Roles = append(s.Roles, string(r))
	}
	return s
}

// Drained returns why this server boots no nodes now, or nil.
func (m *Membership) Drained() error {
	if since := m.Follow.Now().State.Servers[string(m.Server)].Drained; !since.IsZero() {
		return fmt.Errorf("server %s was drained at %s: dim server undrain %[1]s lets nodes boot", m.Server,
			since.Local().Format(time.DateTime))
	}
	return nil
}

// Handle adds what this server answers to others.
func (m *Membership) Handle(s *peer.Server) {
	s.Handle("GET "+standingPath, peer.Servers, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if m.Credentials.Authority() != nil {
		s.Handle("POST "+renewPath, peer.Renewing, http.HandlerFunc(m.renew))
		s.Handle("POST "+joinPath, peer.Anyone, http.HandlerFunc(m.join))
		s.Handle("POST "+authorityPath, peer.Heads, http.HandlerFunc(m.shareAuthority))
		s.Handle("POST "+memberPath, peer.Heads, http.HandlerFunc(m.addMember))
	}
}

const renewPath = "/peer/v1/renew"

// maxAnswer bounds what is read of an answer, in bytes. The description is the most of it.
const maxAnswer = 32 << 20

// certifyRequest asks for a certificate. certified answers it.
type certifyRequest struct {
	Request []byte `json:"request"` // PKCS #10, DER
}

type certified struct {
	Chain string `json:"chain"` // certificates in PEM: the server's, and that of the authority for servers
}

// renew certifies a server again.
func (m *Membership) renew(w http.ResponseWriter, r *http.Request) {
	id, _ := peer.From(r.Context())
	var in certifyRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoin)).Decode(&in); err != nil {
		refuse(w, control.Errorf(control.Invalid, "read request: %v", err))
		return
	}
	key, err := pki.ParseRequest(in.Request)
	if err != nil {
		refuse(w, control.Errorf(control.Invalid, "%v", err))
		return
	}
	id.Roles = m.rolesOf(id)
	chain, err := m.Credentials.Authority().Certify(key, id, time.Now())
	if err != nil {
		refuse(w, err)
		return
	}
	m.Log.Info("certificate renewed", "server", id.Name)
	_ = json.NewEncoder(w).Encode(certified{string(chain)})
}

// rolesOf returns the roles that a server may have and that the description gives to it.
func (m *Membership) rolesOf(id peer.Identity) (roles []cluster.Role) {
	now := m.Follow.Now()
	joined, ok := now.State.Servers[string(id.Name)]
	if !ok || joined.ID != id.ID {
		return id.Roles
	}
	s, _ := now.Cluster.Server(id.Name)
	for _, r := range joined.Roles {
		if role := cluster.Role(r); s.Has(role) {
			roles = append(roles, role)
		}
	}
	return roles
}

// Run keeps the certificate of this server valid, and enters a head into the shared state, until ctx ends. A head finds
// out meanwhile whether another one goes on without it.
func (m *Membership) Run(ctx context.Context, c *peer.Client) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		_ = periodic.Run(ctx, standingInterval, func(ctx context.Context) { m.askStanding(ctx, c) })
	})
	tick := time.NewTicker(renewInterval)
	defer tick.Stop()
	for {
		m.keep(ctx, c)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.wake:
		}
	}
}

// Adopted is a subscriber of follow.Follower.
func (m *Membership) Adopted(context.Context, *follow.Declared) { m.wakeUp() }

// wakeUp lets Run look at once.
func (m *Membership) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Membership) keep(ctx context.Context, c *peer.Client) {
	err := errors.Join(m.enter(ctx), m.enterUnlisted(ctx), m.recordMarks(ctx), m.keepMembers(ctx))
	if m.Credentials.Due(time.Now()) {
		err = errors.Join(err, m.renewOwn(ctx, c))
	}
	m.mu.Lock()
	before := m.err
	m.err = err
	m.mu.Unlock()
	if err != nil && ctx.Err() == nil && (before == nil || before.Error() != err.Error()) {
		m.Log.Warn("certificate of this server", "error", err)
	}
}

// enter puts a head with an authority into the shared state.
func (m *Membership) enter(ctx context.Context) error {
	id, now := m.Credentials.Identity(), m.Follow.Now().State
	if m.Credentials.Authority() == nil || now.Servers[string(m.Server)].ID == id.ID {
		return nil
	}
	if _, ended := now.Revoked[id.ID]; ended {
		return errors.New("another head has removed this server: let it join again")
	}
	shared, err := m.Follow.Reachable(ctx)
	if err != nil {
		return nil // which is a problem of its own
	}
	return shared.PutServer(ctx, string(m.Server), listed(id))
}

// renewOwn renews the certificate of this server.
func (m *Membership) renewOwn(ctx context.Context, c *peer.Client) error {
	me, ok := m.Follow.Cluster().Server(m.Server)
	if ok && m.Credentials.Authority() != nil {
		return m.Credentials.Assume(m.Server, me.Roles, time.Now())
	}
	request, err := m.Credentials.Request()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range m.Follow.Cluster().Servers {
		if !s.Has(cluster.RoleHead) || s.Name == m.Server {
			continue
		}
		hc, base := c.To(s.Name)
		answer, err := post[certified](ctx, hc, base+renewPath, certifyRequest{request})
		if err == nil {
			err = m.Credentials.Install([]byte(answer.Chain))
		}
		if err == nil {
			c.Close() // further connections show the new certificate
			return nil
		}
		errs = append(errs, fmt.Errorf("server %s: %w", s.Name, err))
	}
	return fmt.Errorf("renew the certificate of %s: %w", m.Server, errors.Join(errs...))
}

// Problems is a problems.Source: the certificate cannot be renewed, or the keys on the disk are damaged.
func (m *Membership) Problems(context.Context) (list []problems.Problem) {
	list = m.memberProblems()
	about := problems.Subject{Kind: problems.KindServer, Name: string(m.Server)}
	if err := m.Credentials.Damage(); err != nil {
		list = append(list, problems.Problem{
			About: about, Text: strings.ReplaceAll(err.Error(), "\n", "; "),
			Hint: "put it back from a backup before this server is restarted: it cannot start so",
		})
	}
	list = append(list, m.duplicateProblems()...)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		list = append(list, problems.Problem{
			About: about, Text: fmt.Sprintf("its certificate, valid until %s: %v",
				m.Credentials.Expires().Local().Format(time.DateTime), m.err),
			Hint: "without a valid certificate it only serves what it has; check the clocks, and the network to " +
				"the heads",
		})
	}
	return list
}
