package initramfs

import (
	"errors"
	"fmt"
	"path"
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
	Unified bool   // the file is a unified kernel image, which has the kernel as a part
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

// kernel finds the file of a release where distributions have it: in /boot (Debian, SUSE), beside the modules and, by
// an install script, in /boot (Fedora and its derivatives), or in the directory of the release that systemd's
// kernel-install makes for boot loader entries. A unified kernel image counts if there is no other file.
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
	if !ok {
		file, ok = t.installed(rel)
	}
	k := Kernel{Release: rel, Path: file, Modules: real}
	if !ok {
		k.Path, k.Unified = t.unified(rel, real)
		ok = k.Unified
	}
	return k, ok
}

// bootDirs are the places of the partitions from which boot loaders read (Boot Loader Specification).
var bootDirs = [...]string{"boot", "efi", "boot/efi"}

// installed returns the file of a kernel that kernel-install has put into TOKEN/RELEASE/linux. The token is the
// machine's id, or a name.
func (t tree) installed(rel string) (string, bool) {
	for _, dir := range bootDirs {
		tokens, _ := t.list(dir) // what cannot be listed has no kernel
		for _, token := range tokens {
			if file, ok := t.regular(path.Join(dir, token, rel, "linux")); ok {
				return file, true
			}
		}
	}
	return "", false
}

// unified returns the file of a unified kernel image of a release: beside the modules, or in EFI/Linux with the release
// at the end of its name. Only names are read, because the daemon calls this.
func (t tree) unified(rel, modules string) (string, bool) {
	for _, dir := range append(bootDirs[:], modules) {
		if dir != modules {
			dir = path.Join(dir, "EFI/Linux")
		}
		names, _ := t.list(dir) // what cannot be listed has no kernel
		for _, name := range names {
			stem, ok := strings.CutSuffix(name, ".efi")
			if head, tries, found := cutLast(stem, "+"); found && strings.Trim(tries, "0123456789-") == "" {
				stem = head // how often a boot loader may still try it
			}
			if !ok || dir != modules && stem != rel && !strings.HasSuffix(stem, "-"+rel) {
				continue
			}
			if file, ok := t.regular(path.Join(dir, name)); ok {
				return file, true
			}
		}
	}
	return "", false
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
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
		"choose kernel: %w: looked for /boot/vmlinuz-RELEASE and the like with /lib/modules/RELEASE/modules.dep",
		ErrNoKernel)
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
