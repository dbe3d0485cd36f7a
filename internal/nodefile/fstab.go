package nodefile

import (
	"bytes"
	"slices"
	"strings"

	"dim/internal/cluster/builtin"
)

// fstab makes /etc/fstab and /etc/crypttab without what is on disks, where there is such a thing: systemd waits 90 s for
// every disk in them, and then gives up booting.
func (b *Base) fstab() error {
	for path, isDisk := range map[string]func(fields []string) string{"etc/fstab": diskEntry, "etc/crypttab": cryptEntry} {
		own, ok, err := b.read(path)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		text, changed := withoutDisks(own, isDisk)
		if !changed {
			continue
		}
		r, err := b.replaced(builtin.Fstab, path, text)
		if err != nil {
			return err
		}
		b.common = append(b.common, r)
	}
	return nil
}

// withoutDisks turns entries for which isDisk has a reason into comments, and leaves every other byte as it is.
func withoutDisks(own []byte, isDisk func(fields []string) string) (text []byte, changed bool) {
	var out bytes.Buffer
	for line := range strings.Lines(string(own)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			out.WriteString(line)
			continue
		}
		if why := isDisk(fields); why != "" {
			out.WriteString("# left out on nodes, " + why + ": ")
			changed = true
		}
		out.WriteString(line)
	}
	return out.Bytes(), changed
}

// diskEntry tells why a line of fstab(5) must go, or "".
func diskEntry(fields []string) string {
	spec := fields[0]
	var where, kind, options string
	for i, p := range []*string{&where, &kind, &options} {
		if len(fields) > i+1 {
			*p = fields[i+1]
		}
	}
	opts := strings.Split(options, ",")
	switch {
	case kind == "swap":
		return "no swap"
	case where == "/":
		return "the root is there already"
	case slices.Contains(opts, "bind") || slices.Contains(opts, "rbind"):
		return ""
	case strings.HasPrefix(spec, "/dev/") || isTag(spec) || kind == "zfs":
		return "no disk"
	}
	return ""
}

// isTag reports whether an entry names a file system or partition by what is written on a disk.
func isTag(spec string) bool {
	tag, _, ok := strings.Cut(spec, "=")
	return ok && slices.Contains([]string{"UUID", "LABEL", "PARTUUID", "PARTLABEL", "ID"}, tag)
}

// cryptEntry tells why a line of crypttab(5) must go, or "". Encrypted files stay.
func cryptEntry(fields []string) string {
	if len(fields) > 1 && (strings.HasPrefix(fields[1], "/dev/") || isTag(fields[1])) {
		return "no disk"
	}
	return ""
}
