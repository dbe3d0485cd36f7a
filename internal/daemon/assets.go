package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/singleflight"

	"dim/internal/boot/delivery"
	"dim/internal/cluster"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/initramfs"
	"dim/internal/store"
	"dim/internal/versionfs"
)

// assets makes what nodes boot out of the versions that their replicas show, and keeps it in a directory under a
// digest of all that it was made from.
type assets struct {
	dir     string // of the cache; what is in it can be made again
	initDir string // where the dim-init programs are
	store   *store.Store
	log     *slog.Logger
	flight  singleflight.Group
	left    sync.WaitGroup  // builds for which nobody waits any more
	life    context.Context // of builds, which outlive who asked for them
	end     context.CancelFunc

	mu       sync.Mutex
	releases map[releaseKey]string // found in versions; "": none
}

// releaseKey is what the kernel of a version depends on.
type releaseKey struct {
	version image.Digest
	wanted  string
}

func newAssets(dir, initDir string, s *store.Store, log *slog.Logger) *assets {
	a := &assets{dir: dir, initDir: initDir, store: s, log: log, releases: map[releaseKey]string{}}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// close ends what is being built. Nobody may ask any more.
func (a *assets) close() {
	a.end()
	a.left.Wait()
}

// asset is what one build amounts to, as it is kept beside the initramfs.
type asset struct {
	Release string       `json:"release"`
	Kernel  string       `json:"kernel"`  // path in the image
	Digest  image.Digest `json:"digest"`  // of the initramfs
	Size    int64        `json:"size"`    // of the initramfs
	Modules int          `json:"modules"` // in it
}

// payload returns what nodes of an image boot that show version v.
func (a *assets) payload(ctx context.Context, v image.Version, im *cluster.Image) (p delivery.Payload, err error) {
	made, path, err := a.made(ctx, v, im)
	if err != nil {
		return p, fmt.Errorf("boot %s: %w", v.Ref(), err)
	}
	e, err := versionfs.New(a.store, v.Root).Entry(made.Kernel)
	if err != nil {
		return p, err
	}
	p.Kernel = delivery.Asset{
		Digest: e.Digest, Size: int64(e.Size), Open: func() (delivery.File, error) { return a.store.OpenBlob(e.Digest) },
	}
	p.Initramfs = delivery.Asset{
		Digest: made.Digest, Size: made.Size, Open: func() (delivery.File, error) { return os.Open(path) },
	}
	return p, nil
}

// release tells which kernel a version boots; the error says why it cannot boot. `dim status` asks for it each time.
func (a *assets) release(v image.Version, im *cluster.Image) (string, error) {
	key := releaseKey{v.Digest, im.Kernel.Version}
	a.mu.Lock()
	release, known := a.releases[key]
	a.mu.Unlock()
	if !known {
		var err error
		if release, err = a.find(v, im); err != nil && !errors.Is(err, initramfs.ErrNoKernel) {
			return "", err
		}
		a.mu.Lock()
		a.releases[key] = release
		a.mu.Unlock()
	}
	if release == "" {
		return "", initramfs.ErrNoKernel
	}
	return release, nil
}

func (a *assets) find(v image.Version, im *cluster.Image) (string, error) {
	kernels, err := initramfs.Kernels(versionfs.New(a.store, v.Root))
	if err != nil {
		return "", err
	}
	for _, k := range kernels {
		if im.Kernel.Version == "" || im.Kernel.Version == k.Release {
			return k.Release, nil
		}
	}
	return "", initramfs.ErrNoKernel
}

// made returns the initramfs of a version and its path, built now if it is not kept. Nodes that ask for the same one at the
// same time wait for one build, which goes on when the one that asked first has gone.
func (a *assets) made(ctx context.Context, v image.Version, im *cluster.Image) (asset, string, error) {
	spec := initramfs.Spec{Image: versionfs.New(a.store, v.Root), Release: im.Kernel.Version, Modules: im.Kernel.Modules}
	var err error
	if spec.Init, err = a.program(im.Arch); err != nil {
		return asset{}, "", err
	}
	key, err := initramfs.Key(spec)
	if err != nil {
		return asset{}, "", err
	}
	path := filepath.Join(a.dir, key)
	wait := a.flight.DoChan(key, func() (any, error) { return a.build(a.life, spec, path) })
	select {
	case r := <-wait:
		if r.Err != nil {
			return asset{}, "", r.Err
		}
		return r.Val.(asset), path, nil
	case <-ctx.Done():
		a.left.Go(func() { <-wait })
		return asset{}, "", ctx.Err()
	}
}

func (a *assets) build(ctx context.Context, spec initramfs.Spec, path string) (asset, error) {
	var kept asset
	if text, err := os.ReadFile(path + ".json"); err == nil && json.Unmarshal(text, &kept) == nil {
		if fi, err := os.Stat(path); err == nil && fi.Size() == kept.Size {
			return kept, nil
		}
	}
	r, err := initramfs.Build(ctx, spec)
	if err != nil {
		return asset{}, err
	}
	kept = asset{
		Release: r.Kernel.Release, Kernel: r.Kernel.Path, Digest: image.Sum(r.Initramfs), Size: int64(len(r.Initramfs)), Modules: len(r.Modules),
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return asset{}, err
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return asset{}, err
	}
	if err := durable.WriteFile(path, r.Initramfs, 0o600); err != nil {
		return asset{}, err
	}
	a.log.Info("initramfs made", "kernel", kept.Release, "bytes", kept.Size, "modules", kept.Modules)
	return kept, durable.WriteFile(path+".json", text, 0o600)
}

// program returns the dim-init of an architecture.
func (a *assets) program(arch string) ([]byte, error) {
	if err := a.installed(arch); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(a.initDir, "dim-init-"+arch))
}

// installed returns an error when there is no dim-init of an architecture.
func (a *assets) installed(arch string) error {
	name := "dim-init-" + arch
	_, err := os.Stat(filepath.Join(a.initDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not in %s: install it there", name, a.initDir)
	}
	return err
}
