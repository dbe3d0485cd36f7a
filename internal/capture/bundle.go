package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"dim/internal/capture/oci"
	"dim/internal/capture/unpack"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/store"
)

// masterName returns the name of the master for errors.
func (o *Options) masterName() string {
	if o.Dir != "" {
		return o.Dir
	}
	return o.Master
}

// captureByKind captures a master that is not a local directory.
func (o *Options) captureByKind(ctx context.Context, s *store.Store) (Result, error) {
	hold, err := s.Hold() // the hold of the batch ends before the version is written
	if err != nil {
		return Result{}, err
	}
	defer hold.Unlock()
	kind, address, _ := strings.Cut(o.Master, ":")
	switch kind {
	case "tar":
		return o.captureTar(ctx, s, address)
	case "ssh":
		return o.captureSSH(ctx, s, address)
	case "oci":
		return o.captureLayout(ctx, s, address)
	case "docker":
		return o.captureRegistry(ctx, s, address, oci.Loopback)
	case "docker+http":
		return o.captureRegistry(ctx, s, address, oci.Declared)
	}
	return Result{}, fmt.Errorf("masters of the kind %q are not known", kind)
}

// bundle is a master that is read completely or not at all.
type bundle struct {
	identity string // if it is that of the previous capture, nothing has changed; "": it is always read
	source   unpack.Source
	after    func() error // if not nil, says whether what was read can be used
}

func (o *Options) captureBundle(ctx context.Context, s *store.Store, b bundle) (Result, error) {
	if b.identity != "" {
		b.identity += " " + o.excludeSum()
	}
	newest, err := s.Resolve(image.Ref{Image: o.Image})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Result{}, err
	}
	known := bundleNote{bundleNoteFormat, b.identity, newest.Digest}
	if err == nil && b.identity != "" && o.loadBundleNote() == known {
		return Result{Version: newest, Before: newest, Unchanged: newest.Files}, nil
	}
	batch, err := s.Begin()
	if err != nil {
		return Result{}, err
	}
	defer batch.Abort()
	out, err := o.unpack(ctx, batch, b, Progress{TotalFiles: newest.Files, TotalBytes: newest.Bytes})
	if err != nil {
		return Result{}, err
	}
	r, err := o.conclude(ctx, s, batch, out)
	if err == nil && !o.DryRun && b.identity != "" {
		if err := o.saveBundleNote(bundleNote{bundleNoteFormat, b.identity, out.digest}); err != nil {
			o.Log.Warn("notes for the next capture cannot be kept", "image", o.Image, "error", err)
		}
	}
	return r, err
}

// excludeSum identifies the exclude rules.
func (o *Options) excludeSum() string {
	var texts []string
	for _, p := range o.Exclude {
		texts = append(texts, p.String())
	}
	return image.Sum([]byte(strings.Join(texts, "\x00"))).Short()
}

// unpack adds the trees of a bundle to a batch.
func (o *Options) unpack(ctx context.Context, batch *store.Batch, b bundle, total Progress) (out outcome, err error) {
	counted := &meter{total: total}
	defer reportOften(o.Progress, counted.progress)()
	b.source.Exclude = o.Exclude
	r, err := unpack.Run(ctx, o.Reader, b.source, batch, counted.set)
	if err == nil && b.after != nil {
		err = b.after()
	}
	if err != nil {
		return out, err
	}
	out = outcome{root: r.Root, files: r.Files, bytes: r.Bytes}
	out.FilesRead, out.BytesRead = r.FilesRead, r.BytesRead
	out.Problems = append(oddProblems(r.Odd), replacedLinks(r.Replaced)...)
	out.digest, err = batch.PutRoot(r.Root)
	return out, err
}

func oddProblems(all []unpack.Oddity) (list []Problem) {
	for _, odd := range all {
		err := errors.New(odd.Text)
		if odd.More > 0 {
			err = fmt.Errorf("%w (and %d more)", err, odd.More)
		}
		list = append(list, Problem{Path: odd.Path, Kind: Odd, Err: err})
	}
	return list
}

func replacedLinks(links map[string]string) (list []Problem) {
	for _, path := range slices.Sorted(maps.Keys(links)) {
		list = append(list, Problem{Path: path, Kind: Replaced, Err: fmt.Errorf("it was a link to %s", links[path])})
	}
	return list
}

// meter counts the progress of a capture.
type meter struct {
	files, bytes atomic.Uint64
	total        Progress
}

func (m *meter) add(files, bytes uint64) {
	m.files.Add(files)
	m.bytes.Add(bytes)
}

func (m *meter) set(files, bytes uint64) {
	m.files.Store(files)
	m.bytes.Store(bytes)
}

func (m *meter) progress() Progress {
	p := m.total
	p.Files, p.Bytes = m.files.Load(), m.bytes.Load()
	return p
}

// bundleNote is kept of the last capture of a bundle. It is used only on this machine, and can be deleted at any time.
type bundleNote struct {
	Format   int          `json:"format"`
	Identity string       `json:"identity"`
	Digest   image.Digest `json:"digest"` // of the version
}

const bundleNoteFormat = 1

func (o *Options) bundleNotePath() string {
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%s.json", o.Image, image.Sum([]byte(o.Master)).Short()))
}

// loadBundleNote returns the note of the last capture, or the zero bundleNote.
func (o *Options) loadBundleNote() (n bundleNote) {
	if o.CacheDir == "" || o.Reread {
		return n
	}
	b, err := os.ReadFile(o.bundleNotePath())
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("notes of the previous capture cannot be used", "file", o.bundleNotePath(), "error", err)
	}
	return n
}

func (o *Options) saveBundleNote(n bundleNote) error {
	if o.CacheDir == "" {
		return nil
	}
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := durable.RemoveTemps(o.CacheDir); err != nil {
		return err
	}
	return durable.WriteFile(o.bundleNotePath(), append(b, '\n'), 0o600)
}
