package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/coord/member"
	"dim/internal/follow"
	"dim/internal/peer"
	"dim/internal/problems"
)

const (
	authorityPath = "/peer/v1/authority"
	memberPath    = "/peer/v1/member"
	// memberTime bounds the handling of a request to take part in the shared state.
	memberTime = 20 * time.Second
	// learnerTime is how long a head may take to catch up with the others before it is removed from them. It reads at
	// most 512 MB.
	learnerTime = 10 * time.Minute
	// learnerNoted is how long it may take before that is shown as a problem.
	learnerNoted = time.Minute
)

// shared is the answer to a head that asks for what certifies servers.
type shared struct {
	Authority []byte `json:"authority"` // see pki.Credentials.ShareAuthority
}

// memberRequest asks to take part in the shared state. added answers it.
type memberRequest struct {
	Format string `json:"format"` // coord.Format
	Etcd   string `json:"etcd"`   // version
}

type added struct {
	Initial string `json:"initial"` // see member.Peers.Join
}

// heads is what this head knows of the other members of the shared state.
type heads struct {
	mu       sync.Mutex
	learning map[uint64]time.Time             // members that have no vote, since when
	late     map[cluster.ServerName]time.Time // heads that did not catch up, when they were removed
}

// joinedHeads returns the heads that have joined.
func (m *Membership) joinedHeads() map[string]coord.Server {
	now := m.Follow.Now()
	all := map[string]coord.Server{}
	for _, name := range now.OtherHeads("") {
		all[string(name)] = now.State.Servers[string(name)]
	}
	return all
}

// shareAuthority lets another head certify servers, too.
func (m *Membership) shareAuthority(w http.ResponseWriter, r *http.Request) {
	id, _ := peer.From(r.Context())
	text, err := m.Credentials.ShareAuthority()
	if err != nil {
		refuse(w, err)
		return
	}
	m.Log.Info("a head got the authority for servers", "server", id.Name)
	_ = json.NewEncoder(w).Encode(shared{text})
}

// Peers returns how the embedded etcd of this head and those of the other heads reach each other, nil if there are no
// other heads. c calls them.
func (m *Membership) Peers(now *follow.Declared, c *peer.Client) (*member.Peers, error) {
	me, ok := now.Cluster.Server(m.Server)
	joined := now.OtherHeads(m.Server)
	if !ok || m.Credentials.Authority() == nil || len(joined) == 0 && countHeads(now.Cluster) < 2 {
		return nil, nil
	}
	files, err := m.Credentials.MemberFiles(time.Now())
	if err != nil {
		return nil, err
	}
	p := &member.Peers{Addresses: memberAddresses(me), TLS: member.Files(files)}
	if len(joined) > 0 {
		p.Join = func(ctx context.Context) (string, error) { return m.askToTakePart(ctx, c, joined) }
	}
	return p, nil
}

func countHeads(c *cluster.Cluster) (n int) {
	for _, s := range c.Servers {
		if s.Has(cluster.RoleHead) {
			n++
		}
	}
	return n
}

func memberAddresses(s *cluster.Server) (list []netip.AddrPort) {
	for _, card := range s.Interfaces {
		list = append(list, netip.AddrPortFrom(card.Address, s.Ports.Etcd))
	}
	return list
}

// askToTakePart asks one head after the other to add this one to the shared state. It is a member.Peers.Join.
func (m *Membership) askToTakePart(ctx context.Context, c *peer.Client, heads []cluster.ServerName) (string, error) {
	var errs []error
	for _, name := range heads {
		hc, base := c.To(name)
		answer, err := post[added](ctx, hc, base+memberPath, memberRequest{coord.Format, version.Version})
		if err == nil {
			m.Log.Info("a head lets this one take part in the shared state", "server", name)
			return answer.Initial, nil
		}
		errs = append(errs, fmt.Errorf("head %s: %w", name, err))
	}
	return "", fmt.Errorf("%w: no other head lets this one take part: %w", member.ErrNoQuorum, errors.Join(errs...))
}

