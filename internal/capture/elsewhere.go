package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"dim/internal/capture/archive"
	"dim/internal/capture/draft"
	"dim/internal/capture/oci"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/store"
)

// place names the master in errors.
func (o *Options) place() string {
	if o.Dir != "" {
		return o.Dir
	}
	return o.Master
}

// captureElsewhere captures a master that is no directory of this machine.
func (o *Options) captureElsewhere(ctx context.Context, s *store.Store) (Result, error) {
	hold, err := s.Hold() // the version is known only after the batch has ended
	if err != nil {
		return Result{}, err
	}
	defer hold.Unlock()
	kind, place, _ := strings.Cut(o.Master, ":")
	switch kind {
	case "tar":
		return o.captureTar(ctx, s, place)
	case "ssh":
		return o.captureSSH(ctx, s, place)
	case "oci":
		return o.captureLayout(ctx, s, place)
	case "docker":
		return o.captureRegistry(ctx, s, place, oci.Loopback)
	case "docker+http":
		return o.captureRegistry(ctx, s, place, oci.Declared)
	}
	return Result{}, fmt.Errorf("masters of the kind %q are not known", kind)
}

// bundle is a master that is read as a whole or not at all.
type bundle struct {
	identity string // the same as that of an earlier capture: nothing has changed; "": it is read in any case
	layered  bool   // it is a stack of layers
	unpack   func(context.Context, *archive.Unpacker) error
}

func (o *Options) captureBundle(ctx context.Context, s *store.Store, b bundle) (Result, error) {
	if b.identity != "" {
		b.identity += " " + o.excludeSum()
	}
	newest, err := s.Resolve(image.Ref{Image: o.Image})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Result{}, err
	}
	if err == nil && b.identity != "" && o.remembered() == (memory{memoryFormat, b.identity, newest.Digest}) {
		return Result{Version: newest, Before: newest, Unchanged: newest.Files}, nil
	}
	hold, err := s.Hold() // the version is known only after the batch has ended
	if err != nil {
		return Result{}, err
	}
	defer hold.Unlock()
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
		if err := o.remember(memory{memoryFormat, b.identity, out.digest}); err != nil {
			o.Log.Warn("notes for the next capture cannot be kept", "image", o.Image, "err", err)
		}
	}
	return r, err
}

// excludeSum tells rules from others.
func (o *Options) excludeSum() string {
	var texts []string
	for _, p := range o.Exclude {
		texts = append(texts, p.String())
	}
	return image.Sum([]byte(strings.Join(texts, "\x00"))).Short()
}

// unpack puts a bundle's trees into batch. A file that is excluded under the name at which its content comes, but not under another, is
// found out only at the end: then all is read once more.
func (o *Options) unpack(ctx context.Context, batch *store.Batch, b bundle, total Progress) (outcome, error) {
	seen := &meter{total: total}
	stop := everyNowAndThen(func() { seen.report(o.Progress) }, o.Progress != nil)
	defer stop()
	need := map[string]bool{}
	for {
		tree := draft.New(draft.Options{Exclude: o.Exclude, Follow: b.layered, Need: need})
		u := &archive.Unpacker{Batch: batch, Tree: tree, Whiteouts: b.layered, Seen: seen.add}
		if err := b.unpack(ctx, u); err != nil {
			return outcome{}, err
		}
		missing := tree.Missing()
		if len(missing) == 0 {
			return stored(ctx, batch, tree, Result{FilesRead: u.Files, BytesRead: u.Bytes})
		}
		known := len(need)
		for _, path := range missing {
			need[path] = true
		}
		if len(need) == known {
			return outcome{}, fmt.Errorf("/%s: its content does not come", missing[0])
		}
	}
}

// stored puts a draft's trees into batch.
func stored(ctx context.Context, batch *store.Batch, tree *draft.Tree, r Result) (outcome, error) {
	sum, err := tree.Store(ctx, batch)
	if err != nil {
		return outcome{}, err
	}
	digest, err := batch.PutRoot(sum.Root)
	return outcome{Result: r, root: sum.Root, digest: digest, files: sum.Files, bytes: sum.Bytes}, err
}

// meter counts what a capture meets.
type meter struct {
	files, bytes atomic.Uint64
	total        Progress
}

func (m *meter) add(files, bytes uint64) {
	m.files.Add(files)
	m.bytes.Add(bytes)
}

func (m *meter) report(to func(Progress)) {
	p := m.total
	p.Files, p.Bytes = m.files.Load(), m.bytes.Load()
	to(p)
}

// memory is what a capture keeps of a bundle. It is this machine's own business, and can be thrown away at any time.
type memory struct {
	Format   int          `json:"format"`
	Identity string       `json:"identity"`
	Digest   image.Digest `json:"digest"` // of the version that was made of it
}

const memoryFormat = 1

func (o *Options) memoryPath() string {
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%s.json", o.Image, image.Sum([]byte(o.Master)).Short()))
}

// remembered returns what the last capture kept, or what equals nothing.
func (o *Options) remembered() (m memory) {
	if o.CacheDir == "" {
		return m
	}
	b, err := os.ReadFile(o.memoryPath())
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("notes of the previous capture cannot be used", "path", o.memoryPath(), "err", err)
	}
	return m
}

func (o *Options) remember(m memory) error {
	if o.CacheDir == "" {
		return nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := durable.RemoveTemps(o.CacheDir); err != nil {
		return err
	}
	return durable.WriteFile(o.memoryPath(), append(b, '\n'), 0o600)
}
