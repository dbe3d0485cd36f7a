// Package bootfiles builds what nodes boot, kernel and initramfs, out of the versions that their roots show.
//
// An initramfs is kept in a directory under a digest of all that it was made from. What is in that directory can be
// built again.
//
// All methods may be called from any number of goroutines.
//
// It must not know which version a node is to show, nor which protocol fetches a payload.
package bootfiles

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
	"time"

	"golang.org/x/sync/singleflight"

	"dim/internal/boot/delivery"
	"dim/internal/cluster"
	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/initramfs"
	"dim/internal/versionfs"
)

// Options of a Builder. All are needed.
type Options struct {
	Dir     string           // of the kept initramfs files; made when it is not there
	InitDir string           // where the dim-init programs are
	Store   versionfs.Source // may have to wait for what it opens
	Reader  confine.Program  // reads versions; it must run Task
	Log     *slog.Logger
}

// TaskName is the name of Task for package confine.
const TaskName = "initramfs"

// buildRequest is what Task builds. The first file system is the version, the second one has the program.
type buildRequest struct {
	Release string   `json:"release,omitempty"`
	Modules []string `json:"modules,omitempty"`
	Program string   `json:"program"`
}

// Task builds an initramfs in a process of its own, because it unpacks and parses what comes from a master.
func Task() confine.Task {
	return readfs.Handle(func(ctx context.Context, c *confine.Child, root func(int) readfs.FS) (any, error) {
		var q buildRequest
		if err := c.Request(&q); err != nil {
			return nil, err
		}
		program, err := fs.ReadFile(root(1), q.Program)
		if err != nil {
			return nil, err
		}
		return initramfs.Build(ctx, initramfs.Spec{
			Image: root(0), Release: q.Release, Modules: q.Modules, Init: program,
		})
	})
}

// Builder builds boot files.
type Builder struct {
	Options
	flight singleflight.Group
	builds sync.WaitGroup  // builds whose callers have gone
	life   context.Context // of builds
	end    context.CancelFunc

	mu       sync.Mutex
	releases map[releaseKey]string // found in versions; "": none
}

// releaseKey is all that the kernel of a version depends on.
type releaseKey struct {
	version image.Digest
	wanted  string
}

// New returns a Builder.
func New(o Options) *Builder {
	b := &Builder{Options: o, releases: map[releaseKey]string{}}
	b.life, b.end = context.WithCancel(context.Background())
	return b
}

// Close ends all builds. No other call may run or follow.
func (b *Builder) Close() {
	b.end()
	b.builds.Wait()
}

// asset describes a built initramfs. It is kept beside it.
type asset struct {
	Release string       `json:"release"`
	Kernel  string       `json:"kernel"`  // path in the image
	Digest  image.Digest `json:"digest"`  // of the initramfs
	Size    int64        `json:"size"`    // of the initramfs
	Modules int          `json:"modules"` // in it

	Part       initramfs.Part `json:"part"`                 // of the kernel's file that is the kernel
	PartDigest image.Digest   `json:"part_digest,omitzero"` // if it is not the whole file
}

// payload returns what nodes boot whose root shows version v of im. It takes seconds when the initramfs has to be
// built.
func (b *Builder) payload(ctx context.Context, v image.Version, im *cluster.Image) (p delivery.Payload, err error) {
	made, path, err := b.made(ctx, v, im)
	if err != nil {
		return p, fmt.Errorf("boot %s: %w", v.Ref(), err)
	}
	root := versionfs.New(b.Store, v.Root)
	e, err := root.Entry(made.Kernel)
	if err != nil {
		return p, err
	}
	p.Words = words(root)
	p.Kernel = b.kernel(&e, &made)
	p.Initramfs = delivery.Asset{
		Digest: made.Digest, Size: made.Size, Open: func() (delivery.File, error) { return os.Open(path) },
	}
	return p, nil
}

// loaders32 are the dynamic loaders of programs of 32 bits for the supported architectures: those of glibc and musl on
// x86 and ARM, and of glibc on Power.
var loaders32 = []string{
	"lib/ld-linux.so.2", "lib/ld-linux-armhf.so.3", "lib/ld-linux.so.3", "lib/ld-musl-i386.so.1",
	"lib/ld-musl-armhf.so.1", "lib/ld.so.1",
}

// words returns the words of the kernel command line that an image needs. A program of 32 bits that was built without
// large file support cannot use a file whose id has more than 32 bits (EOVERFLOW), as ids of replicas have. With
// enable_ino64=0 the kernel folds them to 32 bits (fs/nfs/inode.c, nfs_compat_user_ino64).
func words(root fs.StatFS) []string {
	for _, path := range loaders32 {
		if fi, err := root.Stat(path); err == nil && fi.Mode().IsRegular() {
			return []string{"nfs.enable_ino64=0"}
		}
	}
	return nil
}

