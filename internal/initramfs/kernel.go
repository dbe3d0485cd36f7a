package initramfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dim/internal/kmod"
)

// ErrNoKernel: the image has no kernel, or not the one that was asked for.
var ErrNoKernel = errors.New("no such kernel in the image")

// Kernel is one kernel of an image.
type Kernel struct {
	Release string // as of uname -r
	Path    string // of its file in the image, without symbolic links
	Modules string // the directory of its modules in the image, without symbolic links
}

// moduleRoots are the directories of modules. With a merged /usr they are the same.
var moduleRoots = [...]string{"usr/lib/modules", "lib/modules"}

// Kernels returns the kernels of an image that have a file and modules, the best choice first: plain kernels, then
// those of special flavours, then those for debugging and rescue, each the newest first.
func Kernels(image FS) ([]Kernel, error) {
	t := tree{image}
	var found []Kernel
	for _, root := range moduleRoots {
		releases, err := t.list(root)
		if err != nil {
			return nil, fmt.Errorf("list kernels: %w", err)
		}
		for _, rel := range releases {
			k, ok := t.kernel(root, rel)
			if ok && !slices.Contains(found, k) {
				found = append(found, k)
			}
		}
	}
	slices.SortFunc(found, func(a, b Kernel) int { return kmod.CompareRelease(b.Release, a.Release) })
	return found, nil
}

// kernel finds the file of a release where distributions have it: in /boot (Debian, SUSE), or beside the modules and,
// by an install script, in /boot (Fedora and its derivatives).
func (t tree) kernel(root, rel string) (Kernel, bool) {
	dir := root + "/" + rel
	if _, ok := t.regular(dir + "/modules.dep"); !ok {
		return Kernel{}, false
	}
	real, err := t.resolve(dir)
	if err != nil {
		return Kernel{}, false
	}
	file, ok := t.regular(
		"boot/vmlinuz-"+rel, real+"/vmlinuz", "boot/vmlinux-"+rel, real+"/vmlinux", // ppc64le: vmlinux
		"boot/Image-"+rel, real+"/Image", "boot/kernel-"+rel, // arm64: Image
	)
	return Kernel{Release: rel, Path: file, Modules: real}, ok
}

// chooseKernel returns the kernel of the given release, or the newest.
func chooseKernel(image FS, release string) (Kernel, error) {
	all, err := Kernels(image)
	if err != nil {
		return Kernel{}, err
	}
	var names []string
	for _, k := range all {
		if release == "" || k.Release == release {
			return k, nil
		}
		names = append(names, k.Release)
	}
	switch {
	case len(names) > 0:
		return Kernel{}, fmt.Errorf("choose kernel %q: %w, which has %s",
			release, ErrNoKernel, strings.Join(names, ", "))
	case release != "":
		return Kernel{}, fmt.Errorf("choose kernel %q: %w", release, ErrNoKernel)
	}
	return Kernel{}, fmt.Errorf(
		"choose kernel: %w: looked for /boot/vmlinuz-RELEASE with /lib/modules/RELEASE/modules.dep", ErrNoKernel)
}

// supportsZstd reports whether a kernel unpacks an initramfs that is compressed with zstd, by its configuration.
// Kernels before 5.9 do not; all support gzip.
func (t tree) supportsZstd(k Kernel) bool {
	for _, p := range []string{"boot/config-" + k.Release, k.Modules + "/config"} {
		if text, err := t.text(p); err == nil && text != "" {
			return strings.Contains("\n"+text, "\nCONFIG_RD_ZSTD=y\n")
		}
	}
	return false
}
