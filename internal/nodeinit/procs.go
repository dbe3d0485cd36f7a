package nodeinit

import (
	"strconv"
	"strings"
)

// mapping is a file that a process has mapped.
type mapping struct {
	at    string // the range of addresses, as /proc/PID/map_files names it
	inode uint64
	path  string
}

// parseMapping reads a line of /proc/PID/maps; ok is false for what is not a file on the device (two hexadecimal numbers).
func parseMapping(line, device string) (m mapping, ok bool) {
	// address perms offset dev inode path; the path is padded with blanks in front, and may have some in it.
	var fields [5]string
	rest := line
	for i := range fields {
		fields[i], rest, ok = strings.Cut(rest, " ")
		if !ok {
			return m, false
		}
	}
	if fields[3] != device {
		return m, false
	}
	inode, err := strconv.ParseUint(fields[4], 10, 64)
	path := strings.TrimLeft(rest, " ")
	if err != nil || inode == 0 || !strings.HasPrefix(path, "/") {
		return m, false
	}
	// The kernel escapes nothing but line ends (fs/proc/task_mmu.c, show_map_vma).
	path = strings.ReplaceAll(strings.TrimSuffix(path, " (deleted)"), `\012`, "\n")
	from, to, ok := strings.Cut(fields[0], "-") // maps has leading zeros, map_files has none
	return mapping{at: strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0"), inode: inode, path: path}, ok
}

// systemUnit returns the unit of the system's manager to which a process belongs, by its /proc/PID/cgroup: of a user's own services it is
// the user's manager.
func systemUnit(cgroups string) string {
	for line := range strings.Lines(cgroups) {
		// Of the unified hierarchy, or of systemd's in the old scheme.
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || parts[1] != "" && parts[1] != "name=systemd" {
			continue
		}
		for name := range strings.SplitSeq(parts[2], "/") {
			if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
				return name
			}
		}
	}
	return ""
}

// parseMounts reads /proc/PID/mountinfo (proc_pid_mountinfo(5)) and yields what is mounted on the file system with the given device
// ("0:23"), by path from its first mount, without those on its very root. NFS does not tell which directory a bind mount shows
// (fs/nfs/super.c, nfs_show_path), so one that is bound to another place is taken for that place.
func parseMounts(text, device string, yield func(mountPoint)) {
	devices := make(map[string]string) // by id
	base := ""
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		devices[f[0]] = f[2]
		if base == "" && f[2] == device {
			base = strings.TrimSuffix(f[4], "/") + "/"
		}
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 7 || devices[f[1]] != device || base == "" || !strings.HasPrefix(f[4], base) || f[4] == base {
			continue
		}
		_, rest, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(rest, " ")
		yield(mountPoint{path: "/" + unescapeOctal(f[4][len(base):]), kind: strings.TrimSpace(kind)})
	}
}

// unescapeOctal undoes the kernel's \040.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
