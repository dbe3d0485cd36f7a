package member

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"dim/internal/sysfile"
)

const (
	startTimeout = time.Minute
	abortTimeout = 5 * time.Second // for a start after its context has ended
	// quorumWait bounds the wait for other members at the start. The member goes on to look for them after that.
	quorumWait = 5 * time.Second
	// heartbeat and election are the intervals of a cluster. Heads also serve nodes, so they are longer than etcd's
	// defaults of 100 and 1000 ms: a busy machine is not to lose its leadership.
	heartbeat, election = 200, 2000
)

// Exists reports whether a directory has a member.
func Exists(dir string) bool { return wal.Exist(filepath.Join(dir, "member", "wal")) }

// Start starts the member in a directory, or makes one there. It returns when the member can be used. A member that has
// others returns also when these do not answer. The error is ErrEnded, ErrRemoved, ErrNoQuorum, or one of Peers.Join.
func Start(ctx context.Context, o Options) (*Member, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Member{o: o, level: zap.NewAtomicLevelAt(zap.ErrorLevel), end: &end{ended: make(chan struct{})}}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if err := m.start(ctx); err != nil {
		_ = sysfile.Unlock(m.lock)
		return nil, err
	}
	// The start warns of settings that are intended, such as no listener.
	m.level.SetLevel(zap.WarnLevel)
	pageOut()
	m.client = v3client.New(m.etcd.Server)
	go m.watchEnd()
	return m, nil
}

func (m *Member) start(ctx context.Context) error {
	cfg, err := m.config(ctx)
	if err != nil {
		return err
	}
	late := time.After(startTimeout)
	if m.etcd, err = m.startEtcd(ctx, cfg, late); err != nil {
		return err
	}
	var others <-chan time.Time // fires when the member is returned without the others
	if m.o.Peers != nil {
		others = time.After(quorumWait)
	}
	select {
	case <-m.etcd.Server.ReadyNotify():
		return nil
	case <-others:
		return nil
	case <-m.etcd.Server.StopNotify():
		err = errors.New("etcd ended while it started")
		if m.o.Peers != nil {
			err = ErrRemoved
		}
	case err = <-m.etcd.Err():
	case <-m.end.ended:
		return m.end.cause() // Close would never return
	case <-ctx.Done():
		err = ctx.Err()
	case <-late:
		err = fmt.Errorf("%w within %v", ErrNoQuorum, startTimeout)
	}
	m.etcd.Close()
	return err
}

// watchEnd notes that etcd has stopped although nobody has closed it: it does that when other members tell it that it
// was removed.
func (m *Member) watchEnd() {
	<-m.etcd.Server.StopNotify()
	if !m.closed.Load() {
		m.end.fail(ErrRemoved)
	}
}

// config returns a configuration for a few thousand small keys that change a few times a day.
func (m *Member) config(ctx context.Context) (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Name = m.o.Name
	cfg.Dir = m.o.Dir
	cfg.InitialClusterToken = rand.Text() // gives a new cluster another ID than the one before
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.EnableGRPCGateway = false
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = "1000"
	cfg.SnapshotCount = 1000
	cfg.SnapshotCatchUpEntries = 500
	cfg.QuotaBackendBytes = m.o.Quota
	cfg.MaxRequestBytes = m.o.MaxRequest
	cfg.MaxTxnOps = m.o.MaxOps
	cfg.WarningApplyDuration = time.Second
	cfg.WarningUnaryRequestDuration = 3 * time.Second
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(LogCore(m.o.Log, m.level),
		zap.WithFatalHook(m.end), zap.WithPanicHook(m.end)))
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if m.o.Peers == nil {
		return cfg, nil
	}
	return cfg, m.configPeers(ctx, cfg)
}

