package coord

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"dim/internal/sysfile"
)

// openEmbedded starts an etcd cluster of one member. The member has no listeners: its client is in this process, and it
// has no peers.
func (c *Coord) openEmbedded(ctx context.Context, dir string) error {
	c.where = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	c.level.SetLevel(zap.ErrorLevel) // the start warns of settings that are intended, such as no listener
	defer c.level.SetLevel(zap.WarnLevel)
	late := time.After(startTimeout)
	member, err := c.startMember(ctx, c.config(dir), late)
	if err != nil {
		_ = sysfile.Unlock(lock)
		return err
	}
	select {
	case <-member.Server.ReadyNotify():
	case <-member.Server.StopNotify():
		err = errors.New("etcd ended while it started")
	case err = <-member.Err():
	case <-c.end.ended:
		_ = sysfile.Unlock(lock)
		return c.end.cause() // Close would never return
	case <-ctx.Done():
		err = ctx.Err()
	case <-late:
		err = fmt.Errorf("%w: no quorum within %v", ErrUnavailable, startTimeout)
	}
	if err != nil {
		member.Close()
		_ = sysfile.Unlock(lock)
		return err
	}
	pageOut()
	c.member, c.lock = member, lock
	c.client = v3client.New(member.Server)
	return nil
}

const (
	maxOps       = 4096 // of a transaction: a state that was lost is declared again in one
	startTimeout = time.Minute
	abortTimeout = 5 * time.Second // for a start after its context has ended
)

// config returns a configuration for a few thousand small keys that change a few times a day.
func (c *Coord) config(dir string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "head"
	cfg.Dir = dir
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.InitialClusterToken = rand.Text() // gives a new state another State.Store than the one before
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.EnableGRPCGateway = false
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = "1000"
	cfg.SnapshotCount = 1000
	cfg.SnapshotCatchUpEntries = 500
	cfg.QuotaBackendBytes = c.quota
	cfg.MaxRequestBytes = maxRequest
	cfg.MaxTxnOps = maxOps
	cfg.WarningApplyDuration = time.Second
	cfg.WarningUnaryRequestDuration = 3 * time.Second
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(c.zapCore(),
		zap.WithFatalHook(c.end), zap.WithPanicHook(c.end)))
	return cfg
}

// startMember starts etcd. It returns without etcd when late fires, because etcd waits for its own locks without a
// limit.
func (c *Coord) startMember(ctx context.Context, cfg *embed.Config, late <-chan time.Time) (*embed.Etcd, error) {
	started := make(chan *embed.Etcd, 1)
	failed := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // etcd panics in its cleanup if its log is damaged
				failed <- errDamaged
			}
		}()
		member, err := embed.StartEtcd(cfg)
		if err != nil {
			failed <- err
			return
		}
		started <- member
	}()
	canceled := ctx.Done()
	for {
		select {
		case member := <-started:
			return member, nil
		case err := <-failed:
			if cause := c.end.cause(); cause != nil {
				err = cause
			}
			return nil, err
		case <-c.end.ended:
			return nil, c.end.cause()
		case <-canceled: // a member can be closed only after its start
			canceled, late = nil, time.After(abortTimeout)
		case <-late:
			return nil, fmt.Errorf("%w: etcd does not start", ErrEnded)
		}
	}
}

// errDamaged is returned when etcd panics while it reads its files.
var errDamaged = fmt.Errorf("%w: it cannot read its files, they are damaged", ErrEnded)

// end records a fatal error of etcd. When etcd cannot go on, because of damaged data or a full disk, it logs a fatal
// line and expects that this ends the process or panics. But the process has nodes to serve. So the logging goroutine
// blocks for ever instead, with the locks that it holds, and all calls return the error. (To exit only that goroutine
// was tried: its deferred calls close what other goroutines of etcd still use, and these panic.) Only a new process
// can start etcd again.
type end struct {
	ended chan struct{} // closed after the fatal error

	mu  sync.Mutex
	err error
}

// OnWrite implements zapcore.CheckWriteHook. zap calls it for a fatal line in place of os.Exit. It does not return.
func (x *end) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	text := ce.Message
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok {
			text += ": " + err.Error()
		}
	}
	x.mu.Lock()
	if x.err == nil {
		x.err = fmt.Errorf("%w: %s", ErrEnded, text)
		close(x.ended)
	}
	x.mu.Unlock()
	select {}
}

func (x *end) cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// zapToSlog is a zap core that writes to slog. It leaves out etcd's lines of level info: a hundred at each start.
type zapToSlog struct {
	zapcore.LevelEnabler
	log    *slog.Logger
	fields []zapcore.Field
}

func (c *Coord) zapCore() zapcore.Core {
	return zapToSlog{LevelEnabler: c.level, log: c.log}
}

// With implements zapcore.Core.
func (z zapToSlog) With(fields []zapcore.Field) zapcore.Core {
	z.fields = append(z.fields[:len(z.fields):len(z.fields)], fields...)
	return z
}

// Check implements zapcore.Core.
func (z zapToSlog) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if z.Enabled(e.Level) {
		return ce.AddCore(e, z)
	}
	return ce
}

// Write implements zapcore.Core.
func (z zapToSlog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(z.fields[:len(z.fields):len(z.fields)], fields...) {
		f.AddTo(enc)
	}
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	z.log.Log(context.Background(), level, "etcd", "reason", e.Message, "facts", enc.Fields)
	return nil
}

// Sync implements zapcore.Core.
func (zapToSlog) Sync() error { return nil }

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
