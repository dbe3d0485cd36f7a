package initramfs

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"dim/internal/kmod"
)

// confDirs are modprobe's directories. Of several files with the same name the first one counts (modprobe.d(5)).
var confDirs = [...]string{
	"etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d",
}

// firmwareDirs are the kernel's directories in its order (drivers/base/firmware_loader/main.c), without those of a
// RELEASE.
var firmwareDirs = [...]string{"lib/firmware/updates", "lib/firmware"}

// tables reads the tables of a kernel from the image.
func (t tree) tables(k Kernel) (kmod.Tables, error) {
	var out kmod.Tables
	for name, to := range map[string]*string{
		"modules.dep": &out.Dep, "modules.alias": &out.Alias, "modules.softdep": &out.Softdep,
		"modules.builtin": &out.Builtin,
	} {
		text, err := t.text(path.Join(k.Modules, name))
		if err != nil {
			return out, err
		}
		*to = text
	}
	conf, err := t.modprobeConf()
	out.Conf = conf
	return out, err
}

// modprobeConf returns the image's configuration of modprobe as one text, in the order of the files' names.
func (t tree) modprobeConf() (string, error) {
	files := make(map[string]string)
	for _, dir := range confDirs {
		names, err := t.list(dir)
		if err != nil {
			return "", err
		}
		for _, n := range names {
			if _, ok := files[n]; !ok && strings.HasSuffix(n, ".conf") {
				files[n] = path.Join(dir, n)
			}
		}
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(files)) {
		text, err := t.text(files[n])
		if err != nil {
			return "", err
		}
		b.WriteString(text + "\n")
	}
	return b.String(), nil
}

// addFirmware adds the firmware that the chosen modules name, the smallest files first, up to limit.
func (b *builder) addFirmware(limit int64) error {
	if limit < 0 {
		return nil
	}
	if limit == 0 {
		limit = defaultFirmware
	}
	found, err := b.tree.findFirmware(b.wants)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.size > limit {
			b.result.LeftOut = append(b.result.LeftOut, f.name)
			continue
		}
		limit -= f.size
		content, err := fs.ReadFile(b.tree, f.path)
		if err != nil {
			return err
		}
		b.archive.file("lib/firmware/"+f.name, 0o644, content)
		b.result.Firmware = append(b.result.Firmware, f.name)
	}
	slices.Sort(b.result.Firmware)
	return nil
}

type firmwareFile struct {
	name string // below lib/firmware, with the suffix of its compression, which the kernel knows
	path string // in the image
	size int64
}

func (t tree) findFirmware(wants []string) ([]firmwareFile, error) {
	slices.Sort(wants)
	var found []firmwareFile
	for _, want := range slices.Compact(wants) {
		if !fs.ValidPath(want) {
			continue
		}
		f, err := t.firmwareFile(want)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b firmwareFile) int {
		return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.name, b.name))
	})
	return found, nil
}

func (t tree) firmwareFile(want string) (firmwareFile, error) {
	for _, dir := range firmwareDirs {
		for _, suffix := range []string{"", ".zst", ".xz"} {
			real, ok := t.regular(path.Join(dir, want+suffix))
			if !ok {
				continue
			}
			fi, err := t.Lstat(real)
			if err != nil {
				return firmwareFile{}, err
			}
			return firmwareFile{name: want + suffix, path: real, size: fi.Size()}, nil
		}
	}
	return firmwareFile{}, fs.ErrNotExist
}
