package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/peer"
	"dim/internal/pki"
)

const joinPath = "/peer/v1/join"

// joinRequest asks to become a server of the cluster. joined answers it.
type joinRequest struct {
	Secret  []byte             `json:"secret"` // of the token
	Name    cluster.ServerName `json:"server"` // that it wants to be
	Request []byte             `json:"request"`
	Replace bool               `json:"replace,omitempty"` // in place of a machine of that name that has joined
}

type joined struct {
	certified
	Root        []byte            `json:"root"` // certificate, in DER
	Description coord.Description `json:"description"`

	Head  bool                    `json:"head,omitempty"`  // the server is to be a head
	Heads map[string]coord.Server `json:"heads,omitempty"` // that have joined, by name
}

const (
	// defaultValid and longestValid are how long a token can be used.
	defaultValid, longestValid = time.Hour, 7 * 24 * time.Hour
	// joinEvery and joinBurst bound the attempts of an address to join.
	joinEvery, joinBurst = time.Second, 10
	// maxJoin bounds the body of a request to join, in bytes, and joinTime its handling.
	maxJoin, joinTime = 16 << 10, time.Minute
)

// NewToken makes a token for one machine. The error is a control.Error.
func (m *Membership) NewToken(ctx context.Context, r control.TokenRequest) (control.Token, error) {
	var none control.Token
	if m.Credentials.Authority() == nil {
		return none, control.Errorf(control.Invalid, "server %s does not have the authority for servers", m.Server).
			WithHint("run dim token on a head")
	}
	if r.Valid == 0 {
		r.Valid = defaultValid
	}
	if r.Valid < 0 || r.Valid > longestValid {
		return none, control.Errorf(control.Invalid, "a token is valid for a week at most, not for %v", r.Valid).
			WithHint("--valid 168h is a week")
	}
	for _, role := range r.Roles {
		if role != string(cluster.RoleHead) && role != string(cluster.RoleImage) {
			return none, control.Errorf(control.Invalid, "%q is not a role", role).WithHint("roles: head, image")
		}
	}
	slices.Sort(r.Roles)
	t := coord.Token{
		Roles: slices.Compact(r.Roles), For: r.For, Expires: time.Now().Add(r.Valid).UTC().Truncate(time.Second),
	}
	var server *cluster.Server
	if r.For != "" {
		var ok bool
		if server, ok = m.Follow.Cluster().Server(cluster.ServerName(r.For)); !ok {
			return none, notDeclared(cluster.ServerName(r.For))
		}
	}
	if len(t.Roles) == 0 {
		t.Roles = []string{string(cluster.RoleImage)}
	}
	if server != nil {
		if err := allowed(server, t.Roles); err != nil {
			return none, err
		}
	}
	shared, err := m.Follow.Change(ctx)
	if err != nil {
		return none, err
	}
	made := newToken(pki.Digest(m.Credentials.Root()))
	if err := shared.PutToken(ctx, digestOf(made.secret[:]), t); err != nil {
		return none, follow.APIError(err)
	}
	return control.Token{
		Token: made.String(), URL: m.url(server), For: t.For, Roles: t.Roles, Expires: t.Expires,
	}, nil
}

// url returns where a server reaches this head: an address on a network that both are on, if there is one.
func (m *Membership) url(server *cluster.Server) string {
	me, _ := m.Follow.Cluster().Server(m.Server)
	addr := me.Interfaces[0].Address
	if server != nil {
		for _, card := range server.Interfaces {
			if on := me.On(card.Network); on.IsValid() {
				addr = on
				break
			}
		}
	}
	return "https://" + netip.AddrPortFrom(addr, me.Ports.API).String()
}

func notDeclared(name cluster.ServerName) error {
	return control.Errorf(control.NotFound, "server %s is not in the description", name).
		WithHint("add it to the description: dim cluster apply FILE")
}

// allowed returns an error unless the roles are all that the description gives to a server.
func allowed(s *cluster.Server, roles []string) error {
	for _, r := range s.Roles {
		if !slices.Contains(roles, string(r)) {
			return control.Errorf(control.Invalid, "%s has the role %s, which the token does not allow", s.Name, r).
				WithHint(fmt.Sprintf("on a head: dim token --for %s --roles %s", s.Name, rolesText(s)))
		}
	}
	return nil
}

func rolesText(s *cluster.Server) string {
	var list []string
	for _, r := range s.Roles {
		list = append(list, string(r))
	}
	return strings.Join(list, ",")
}

