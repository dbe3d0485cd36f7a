// Package member runs a member of an etcd cluster in this process.
//
// # Concepts
//
// A member that has no others has no listener, and its client is in this process. With Options.Peers it listens for
// other members. Their connections have mutual TLS 1.3, with certificates that have a name of their own
// (Files.Host), so that no other certificate of the same authority is accepted. There is no listener for clients: each
// process uses its own member.
//
// A new member is added as a learner, which has no vote. It becomes a voting member when it has caught up. Until then
// the cluster does not depend on it.
//
// # Invariants
//
// A directory without a member begins a cluster only if Peers.Join is nil. A start that was interrupted can be
// repeated: who was added and has no directory yet is removed and added again.
//
// # Concurrency
//
// All methods may be called from any number of goroutines.
//
// # What it must not know
//
// What is kept in etcd.
package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"dim/internal/sysfile"
)

// Errors to branch on.
var (
	// ErrEnded: etcd has stopped because of a fatal error, such as a full disk or damaged files. It cannot be started
	// again in this process unless its directory is replaced.
	ErrEnded = errors.New("etcd ended")
	// ErrRemoved: the other members have removed this one. Its directory is of no use any more.
	ErrRemoved = errors.New("this head was removed from the members of the shared state")
	// ErrNoQuorum: most members of the cluster do not answer.
	ErrNoQuorum = errors.New("no quorum")
	// ErrNotReady: the change of the members has to wait for another one, or for a member that catches up.
	ErrNotReady = errors.New("the members of the shared state are not ready for a change")
)

// Options of Start. Peers and Log may be nil.
type Options struct {
	Dir        string
	Name       string // of this member, which no other one has
	Quota      int64  // size of the database at which it takes no more puts, in bytes
	MaxRequest uint   // size of the largest request, in bytes
	MaxOps     uint   // of a transaction
	Peers      *Peers // nil: there are no other members, and nobody listens
	Log        *slog.Logger
}

// Peers says how a member and the others reach each other.
type Peers struct {
	Addresses []netip.AddrPort // of this member. It listens on those that this machine has
	TLS       Files
	// Join is called if Dir has no member. It lets another member add this one and returns the result of Add. nil: this
	// member begins a cluster.
	Join func(context.Context) (initial string, err error)
}

// Files are the files, in PEM form, that prove members to each other. They are read at each handshake.
type Files struct {
	Authority string // that has signed the certificates of all members
	Cert, Key string
	Host      string // the DNS name in the certificates of all members
}

// Member is a running member.
type Member struct {
	o      Options
	etcd   *embed.Etcd
	lock   *os.File
	client *clientv3.Client
	level  zap.AtomicLevel // of etcd's log
	end    *end
	closed atomic.Bool
}

// Client returns the client of this member.
func (m *Member) Client() *clientv3.Client { return m.client }

// Ended returns a channel that is closed when etcd has stopped by itself.
func (m *Member) Ended() <-chan struct{} { return m.end.ended }

// Cause returns why etcd has stopped by itself: ErrEnded or ErrRemoved. nil: it has not.
func (m *Member) Cause() error { return m.end.cause() }

// Close stops the member. It may never return after ErrEnded, because it waits for locks of etcd.
func (m *Member) Close() error {
	m.closed.Store(true)
	defer sysfile.Unlock(m.lock)
	err := m.client.Close()
	m.etcd.Close()
	if errors.Is(err, context.Canceled) { // always returned by the in-process client
		return nil
	}
	return err
}

// Peer is a member of the cluster.
type Peer struct {
	ID      uint64
	Name    string // "": it was added and has not started yet
	Learner bool   // it has no vote
	URLs    []string
}

// Status is what a member knows of the cluster without asking others.
type Status struct {
	ID      uint64 // of this member
	Leader  uint64 // 0: none is known, so nothing can be changed
	Applied uint64 // number of entries of the log that this member has applied
	Members []Peer // by ID
}

// Leads reports whether this member is the leader.
func (s *Status) Leads() bool { return s.ID == s.Leader }

// self returns this member; ok is false if it is none of the cluster.
func (s *Status) self() (p Peer, ok bool) {
	for _, p := range s.Members {
		if p.ID == s.ID {
			return p, true
		}
	}
	return p, false
}

