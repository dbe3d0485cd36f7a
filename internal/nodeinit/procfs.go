package nodeinit

import (
	"strconv"
	"strings"
)

// mapping is a mapped file of a process.
type mapping struct {
	addresses string // the range of addresses, as in /proc/PID/map_files
	inode     uint64
	path      string
}

// parseMapping reads a line of /proc/PID/maps. ok is false unless it is a file on the device, which is two hexadecimal
// numbers.
func parseMapping(line, device string) (m mapping, ok bool) {
	// address perms offset dev inode path; the path is padded with blanks in front, and may contain some.
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
	from, to, ok := strings.Cut(fields[0], "-")
	// maps has leading zeros, map_files has none.
	addresses := strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
	return mapping{addresses: addresses, inode: inode, path: path}, ok
}

// shownAs reports whether stat shows an inode under a number. With nfs.enable_ino64=0 it shows fewer bits than maps
// (fs/nfs/inode.c, nfs_compat_user_ino64).
func shownAs(inode, number uint64) bool {
	return number == inode || number == uint64(uint32(inode)^uint32(inode>>32))
}

// systemUnit returns the unit of the system's manager to which a process belongs, from its /proc/PID/cgroup. For a
// service of a user that is the user's manager.
func systemUnit(cgroups string) string {
	for line := range strings.Lines(cgroups) {
		// The unified hierarchy, or systemd's in version 1.
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

// parseMounts reads /proc/PID/mountinfo (proc_pid_mountinfo(5)) and yields the mounts on a file system with the given
// device ("0:23"), except those on its root. Paths are relative to the file system's first mount. NFS does not tell
// which directory a bind mount shows (fs/nfs/super.c, nfs_show_path); a bind mount of a directory elsewhere is taken
// for its mount point.
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
