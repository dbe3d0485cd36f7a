package initramfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dim/internal/kmod"
)

// ErrNoKernel is returned when the image has no kernel, or not the one asked for.
var ErrNoKernel = errors.New("no such kernel in the image")

// Kernel is one kernel of an image.
type Kernel struct {
	Release string // as uname -r says it
	Path    string // of its file in the image, without symbolic links
	Modules string // the directory of its modules in the image, without symbolic links
}

// moduleRoots are the places where kernels keep modules. With a merged /usr they are the same directory.
var moduleRoots = [...]string{"usr/lib/modules", "lib/modules"}

// Kernels returns the kernels of an image that can boot a node, the newest first. Rescue and debug kernels come last:
// their names would make them the newest, but nobody means them unless he names them.
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
	slices.SortFunc(found, func(a, b Kernel) int {
		if sa, sb := special(a.Release), special(b.Release); sa != sb {
			if sa {
				return 1
			}
			return -1
		}
		return kmod.CompareRelease(b.Release, a.Release)
	})
	return found, nil
}

func special(release string) bool {
	return strings.Contains(release, "debug") || strings.Contains(release, "rescue") || strings.HasSuffix(release, "-dbg")
}

// kernel looks for the file of one release in the places where distributions put it: Debian and SUSE /boot, Fedora
// and its kin beside the modules (and, by an install script, in /boot too).
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
		return Kernel{}, fmt.Errorf("choose kernel %q: %w, which has %s", release, ErrNoKernel, strings.Join(names, ", "))
	case release != "":
		return Kernel{}, fmt.Errorf("choose kernel %q: %w", release, ErrNoKernel)
	}
	return Kernel{}, fmt.Errorf("choose kernel: %w: looked for /boot/vmlinuz-RELEASE with /lib/modules/RELEASE/modules.dep", ErrNoKernel)
}

// zstdUnderstood tells by the kernel's configuration whether it unpacks an initramfs compressed with zstd. Kernels
// before 5.9 do not; all understand gzip.
func (t tree) zstdUnderstood(k Kernel) bool {
	for _, p := range []string{"boot/config-" + k.Release, k.Modules + "/config"} {
		if text, err := t.text(p); err == nil && text != "" {
			return strings.Contains("\n"+text, "\nCONFIG_RD_ZSTD=y\n")
		}
	}
	return false
}