// configPeers lets the member listen for others, and join them if it has no directory yet.
func (m *Member) configPeers(ctx context.Context, cfg *embed.Config) error {
	p := m.o.Peers
	cfg.AdvertisePeerUrls = asURLs(p.Addresses)
	here, err := present(p.Addresses)
	if err != nil {
		return err
	}
	cfg.ListenPeerUrls = asURLs(here)
	cfg.TickMs, cfg.ElectionMs = heartbeat, election
	cfg.TlsMinVersion = "TLS1.3"
	cfg.PeerTLSInfo = transport.TLSInfo{
		CertFile: p.TLS.Cert, KeyFile: p.TLS.Key, TrustedCAFile: p.TLS.Authority, ClientCertAuth: true,
		ServerName: p.TLS.Host, AllowedHostnames: []string{p.TLS.Host}, SkipClientSANVerify: true,
	}
	initial := make([]string, len(p.Addresses))
	for i, u := range peerURLs(p.Addresses) {
		initial[i] = cfg.Name + "=" + u
	}
	cfg.InitialCluster = strings.Join(initial, ",")
	if p.Join == nil || Exists(cfg.Dir) {
		return nil
	}
	// What a start that was interrupted has left would not fit to another ID.
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "member")); err != nil {
		return err
	}
	cfg.ClusterState = embed.ClusterStateFlagExisting
	cfg.InitialCluster, err = p.Join(ctx)
	return err
}

func asURLs(addrs []netip.AddrPort) (list []url.URL) {
	for _, a := range addrs {
		list = append(list, url.URL{Scheme: "https", Host: a.String()})
	}
	return list
}

// present returns the addresses that this machine has now, at least one.
func present(addrs []netip.AddrPort) (here []netip.AddrPort, err error) {
	has, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		for _, h := range has {
			if in, ok := h.(*net.IPNet); ok && (in.IP.Equal(a.Addr().AsSlice()) ||
				in.IP.IsLoopback() && in.Contains(a.Addr().AsSlice())) {
				here = append(here, a)
				break
			}
		}
	}
	if len(here) == 0 {
		return nil, fmt.Errorf("listen for other heads: no interface here has %v", addrs)
	}
	return here, nil
}

// startEtcd starts etcd. It returns without etcd when late fires, because etcd waits for its own locks without a limit.
func (m *Member) startEtcd(ctx context.Context, cfg *embed.Config, late <-chan time.Time) (*embed.Etcd, error) {
	started := make(chan *embed.Etcd, 1)
	failed := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // etcd panics in its cleanup if its log is damaged
				failed <- errDamaged
			}
		}()
		e, err := embed.StartEtcd(cfg)
		if err != nil {
			failed <- err
			return
		}
		started <- e
	}()
	canceled := ctx.Done()
	for {
		select {
		case e := <-started:
			return e, nil
		case err := <-failed:
			return nil, cmp.Or(m.end.cause(), err)
		case <-m.end.ended:
			return nil, m.end.cause()
		case <-canceled: // a member can be closed only after its start
			canceled, late = nil, time.After(abortTimeout)
		case <-late:
			return nil, fmt.Errorf("%w: etcd does not start", ErrEnded)
		}
	}
}

// errDamaged is returned when etcd panics while it reads its files.
var errDamaged = fmt.Errorf("%w: it cannot read its files, they are damaged", ErrEnded)

// lockDir locks dir for this process. etcd's own lock is not enough: etcd waits for it without a message.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errors.New("another process uses it")
	}
	return f, nil
}

// explain gives the errors of changes of the members words, and the error to branch on.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
		return fmt.Errorf("%w: it has not caught up with the others yet", ErrNotReady)
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return fmt.Errorf("%w: another head is joining", ErrNotReady)
	case errors.Is(err, rpctypes.ErrUnhealthy), errors.Is(err, rpctypes.ErrMemberNotEnoughStarted):
		return fmt.Errorf("%w: a head is down, or came up seconds ago; one that is dead has to be removed first",
			ErrNotReady)
	}
	return err
}

func errNoMember() error { return rpctypes.ErrMemberNotFound }