// Status returns what this member knows of the cluster now.
func (m *Member) Status() Status {
	s := Status{
		ID: uint64(m.etcd.Server.MemberID()), Leader: m.etcd.Server.Lead(), Applied: m.etcd.Server.AppliedIndex(),
	}
	for _, p := range m.etcd.Server.Cluster().Members() {
		s.Members = append(s.Members, Peer{uint64(p.ID), p.Name, p.IsLearner, p.PeerURLs})
	}
	return s
}

// Alarms returns the alarms of the cluster.
func (m *Member) Alarms() []*etcdserverpb.AlarmMember { return m.etcd.Server.Alarms() }

// Size returns the size of the database, and how much of it is in use, in bytes.
func (m *Member) Size() (size, used int64) {
	b := m.etcd.Server.Backend()
	return b.Size(), b.SizeInUse()
}

// Defragment makes the database as small as what is in use.
func (m *Member) Defragment() error {
	err := m.etcd.Server.Backend().Defrag()
	pageOut()
	return err
}

// Add adds a learner that has a name and addresses, and returns what Peers.Join has to return there. A member with the
// same name or one of the addresses is removed first: it has lost its directory. The error is ErrNotReady if it may
// succeed later.
func (m *Member) Add(ctx context.Context, name string, addrs []netip.AddrPort) (initial string, err error) {
	urls := peerURLs(addrs)
	s := m.Status()
	if self, ok := s.self(); !ok || m.o.Peers == nil || !sameURLs(self.URLs, peerURLs(m.o.Peers.Addresses)) {
		return "", fmt.Errorf("add member %s: %w: this one does not listen for others yet", name, ErrNotReady)
	}
	for _, p := range s.Members {
		if p.ID == s.ID || p.Name != name && !overlap(p.URLs, urls) {
			continue
		}
		if err := m.removeID(ctx, p.ID); err != nil {
			return "", fmt.Errorf("remove the former member %s: %w", name, err)
		}
	}
	added, err := m.client.MemberAddAsLearner(ctx, urls)
	if err != nil {
		return "", fmt.Errorf("add member %s: %w", name, explain(err))
	}
	var list []string
	for _, p := range added.Members {
		called := p.Name
		switch {
		case p.ID == added.Member.ID:
			called = name
		case called == "":
			called = fmt.Sprintf("%x", p.ID)
		}
		for _, u := range p.PeerURLs {
			list = append(list, called+"="+u)
		}
	}
	return strings.Join(list, ","), nil
}

// Remove removes a member. It is no error if there is none of that ID.
func (m *Member) Remove(ctx context.Context, id uint64) error {
	if err := m.removeID(ctx, id); err != nil {
		return fmt.Errorf("remove a member: %w", err)
	}
	return nil
}

func (m *Member) removeID(ctx context.Context, id uint64) error {
	_, err := m.client.MemberRemove(ctx, id)
	if errors.Is(err, errNoMember()) {
		return nil
	}
	return explain(err)
}

// Settle announces the addresses of this member if the cluster has others of it, and makes it a voting member if it has
// caught up. It does nothing, and costs nothing, if there is nothing to do. The error is ErrNotReady if it may succeed
// later.
func (m *Member) Settle(ctx context.Context) error {
	s := m.Status()
	self, ok := s.self()
	if !ok || m.o.Peers == nil {
		return nil
	}
	if urls := peerURLs(m.o.Peers.Addresses); !sameURLs(self.URLs, urls) {
		if _, err := m.client.MemberUpdate(ctx, s.ID, urls); err != nil {
			return fmt.Errorf("announce the addresses of this member: %w", explain(err))
		}
	}
	if self.Learner {
		if _, err := m.client.MemberPromote(ctx, s.ID); err != nil {
			return fmt.Errorf("become a voting member: %w", explain(err))
		}
		m.o.Log.Info("this head votes on the shared state from now on", "server", m.o.Name)
	}
	return nil
}

func peerURLs(addrs []netip.AddrPort) []string {
	urls := make([]string, len(addrs))
	for i, a := range addrs {
		urls[i] = "https://" + a.String()
	}
	return urls
}

func sameURLs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(u string) bool { return slices.Contains(b, u) })
}