// join lets a machine with a token become a server.
func (m *Membership) join(w http.ResponseWriter, r *http.Request) {
	var in joinRequest
	ctx, cancel := context.WithTimeout(r.Context(), joinTime)
	defer cancel()
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && !m.attempts.Allow(from.Addr(), time.Now()) {
		err = control.Errorf(control.Busy, "too many attempts to join: try again in some seconds")
	}
	if err == nil {
		if err = json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoin)).Decode(&in); err != nil {
			err = control.Errorf(control.Invalid, "read request: %v", err)
		}
	}
	var answer joined
	if err == nil {
		answer, err = m.admit(ctx, in)
	}
	if err != nil {
		m.Log.Warn("join refused", "client", r.RemoteAddr, "error", err)
		refuse(w, err)
		return
	}
	m.Log.Info("server joined", "server", in.Name, "client", r.RemoteAddr)
	_ = json.NewEncoder(w).Encode(answer)
}

// admit uses up the token, enters the server into the shared state and certifies it, in that order: a certificate never
// exists without a server whose identity can be revoked.
func (m *Membership) admit(ctx context.Context, in joinRequest) (answer joined, err error) {
	key, err := pki.ParseRequest(in.Request)
	if err != nil {
		return answer, control.Errorf(control.Invalid, "%v", err)
	}
	digest, err := pki.KeyDigest(key)
	if err != nil {
		return answer, err
	}
	now := m.Follow.Now()
	if now.State.Description == nil {
		return answer, control.Errorf(control.Unavailable, "this head has no applied description yet").
			WithHint("on the head: dim cluster apply FILE")
	}
	shared, err := m.Follow.Change(ctx)
	if err != nil {
		return answer, err
	}
	made, err := shared.UseToken(ctx, digestOf(in.Secret), string(in.Name),
		func(t coord.Token, old *coord.Server) (*coord.Server, error) { return m.accept(t, old, &in, digest) })
	if errors.Is(err, coord.ErrNotFound) {
		return answer, control.Errorf(control.Denied,
			"the token was used already, has expired, or is of another cluster").
			WithHint("on a head: dim token; each token lets one machine join")
	}
	if err != nil {
		return answer, follow.APIError(err)
	}
	if err := m.Follow.Refresh(ctx, shared); err != nil {
		return answer, err
	}
	id := peer.Identity{ID: made.ID, Name: in.Name}
	for _, r := range made.Roles {
		id.Roles = append(id.Roles, cluster.Role(r))
	}
	chain, err := m.Credentials.Authority().Certify(key, id, time.Now())
	if err != nil {
		return answer, err
	}
	return joined{
		certified: certified{string(chain)}, Root: m.Credentials.Root().Raw, Description: *now.State.Description,
		Head: id.Is(cluster.RoleHead), Heads: m.joinedHeads(),
	}, nil
}

// accept decides whether a machine may join. A machine with the key of the one that has joined is that one: its join
// was cut before it had its certificate.
func (m *Membership) accept(t coord.Token, old *coord.Server, in *joinRequest, key string) (*coord.Server, error) {
	s, ok := m.Follow.Cluster().Server(in.Name)
	switch {
	case !time.Now().Before(t.Expires):
		return nil, control.Errorf(control.Denied, "the token has expired at %s", t.Expires.Format(time.RFC3339)).
			WithHint("on a head: dim token")
	case t.For != "" && t.For != string(in.Name):
		return nil, control.Errorf(control.Denied, "the token is for %s, not for %s", t.For, in.Name).
			WithHint("--as " + t.For + ", or on a head: dim token --for " + string(in.Name))
	case !ok:
		return nil, notDeclared(in.Name)
	case in.Name == m.Server:
		return nil, control.Errorf(control.Conflict, "%s is the head that was asked", in.Name).
			WithHint("--as names another server")
	}
	if err := allowed(s, t.Roles); err != nil {
		return nil, err
	}
	made := &coord.Server{ID: pki.NewID(), Key: key, Joined: time.Now().UTC().Truncate(time.Second)}
	for _, r := range s.Roles {
		made.Roles = append(made.Roles, string(r))
	}
	switch {
	case old == nil:
	case old.Key == key:
		made.ID, made.Drained = old.ID, old.Drained
	case !in.Replace:
		return nil, control.Errorf(control.Conflict, "a machine has joined as %s already, at %s", in.Name,
			old.Joined.Format(time.RFC3339)).
			WithHint("dim join --replace takes its place: the other one is refused from then on")
	}
	return made, nil
}
