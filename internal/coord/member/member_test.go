package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"dim/internal/cluster"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// host is a machine of a test, known by an address of loopback.
type host struct {
	t     *testing.T
	name  string
	dir   string
	at    netip.AddrPort
	files Files
	m     *Member
}

// newHosts makes machines whose certificates are of one authority.
func newHosts(t *testing.T, names ...string) (list []*host) {
	t.Helper()
	data := t.TempDir()
	testkit.Value(pki.Init(data))(t)
	c := testkit.Value(pki.Open(data))(t)
	testkit.Must(t, c.Assume("head", []cluster.Role{cluster.RoleHead}, time.Now()))
	f := testkit.Value(c.MemberFiles(time.Now()))(t)
	for i, name := range names {
		addr := fmt.Sprintf("127.0.0.%d:0", 41+i)
		ln := testkit.Value(net.Listen("tcp", addr))(t)
		at := netip.MustParseAddrPort(ln.Addr().String())
		testkit.Must(t, ln.Close())
		h := &host{
			t: t, name: name, dir: filepath.Join(t.TempDir(), name), at: at,
			files: Files{Authority: f.Authority, Cert: f.Cert, Key: f.Key, Host: f.Host},
		}
		t.Cleanup(h.stop)
		list = append(list, h)
	}
	return list
}

// start starts the member of h. by adds it if it has no directory; nil: h begins the cluster.
func (h *host) start(by *host) error {
	p := &Peers{Addresses: []netip.AddrPort{h.at}, TLS: h.files}
	if by != nil {
		p.Join = func(ctx context.Context) (string, error) {
			return by.m.Add(ctx, h.name, []netip.AddrPort{h.at})
		}
	}
	m, err := Start(h.t.Context(), Options{
		Dir: h.dir, Name: h.name, Quota: 64 << 20, MaxRequest: 1 << 20, MaxOps: 100, Peers: p,
		Log: slog.New(slog.NewTextHandler(testWriter{h.t, h.name}, nil)),
	})
	if err == nil {
		h.m = m
	}
	return err
}

// join starts h until it votes.
func (h *host) join(by *host) {
	h.t.Helper()
	var last error
	testkit.Eventually(h.t, h.name+" is added", func() bool { last = h.start(by); return last == nil })
	h.votes()
}

func (h *host) votes() {
	h.t.Helper()
	testkit.Eventually(h.t, h.name+" votes", func() bool {
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		err := h.m.Settle(ctx)
		s := h.m.Status()
		self, ok := s.self()
		return err == nil && ok && !self.Learner && s.Leader != 0
	})
}

func (h *host) stop() {
	if h.m != nil {
		_ = h.m.Close()
		h.m = nil
	}
}

func (h *host) put(key string) error {
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	defer cancel()
	_, err := h.m.Client().Put(ctx, key, "x")
	return err
}

// puts puts a key as soon as the cluster allows it.
func (h *host) puts(key string) {
	h.t.Helper()
	testkit.Eventually(h.t, h.name+" puts "+key, func() bool { return h.put(key) == nil })
}

func (h *host) has(key string) {
	h.t.Helper()
	testkit.Eventually(h.t, h.name+" has "+key, func() bool {
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		r, err := h.m.Client().Get(ctx, key)
		return err == nil && len(r.Kvs) == 1
	})
}

// testWriter writes the logs of a member to a test.
type testWriter struct {
	t    *testing.T
	name string
}

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s: %s", w.name, p)
	}
	return len(p), nil
}

func TestOneBecomesThree(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, "a", "b", "c")
	a, b, c := hosts[0], hosts[1], hosts[2]

	// The first one is alone, and nobody can reach it.
	m := testkit.Value(Start(t.Context(), Options{Dir: a.dir, Name: "head", Quota: 64 << 20, MaxRequest: 1 << 20,
		MaxOps: 100}))(t)
	a.m = m
	a.puts("alone")
	if _, err := m.Add(t.Context(), "b", []netip.AddrPort{b.at}); !errors.Is(err, ErrNotReady) {
		t.Errorf("one that does not listen adds another: %v", err)
	}
	a.stop()

	testkit.Must(t, a.start(nil))
	a.votes()
	b.join(a)
	c.join(b)
	b.has("alone")
	c.puts("three")

	a.stop()
	b.puts("without a")
	c.has("without a")
	b.stop()
	if err := c.put("without quorum"); err == nil {
		t.Error("one of three puts")
	}
	testkit.Eventually(t, "c knows no leader", func() bool { s := c.m.Status(); return s.Leader == 0 })
	testkit.Must(t, b.start(a), a.start(nil))
	c.puts("again")
	a.has("again")
}

