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

	"dim/internal/capture/archive"
	"dim/internal/capture/draft"
	"dim/internal/capture/oci"
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
	layered  bool   // it consists of layers
	unpack   func(context.Context, *archive.Unpacker) error
	check    func(*draft.Tree) error // if not nil, says what is wrong with the whole
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

// unpack adds the trees of a bundle to a batch. A hard link may refer to an excluded file whose content was skipped.
// That is known only at the end; then the bundle is read once more.
func (o *Options) unpack(ctx context.Context, batch *store.Batch, b bundle, total Progress) (outcome, error) {
	counted := &meter{total: total}
	defer reportOften(o.Progress, counted.progress)()
	need := map[string]bool{}
	for {
		var odd []Problem
		tree := draft.New(draft.Options{Exclude: o.Exclude, Follow: b.layered, Need: need})
		u := &archive.Unpacker{Batch: batch, Tree: tree, Layer: b.layered, Progress: counted.add}
		u.Warn = func(path, text string) { odd = append(odd, Problem{Path: path, Kind: Odd, Err: errors.New(text)}) }
		if err := b.unpack(ctx, u); err != nil {
			return outcome{}, err
		}
		if b.check != nil {
			if err := b.check(tree); err != nil {
				return outcome{}, err
			}
		}
		missing := tree.Missing()
		if len(missing) == 0 {
			r := Result{FilesRead: u.Files, BytesRead: u.Bytes}
			r.Problems = append(oddSummary(odd), replacedLinks(tree)...)
			return storeDraft(ctx, batch, tree, r)
		}
		known := len(need)
		for _, path := range missing {
			need[path] = true
		}
		if len(need) == known {
			return outcome{}, fmt.Errorf("/%s: its content is missing", missing[0])
		}
	}
}

// oddSummary returns the first problem with each text, and how many more there are.
func oddSummary(all []Problem) (list []Problem) {
	count := map[string]int{}
	for _, p := range all {
		if count[p.Err.Error()]++; count[p.Err.Error()] == 1 {
			list = append(list, p)
		}
	}
	for i, p := range list {
		if more := count[p.Err.Error()] - 1; more > 0 {
			list[i].Err = fmt.Errorf("%w (and %d more)", p.Err, more)
		}
	}
	return list
}

func replacedLinks(tree *draft.Tree) (list []Problem) {
	links := tree.ReplacedLinks()
	for _, path := range slices.Sorted(maps.Keys(links)) {
		list = append(list, Problem{Path: path, Kind: Replaced, Err: fmt.Errorf("it was a link to %s", links[path])})
	}
	return list
}

// storeDraft adds the trees of a draft to a batch.
func storeDraft(ctx context.Context, batch *store.Batch, tree *draft.Tree, r Result) (outcome, error) {
	sum, err := tree.Store(ctx, batch)
	if err != nil {
		return outcome{}, err
	}
	digest, err := batch.PutRoot(sum.Root)
	return outcome{Result: r, root: sum.Root, digest: digest, files: sum.Files, bytes: sum.Bytes}, err
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
	if o.CacheDir == "" {
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