// addMember lets another head take part in the shared state.
func (m *Membership) addMember(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), memberTime)
	defer cancel()
	id, _ := peer.From(r.Context())
	var in memberRequest
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoin)).Decode(&in)
	if err != nil {
		err = control.Errorf(control.Invalid, "read request: %v", err)
	}
	var initial string
	if err == nil {
		initial, err = m.addHead(ctx, id.Name, in)
	}
	if err != nil {
		m.Log.Warn("a head cannot take part in the shared state yet", "server", id.Name, "error", err)
		refuse(w, err)
		return
	}
	m.Log.Info("a head was added to the members of the shared state", "server", id.Name)
	_ = json.NewEncoder(w).Encode(added{initial})
}

func (m *Membership) addHead(ctx context.Context, name cluster.ServerName, in memberRequest) (string, error) {
	if in.Format != coord.Format || !sameSeries(in.Etcd, version.Version) {
		return "", control.Errorf(control.Conflict,
			"%s runs another dim: its shared state has format %s and etcd %s, that of %s has format %s and etcd %s",
			name, in.Format, in.Etcd, m.Server, coord.Format, version.Version).
			WithHint("install the same dim on all heads")
	}
	s, ok := m.Follow.Cluster().Server(name)
	if !ok {
		return "", notDeclared(name)
	}
	c, err := m.Follow.Reachable(ctx)
	if err != nil {
		return "", control.Errorf(control.Unavailable, "%v", err)
	}
	if c.Member() == nil {
		return "", control.Errorf(control.Conflict, "head %s uses an existing etcd", m.Server).
			WithHint("give the same --etcd to " + string(name))
	}
	initial, err := c.Member().Add(ctx, string(name), memberAddresses(s))
	if errors.Is(err, member.ErrNotReady) {
		err = control.Errorf(control.Busy, "%v", err)
	}
	return initial, err
}

// sameSeries reports whether two versions of etcd have the same major and minor number.
func sameSeries(a, b string) bool {
	series := func(v string) string {
		parts := strings.SplitN(v, ".", 3)
		return strings.Join(parts[:min(2, len(parts))], ".")
	}
	return series(a) == series(b)
}

// memberOf returns the member of a head; ok is false if it has none.
func memberOf(s member.Status, name cluster.ServerName) (p member.Peer, ok bool) {
	for _, p := range s.Members {
		if p.Name == string(name) {
			return p, true
		}
	}
	return p, false
}

// effectOfRemoval returns what the removal of a head means for the shared state, "" for a server that takes no part in
// it.
func (m *Membership) effectOfRemoval(name cluster.ServerName) string {
	s, ok := m.Follow.Embedded()
	p, found := memberOf(s, name)
	if !ok || !found || p.Learner {
		return ""
	}
	votes := -1
	for _, p := range s.Members {
		if !p.Learner {
			votes++
		}
	}
	return fmt.Sprintf("%d of the heads stay in the shared state, and %d of them have to be up", votes, votes/2+1)
}

// removeMember removes a head from the members of the shared state, if it is one.
func (m *Membership) removeMember(ctx context.Context, name cluster.ServerName) error {
	s, ok := m.Follow.Embedded()
	p, found := memberOf(s, name)
	if !ok || !found {
		return nil
	}
	c, err := m.Follow.Change(ctx)
	if err != nil {
		return err
	}
	err = c.Member().Remove(ctx, p.ID)
	if errors.Is(err, member.ErrNotReady) {
		return control.Errorf(control.Conflict, "remove server %s: the shared state would lose its quorum: %v", name,
			err).WithHint("start the other heads first, or wait some seconds")
	}
	return err
}