func TestADeadMemberIsReplaced(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, "a", "b", "c", "d")
	a, b, c, d := hosts[0], hosts[1], hosts[2], hosts[3]
	testkit.Must(t, a.start(nil))
	a.votes()
	b.join(a)
	c.join(a)

	// b loses its disk and comes back by the same name.
	b.stop()
	testkit.Must(t, os.RemoveAll(b.dir))
	a.puts("while b is away")
	b.join(a)
	b.has("while b is away")

	// c is removed, and finds it out; d takes its place.
	var id uint64
	for _, p := range a.m.Status().Members {
		if p.Name == "c" {
			id = p.ID
		}
	}
	testkit.Eventually(t, "c is removed", func() bool { return a.m.Remove(t.Context(), id) == nil })
	testkit.Must(t, a.m.Remove(t.Context(), id))
	select {
	case <-c.m.Ended():
	case <-time.After(time.Minute):
		t.Fatal("a member that was removed goes on")
	}
	if err := c.m.Cause(); !errors.Is(err, ErrRemoved) {
		t.Errorf("it ended with %v", err)
	}
	d.join(b)
	d.puts("d")
	if s := a.m.Status(); len(s.Members) != 3 {
		t.Errorf("the members are %+v", s.Members)
	}
}

// TestAJoinIsInterruptedAndRepeated leaves a member behind that was added and has never started.
func TestAJoinIsInterruptedAndRepeated(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, "a", "b")
	a, b := hosts[0], hosts[1]
	testkit.Must(t, a.start(nil))
	a.votes()
	testkit.Eventually(t, "b is added", func() bool {
		_, err := a.m.Add(t.Context(), "b", []netip.AddrPort{b.at})
		return err == nil
	})
	a.puts("b does not count yet")
	testkit.Must(t, os.MkdirAll(filepath.Join(b.dir, "member", "snap"), 0o700),
		os.WriteFile(filepath.Join(b.dir, "member", "snap", "db"), []byte("half"), 0o600))
	b.join(a)
	b.has("b does not count yet")
	if s := a.m.Status(); len(s.Members) != 2 {
		t.Errorf("the members are %+v", s.Members)
	}
}

// TestStrangersAreNoMembers tries certificates of the same authority that have another use, and those of another one.
func TestStrangersAreNoMembers(t *testing.T) {
	t.Parallel()
	a, b := newHosts(t, "a")[0], newHosts(t, "x", "b")[1]
	testkit.Must(t, a.start(nil))
	a.votes()
	identity := filepath.Dir(filepath.Dir(a.files.Cert))
	for what, files := range map[string]Files{
		"another authority": b.files,
		"a server": {
			Authority: a.files.Authority, Host: a.files.Host, Cert: filepath.Join(identity, "cert.pem"),
			Key: filepath.Join(identity, "key.pem"),
		},
	} {
		b.files = files
		testkit.Must(t, os.RemoveAll(b.dir))
		if err := b.start(a); err == nil {
			t.Errorf("%s: it has joined", what)
			b.stop()
		}
	}
}

func TestRepeatedLinesOfEtcdAreLeftOut(t *testing.T) {
	var b strings.Builder
	log := zap.New(LogCore(slog.New(slog.NewTextHandler(&b, nil)), zap.WarnLevel))
	for range 100 {
		log.Warn("peer is away")
	}
	log.Error("another")
	if n := strings.Count(b.String(), "peer is away"); n != repeatBurst || !strings.Contains(b.String(), "another") {
		t.Errorf("%d lines:\n%s", n, &b)
	}
}
