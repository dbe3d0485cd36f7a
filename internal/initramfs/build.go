package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"dim/internal/kmod"
)

// FS is an image's file system. Names have no leading slash; Lstat and ReadLink do not follow symbolic links. It may
// also implement digester.
type FS = fs.ReadLinkFS

// layout is part of Key. It must change when the same inputs give other bytes than before.
const layout = "dim-initramfs-1"

// defaultFirmware is the bound of the firmware if Spec.MaxFirmware is zero.
const defaultFirmware = 32 << 20

// Spec says what to build.
type Spec struct {
	Image       FS
	Release     string   // of the kernel; "": the newest of the image
	Modules     []string // names or aliases, in addition to the classes' modules
	Init        []byte   // the dim-init program for the image's architecture
	MaxFirmware int64    // 0: 32 MB; negative: no firmware at all
}

// Result is what a node's boot loader fetches.
type Result struct {
	Kernel      Kernel
	KernelPart  Part   // of the kernel's file
	Initramfs   []byte // compressed
	Compression string // "zstd" or "gzip"
	Size        int64  // before compression
	Modules     []string
	Firmware    []string // included
	LeftOut     []string // firmware that exceeds MaxFirmware; not what the image lacks
}

// Key returns a digest of all that Build depends on. It reads only tables if the image implements digester.
func Key(spec Spec) (string, error) {
	k, err := chooseKernel(spec.Image, spec.Release)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	initSum := sha256.Sum256(spec.Init)
	modules := slices.Sorted(slices.Values(spec.Modules))
	fmt.Fprintf(h, "%s\n{%q %q %q}\n%x\n%q\n%d\n",
		layout, k.Release, k.Path, k.Modules, initSum, modules, spec.MaxFirmware)
	t := tree{spec.Image}
	inputs := append([]string{k.Path, k.Modules, "boot/config-" + k.Release}, confDirs[:]...)
	if spec.MaxFirmware >= 0 {
		inputs = append(inputs, firmwareDirs[:]...)
	}
	for _, in := range inputs {
		d, err := t.digest(in)
		if err != nil {
			return "", fmt.Errorf("digest %s: %w", in, err)
		}
		fmt.Fprintf(h, "%q %q\n", in, d)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Build makes the initramfs. The error is ErrNoKernel if the image does not have the kernel, or none. Build ends when
// ctx does.
func Build(ctx context.Context, spec Spec) (*Result, error) {
	k, err := chooseKernel(spec.Image, spec.Release)
	if err != nil {
		return nil, err
	}
	b := &builder{tree: tree{spec.Image}, archive: newArchive(), result: &Result{Kernel: k}}
	if b.result.KernelPart, err = b.tree.kernelPart(k); err != nil {
		return nil, err
	}
	if err := b.fill(ctx, spec); err != nil {
		return nil, fmt.Errorf("build initramfs for %s: %w", k.Release, err)
	}
	if err := b.pack(); err != nil {
		return nil, fmt.Errorf("build initramfs for %s: %w", k.Release, err)
	}
	return b.result, nil
}

type builder struct {
	tree    tree
	archive *archive
	result  *Result
	wants   []string // firmware that the modules so far name
}

func (b *builder) fill(ctx context.Context, spec Spec) error {
	b.addSkeleton(spec.Init)
	tables, err := b.tree.tables(b.result.Kernel)
	if err != nil {
		return err
	}
	ix := kmod.Parse(tables)
	chosen, err := chooseModules(ix, spec.Modules)
	if err != nil {
		return err
	}
	for _, name := range ix.Names() {
		if !chosen[name] {
			continue
		}
		if err := errors.Join(ctx.Err(), b.addModule(ix, name)); err != nil {
			return err
		}
	}
	b.addTables(ix.Prune(chosen), tables.Builtin, spec.Modules)
	slices.Sort(b.result.Modules)
	return b.addFirmware(spec.MaxFirmware)
}

// addSkeleton adds what there is without any module. The kernel opens /dev/console for init before anything is mounted,
// and calls /sbin/modprobe when a driver requests another module.
func (b *builder) addSkeleton(init []byte) {
	for _, d := range []string{"dev", "proc", "sys", "run", "root"} {
		b.archive.dir(d)
	}
	b.archive.char("dev/console", 5, 1)
	b.archive.char("dev/null", 1, 3)
	b.archive.char("dev/kmsg", 1, 11)
	b.archive.file("init", 0o755, init)
	b.archive.link("sbin/modprobe", "../init")
}

// addModule adds a module and collects the firmware that it names.
func (b *builder) addModule(ix *kmod.Index, name string) error {
	file, _ := ix.Path(name)
	content, err := b.tree.read(path.Join(b.result.Kernel.Modules, file))
	if err != nil {
		return fmt.Errorf("read module %s: %w", name, err)
	}
	plain, err := unpack(file, content)
	if err != nil {
		return err
	}
	b.archive.file(path.Join("lib/modules", b.result.Kernel.Release, kmod.Plain(file)), 0o644, plain)
	b.result.Modules = append(b.result.Modules, name)
	b.wants = append(b.wants, firmwareOf(plain)...)
	return nil
}

// addTables adds the tables of the modules in the archive, and the list of modules to load on every node.
func (b *builder) addTables(t kmod.Tables, builtin string, always []string) {
	dir := "lib/modules/" + b.result.Kernel.Release + "/"
	for name, text := range map[string]string{
		dir + "modules.dep": t.Dep, dir + "modules.alias": t.Alias, dir + "modules.softdep": t.Softdep,
		dir + "modules.builtin": builtin, "etc/modprobe.d/image.conf": t.Conf,
		"etc/modules": strings.Join(always, "\n") + "\n",
	} {
		b.archive.file(name, 0o644, []byte(text))
	}
}

// pack writes and compresses the archive.
func (b *builder) pack() error {
	var plain bytes.Buffer
	if err := b.archive.write(&plain); err != nil {
		return err
	}
	b.result.Size = int64(plain.Len())
	var out bytes.Buffer
	var w io.WriteCloser
	if b.tree.supportsZstd(b.result.Kernel) {
		b.result.Compression = "zstd"
		// One thread: the division of the input into blocks must not depend on the machine.
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		w = z
	} else {
		b.result.Compression = "gzip"
		w = gzip.NewWriter(&out)
	}
	if _, err := w.Write(plain.Bytes()); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b.result.Initramfs = out.Bytes()
	return nil
}
