package nodefile

import (
	"bytes"
	"slices"
	"strings"

	"dim/internal/cluster/builtin"
)

// addFstabs adds /etc/fstab and /etc/crypttab without disks, if the version has disks in them: systemd waits 90 s for
// every disk there, and then stops the boot.
func (b *Base) addFstabs() error {
	for path, reason := range map[string]func(fields []string) string{
		"etc/fstab": fstabReason, "etc/crypttab": crypttabReason,
	} {
		own, ok, err := b.read(path)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		text, changed := withoutDisks(own, reason)
		if !changed {
			continue
		}
		r, err := b.replacement(builtin.Fstab, path, text)
		if err != nil {
			return err
		}
		b.common = append(b.common, r)
	}
	return nil
}

// withoutDisks turns the entries for which reason returns one into comments, and leaves every other byte as it is.
func withoutDisks(own []byte, reason func(fields []string) string) (text []byte, changed bool) {
	var out bytes.Buffer
	for line := range strings.Lines(string(own)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			out.WriteString(line)
			continue
		}
		if text := reason(fields); text != "" {
			out.WriteString("# left out on nodes, " + text + ": ")
			changed = true
		}
		out.WriteString(line)
	}
	return out.Bytes(), changed
}

// fstabReason returns why a node must not have an entry of fstab(5), "" if it may.
func fstabReason(fields []string) string {
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

// isTag reports whether an entry names a file system or partition by an identifier on a disk.
func isTag(spec string) bool {
	tag, _, ok := strings.Cut(spec, "=")
	return ok && slices.Contains([]string{"UUID", "LABEL", "PARTUUID", "PARTLABEL", "ID"}, tag)
}

// crypttabReason returns why a node must not have an entry of crypttab(5), "" if it may. It may have encrypted files.
func crypttabReason(fields []string) string {
	if len(fields) > 1 && (strings.HasPrefix(fields[1], "/dev/") || isTag(fields[1])) {
		return "no disk"
	}
	return ""
}
