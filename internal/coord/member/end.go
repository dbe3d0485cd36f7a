package member

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"dim/internal/bounds"
)

// end records why etcd cannot go on. When that is because of damaged data or a full disk, etcd logs a fatal line and
// expects that this ends the process or panics. But the process has nodes to serve. So the logging goroutine blocks for
// ever instead, with the locks that it holds, and all calls return the error. (To exit only that goroutine was tried:
// its deferred calls close what other goroutines of etcd still use, and these panic.) Only a new process can start etcd
// again.
type end struct {
	ended chan struct{} // closed after the error

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
	x.fail(fmt.Errorf("%w: %s", ErrEnded, text))
	select {}
}

func (x *end) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err == nil {
		x.err = err
		close(x.ended)
	}
}

func (x *end) cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

const (
	// repeatEvery and repeatBurst bound the lines of etcd with the same message. It repeats some several times a second
	// as long as another member is away.
	repeatEvery = 10 * time.Minute
	repeatBurst = 3
)

// zapToSlog is a zap core that writes to slog. It leaves out etcd's lines of level info: a hundred at each start.
type zapToSlog struct {
	zapcore.LevelEnabler
	log     *slog.Logger
	repeats *bounds.Rate[string] // of lines, by message
	fields  []zapcore.Field
}

// LogCore returns a core of zap that writes what level enables to log. It writes few lines with the same message.
func LogCore(log *slog.Logger, level zapcore.LevelEnabler) zapcore.Core {
	repeats := &bounds.Rate[string]{Every: repeatEvery, Burst: repeatBurst}
	return zapToSlog{LevelEnabler: level, log: log, repeats: repeats}
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
	if !z.repeats.Allow(e.Message, time.Now()) {
		return nil
	}
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
