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
)

// openEmbedded starts the only member of a cluster of one. It listens nowhere: its client is in this process, and it
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
	c.level.SetLevel(zap.ErrorLevel) // at each start it warns of what we chose, such as having no listener
	defer c.level.SetLevel(zap.WarnLevel)
	late := time.After(startsIn)
	member, err := c.startMember(ctx, c.config(dir), late)
	if err != nil {
		lock.Close()
		return err
	}
	select {
	case <-member.Server.ReadyNotify():
	case <-member.Server.StopNotify():
		err = errors.New("it ended while it started")
	case err = <-member.Err():
	case <-c.end.met:
		lock.Close()
		return c.end.cause() // closing it would wait for ever
	case <-ctx.Done():
		err = ctx.Err()
	case <-late:
		err = fmt.Errorf("%w: no quorum within %v", ErrUnavailable, startsIn)
	}
	if err != nil {
		member.Close()
		lock.Close()
		return err
	}
	pageOut()
	c.member, c.lock = member, lock
	c.client = v3client.New(member.Server)
	return nil
}

// startsIn bounds the start of a member, closesIn the wait for a start that is no longer wanted.
const (
	startsIn = time.Minute
	closesIn = 5 * time.Second
)

// config tunes etcd for a few thousand small keys that change a few times a day.
func (c *Coord) config(dir string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "head"
	cfg.Dir = dir
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.InitialClusterToken = rand.Text() // so that a state made anew is told from the one that was lost
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.EnableGRPCGateway = false
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = "1000"
	cfg.SnapshotCount = 1000
	cfg.SnapshotCatchUpEntries = 500
	cfg.QuotaBackendBytes = 512 << 20
	cfg.MaxRequestBytes = 10 << 20 // a description with its templates and tables is one value
	cfg.WarningApplyDuration = time.Second
	cfg.WarningUnaryRequestDuration = 3 * time.Second
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(c.zapCore(),
		zap.WithFatalHook(c.end), zap.WithPanicHook(c.end)))
	return cfg
}

// startMember starts etcd, or says what keeps it from starting. It gives up, and leaves etcd to itself, when it is late: etcd
// waits for its own locks without end.
func (c *Coord) startMember(ctx context.Context, cfg *embed.Config, late <-chan time.Time) (*embed.Etcd, error) {
	started := make(chan *embed.Etcd, 1)
	failed := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // when its log is damaged, etcd cleans up what it has not made yet
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
	ended := ctx.Done()
	for {
		select {
		case member := <-started:
			return member, nil
		case err := <-failed:
			if cause := c.end.cause(); cause != nil {
				err = cause
			}
			return nil, err
		case <-c.end.met:
			return nil, c.end.cause()
		case <-ended: // what starts cannot be closed yet
			ended, late = nil, time.After(closesIn)
		case <-late:
			return nil, fmt.Errorf("%w: etcd does not start", ErrEnded)
		}
	}
}

// errDamaged stands for the panics of an etcd that cannot start from its own files.
var errDamaged = fmt.Errorf("%w: it cannot read its files, they are damaged", ErrEnded)

// end is etcd's end by a fatal error. When its data is damaged, or its disk fails later, etcd logs that and ends the
// process or panics, in whatever goroutine it is. Our process has nodes to serve, with the state that it keeps (see SaveState), so
// only that goroutine stops where it is, for ever and with the locks that it holds; every call of ours then says why there is no answer. (To
// end the goroutine was tried: it closes what others of etcd go on to use, and they panic.) It cannot be revived but by a new process.
type end struct {
	met chan struct{} // closed when it has come

	mu  sync.Mutex
	err error
}

// OnWrite implements zapcore.CheckWriteHook: zap calls it for a fatal line in place of os.Exit.
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
		close(x.met)
	}
	x.mu.Unlock()
	select {}
}

func (x *end) cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// zapToSlog is a zap core that passes warnings and worse on to slog. What etcd calls info would be a hundred lines at each start.
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
	z.log.Log(context.Background(), level, "etcd", "said", e.Message, "facts", enc.Fields)
	return nil
}

// Sync implements zapcore.Core.
func (zapToSlog) Sync() error { return nil }

// lockDir takes dir for this process. etcd locks its files itself, but waits for them without a word.
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
