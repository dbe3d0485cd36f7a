// Package masters makes versions of this server's masters: when a person asks for a capture, and by itself when a
// watched master changes.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. The store's lock lets one capture of an image run at a time.
// Captures of a watched master wait for each other (watched.capturing, taken before any lock of other packages); others
// fail as busy.
//
// # What it must not know
//
// How nodes come to follow a version.
package masters

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/capture"
	"dim/internal/capture/remote"
	"dim/internal/capture/unpack"
	"dim/internal/cluster"
	"dim/internal/compare"
	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/control"
	"dim/internal/follow"
	"dim/internal/problems"
	"dim/internal/store"
	"dim/internal/versions"
)

// Options of a Masters. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Data     string             // the data directory; it never becomes part of a version
	Notes    string             // directory of what captures keep for the next one
	Store    *store.Store
	Reader   confine.Program // reads what masters consist of; it must run Tasks
	Follow   *follow.Follower
	Versions *versions.Registry
	Compare  *compare.Comparer
	RollOut  func(context.Context, control.RolloutRequest) error // lets nodes follow a version of a watched master
	Problems *problems.List
	Log      *slog.Logger
}

// Tasks are what processes do that read what masters consist of.
func Tasks() map[string]confine.Task {
	return map[string]confine.Task{unpack.TaskName: unpack.Task, inspectTask: readfs.Handle(inspectFiles)}
}

// Masters captures and watches masters.
type Masters struct {
	Options
	adjust chan struct{} // capacity 1: what is declared to be watched may have changed

	mu        sync.Mutex
	capturing map[string]control.Progress // captures that run now, by image
	watched   map[string]*watched         // by image
}

// New returns a Masters that watches nothing before Run.
func New(o Options) *Masters {
	return &Masters{
		Options: o, adjust: make(chan struct{}, 1),
		capturing: map[string]control.Progress{}, watched: map[string]*watched{},
	}
}

// Captured is what a capture has found.
type Captured struct {
	capture.Result
	Warnings []control.Warning // each once
}

// Capture makes a version of an image's master, or only tells what would be in it. progress is called now and then,
// never twice at once and not after Capture returned. When it returns, this server has adopted a state with the
// version. The error may be a control.Error.
func (m *Masters) Capture(
	ctx context.Context, im *cluster.Image, r control.CaptureRequest, progress func(control.Progress),
) (out Captured, err error) {
	if _, err := m.Follow.Change(ctx); err != nil {
		return out, err
	}
	if err := m.here("capture", im); err != nil {
		return out, err
	}
	release, err := m.exclusive(ctx, r.Image)
	if err != nil {
		return out, err
	}
	defer release()
	if err := m.Versions.Settle(ctx, r.Image); err != nil {
		return out, err
	}
	begin := time.Now()
	defer m.setProgress(r.Image, nil)
	scan := m.newSecretScan(im)
	look := &reviewer{scan: scan}
	o := m.options(im)
	o.DryRun, o.Accept, o.Reread, o.Review = r.DryRun, r.Accept, r.Reread, look.review
	o.Progress = func(p capture.Progress) {
		now := control.Progress{
			Image: r.Image, Stage: "read", Started: begin,
			Files: p.Files, FilesTotal: p.TotalFiles, Bytes: p.Bytes, BytesTotal: p.TotalBytes,
		}
		m.setProgress(r.Image, &now)
		progress(now)
	}
	out.Result, err = capture.Run(ctx, m.Store, o)
	if err == nil && !r.DryRun && out.Changed {
		err = m.Versions.Publish(ctx, out.Version)
	}
	err = apiError(r.Image, err)
	if !r.DryRun && ctx.Err() == nil { // a cancelled capture has not failed
		m.Problems.Set(problems.Image(r.Image), err)
	}
	if err == nil && !r.DryRun {
		scan.save()
	}
	out.Warnings = look.warnings(out.Problems)
	return out, err
}

// here returns an error with the code Elsewhere if the master of an image is a path that this server does not have, and
// there are other heads, which may have it.
func (m *Masters) here(what string, im *cluster.Image) error {
	kind, path, _ := strings.Cut(im.Master, ":")
	if !slices.Contains([]string{"dir", "tar", "oci"}, kind) || len(m.Follow.Now().OtherHeads(m.Server)) == 0 {
		return nil
	}
	if name := strings.LastIndexByte(path, ':'); kind == "oci" && name > strings.LastIndexByte(path, '/') {
		path = path[:name]
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return control.Errorf(control.Elsewhere, "%s %s: its master %s is not on %s", what, im.Name, im.Master, m.Server).
		WithHint("run the command on the head that has it")
}

// options returns what all captures of an image have in common.
func (m *Masters) options(im *cluster.Image) capture.Options {
	name := string(im.Name)
	return capture.Options{
		Image: name, Master: im.Master, Arch: im.Arch, Exclude: im.Exclude, Reader: m.Reader,
		CacheDir: m.Notes, Own: []string{m.Data},
		Reserve: func(ctx context.Context) (int, error) { return m.Versions.Reserve(ctx, name) }, Log: m.Log,
	}
}

// apiError gives the errors of a capture the API's codes.
func apiError(name string, err error) error {
	if locked, ok := errors.AsType[*store.LockedError](err); ok {
		return control.Errorf(control.Busy, "%s is already being captured (%s)", name, locked.Holder).
			WithHint("dim status shows how far it is; ^C where it was started ends it")
	}
	if held, ok := errors.AsType[*capture.HeldError](err); ok {
		accept := ""
		for _, p := range held.Problems {
			accept += " --accept " + shellWord("/"+p.Path)
		}
		return control.Errorf(control.Held, "%v", err).WithHint(
			"put it back as it was; if nodes are to get it so: dim image capture " + name + accept)
	}
	if failed, ok := errors.AsType[*remote.Error](err); ok {
		return control.Errorf(control.Unavailable, "%v", err).WithHint(failed.Hint)
	}
	return err
}

// shellWord quotes s for a shell if that is necessary.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// setProgress notes how far a capture is; nil: it has ended.
func (m *Masters) setProgress(name string, p *control.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p == nil {
		delete(m.capturing, name)
		return
	}
	m.capturing[name] = *p
}

// Capturing returns the captures by hand that run now, in order of image.
func (m *Masters) Capturing() []control.Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.capturing), func(a, b control.Progress) int {
		return strings.Compare(a.Image, b.Image)
	})
}