// Release returns the release of the kernel that a version boots. The error says why it cannot boot. Results are kept,
// because `dim status` asks each time.
func (b *Builder) Release(v image.Version, im *cluster.Image) (string, error) {
	key := releaseKey{v.Digest, im.Kernel.Version}
	b.mu.Lock()
	release, known := b.releases[key]
	b.mu.Unlock()
	if !known {
		var err error
		if release, err = b.find(v, im); err != nil && !errors.Is(err, initramfs.ErrNoKernel) {
			return "", err
		}
		b.mu.Lock()
		b.releases[key] = release
		b.mu.Unlock()
	}
	if release == "" {
		return "", initramfs.ErrNoKernel
	}
	return release, nil
}

func (b *Builder) find(v image.Version, im *cluster.Image) (string, error) {
	kernels, err := initramfs.Kernels(versionfs.New(b.Store, v.Root))
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

// made returns the initramfs of a version and its path, and builds it now if it is not kept. Nodes that need the same
// one at the same time wait for one build, which goes on when ctx ends.
func (b *Builder) made(ctx context.Context, v image.Version, im *cluster.Image) (asset, string, error) {
	spec := initramfs.Spec{
		Image: versionfs.New(b.Store, v.Root), Release: im.Kernel.Version, Modules: im.Kernel.Modules,
	}
	var err error
	if spec.Init, err = b.program(im.Arch); err != nil {
		return asset{}, "", err
	}
	key, err := initramfs.Key(spec)
	if err != nil {
		return asset{}, "", err
	}
	path := filepath.Join(b.Dir, key)
	wait := b.flight.DoChan(key, func() (any, error) { return b.build(b.life, v, im, path) })
	select {
	case r := <-wait:
		if r.Err != nil {
			return asset{}, "", r.Err
		}
		return r.Val.(asset), path, nil
	case <-ctx.Done():
		b.builds.Go(func() { <-wait })
		return asset{}, "", ctx.Err()
	}
}

// run builds the initramfs of a version in another process.
func (b *Builder) run(ctx context.Context, v image.Version, im *cluster.Image) (r initramfs.Result, err error) {
	programs, err := os.OpenRoot(b.InitDir)
	if err != nil {
		return r, err
	}
	defer programs.Close()
	dir, ok := programs.FS().(readfs.FS)
	if !ok {
		return r, errors.ErrUnsupported
	}
	call := readfs.Call{
		Program: b.Reader, Task: TaskName, Roots: []readfs.FS{versionfs.New(b.Store, v.Root), dir}, Most: 1 << 30,
		Request: buildRequest{im.Kernel.Version, im.Kernel.Modules, "dim-init-" + im.Arch},
		Limits:  confine.Limits{Memory: 2 << 30, CPU: 10 * time.Minute, Silence: 10 * time.Minute},
	}
	err = call.Do(ctx, &r)
	return r, err
}

func (b *Builder) build(ctx context.Context, v image.Version, im *cluster.Image, path string) (asset, error) {
	var kept asset
	if text, err := os.ReadFile(path + ".json"); err == nil && json.Unmarshal(text, &kept) == nil {
		if fi, err := os.Stat(path); err == nil && fi.Size() == kept.Size {
			return kept, nil
		}
	}
	r, err := b.run(ctx, v, im)
	if err != nil {
		return asset{}, err
	}
	digest, err := b.partDigest(v, &r)
	if err != nil {
		return asset{}, err
	}
	kept = asset{
		Release: r.Kernel.Release, Kernel: r.Kernel.Path, Digest: image.Sum(r.Initramfs), Size: int64(len(r.Initramfs)),
		Modules: len(r.Modules), Part: r.KernelPart, PartDigest: digest,
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return asset{}, err
	}
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return asset{}, err
	}
	if err := durable.WriteFile(path, r.Initramfs, 0o600); err != nil {
		return asset{}, err
	}
	b.Log.Info("initramfs made", "kernel", kept.Release, "bytes", kept.Size, "modules", kept.Modules)
	return kept, durable.WriteFile(path+".json", text, 0o600)
}

// program returns the dim-init of an architecture.
func (b *Builder) program(arch string) ([]byte, error) {
	if err := b.Installed(arch); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(b.InitDir, "dim-init-"+arch))
}

// Installed returns an error when there is no dim-init program for an architecture.
func (b *Builder) Installed(arch string) error {
	name := "dim-init-" + arch
	_, err := os.Stat(filepath.Join(b.InitDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not in %s: install it there", name, b.InitDir)
	}
	return err
}