// keepMembers renews the certificate of this head's member. If the member leads, it also removes members that belong to
// no head any more, such as after a crash in the middle of a removal, and those that do not catch up.
func (m *Membership) keepMembers(ctx context.Context) error {
	s, ok := m.Follow.Embedded()
	if !ok || len(s.Members) < 2 {
		return nil
	}
	if _, err := m.Credentials.MemberFiles(time.Now()); err != nil {
		return err
	}
	late := m.heads.note(&s, time.Now())
	if !s.Leads() {
		return nil
	}
	var errs []error
	for _, p := range s.Members {
		if p.ID == s.ID {
			continue
		}
		if _, known := m.Follow.Now().State.Servers[p.Name]; late[p.ID] || p.Name != "" && !known {
			errs = append(errs, m.dropMember(ctx, p, late[p.ID]))
		}
	}
	return errors.Join(errs...)
}

// dropMember removes a member that is late, or that belongs to no head by the shared state as it is now.
func (m *Membership) dropMember(ctx context.Context, p member.Peer, late bool) error {
	c, err := m.Follow.Reachable(ctx)
	if err != nil {
		return nil // which is a problem of its own
	}
	now, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if _, known := now.Servers[p.Name]; known && !late {
		return nil
	}
	if err := c.Member().Remove(ctx, p.ID); err != nil {
		return err
	}
	m.Log.Warn("a member of the shared state was removed: it belongs to no head, or did not catch up", "server", p.Name)
	if late {
		m.heads.noteLate(m.headAt(p))
	}
	return nil
}

// headAt returns the head that a member is to be of.
func (m *Membership) headAt(p member.Peer) cluster.ServerName {
	for _, s := range m.Follow.Cluster().Servers {
		for _, a := range memberAddresses(s) {
			if len(p.URLs) > 0 && p.URLs[0] == "https://"+a.String() {
				return s.Name
			}
		}
	}
	return cluster.ServerName(p.Name)
}

// etcdPort names the port at which the embedded etcd of a head listens.
func (m *Membership) etcdPort(head cluster.ServerName) string {
	if s, ok := m.Follow.Cluster().Server(head); ok {
		return fmt.Sprintf("its etcd-port (%d)", s.Ports.Etcd)
	}
	return "its etcd-port"
}

// note keeps since when members have no vote, and returns those that have had none for too long.
func (h *heads) note(s *member.Status, now time.Time) map[uint64]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	late := map[uint64]bool{}
	learning := map[uint64]time.Time{}
	for _, p := range s.Members {
		if !p.Learner {
			delete(h.late, cluster.ServerName(p.Name))
			continue
		}
		since, ok := h.learning[p.ID]
		if !ok {
			since = now
		}
		learning[p.ID] = since
		late[p.ID] = now.Sub(since) > learnerTime
	}
	h.learning = learning
	return late
}

func (h *heads) noteLate(name cluster.ServerName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late == nil {
		h.late = map[cluster.ServerName]time.Time{}
	}
	h.late[name] = time.Now()
}

// memberProblems lists what is wrong with the members of the shared state.
func (m *Membership) memberProblems() (list []problems.Problem) {
	s, ok := m.Follow.Embedded()
	if !ok {
		return nil
	}
	m.heads.mu.Lock()
	defer m.heads.mu.Unlock()
	for _, p := range s.Members {
		about := problems.Subject{Kind: problems.KindServer, Name: string(m.headAt(p))}
		since, learning := m.heads.learning[p.ID]
		if learning && time.Since(since) > learnerNoted {
			list = append(list, problems.Problem{
				About: about, Since: since,
				Text: fmt.Sprintf("it does not catch up with the shared state; it is removed from it after %v",
					learnerTime),
				Hint: "does dim serve run there, do the other heads reach " + m.etcdPort(m.headAt(p)) +
					", and does it reach theirs?",
			})
		}
		if _, declared := m.Follow.Cluster().Server(cluster.ServerName(p.Name)); p.Name != "" && !declared {
			list = append(list, problems.Problem{
				About: about, Text: "it votes on the shared state, and is not in the description",
				Hint: "dim server rm " + p.Name,
			})
		}
	}
	for name, at := range m.heads.late {
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindServer, Name: string(name)}, Since: at,
			Text: fmt.Sprintf("it did not catch up with the shared state within %v, and was removed from it",
				learnerTime),
			Hint: "it asks again by itself; look at its disk, and at the network to it",
		})
	}
	return list
}
