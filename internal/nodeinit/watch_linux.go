package nodeinit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is looked through.
const (
	maxTable  = 256 << 10 // bytes of a table of mounts
	maxSpaces = 32        // mount namespaces
)

// readProc reads a small file below /proc; it is empty when it cannot be read.
func (r *resident) readProc(name string) string {
	fd, err := unix.Openat(r.proc, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, r.scratch[:4096])
	if err != nil {
		return ""
	}
	return string(r.scratch[:n])
}

// writeProc writes a small file below /proc, if it can.
func (r *resident) writeProc(name, text string) {
	if fd, err := unix.Openat(r.proc, name, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
}

// size returns how much memory the process takes, in kB.
func (r *resident) size() int {
	f := strings.Fields(r.readProc("self/statm"))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(f[1])
	return pages * os.Getpagesize() / 1024
}

// processes calls yield for each process that has a program.
func (r *resident) processes(yield func(pid int)) {
	fd, err := unix.Openat(r.proc, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	dir := os.NewFile(uintptr(fd), "/proc")
	defer dir.Close()
	for {
		names, _ := dir.Readdirnames(256)
		if len(names) == 0 {
			return
		}
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil {
				yield(pid)
			}
		}
	}
}

// findMounts reads what is mounted on the replica, in all mount namespaces, and reports whether it is another than before.
func (r *resident) findMounts() (changed bool) {
	var found []mountPoint
	seen := make(map[mountPoint]bool)
	add := func(m mountPoint) {
		if !seen[m] {
			seen[m] = true
			found = append(found, m)
		}
	}
	if _, err := unix.Seek(r.mountinfo, 0, 0); err == nil {
		parseMounts(r.table(r.mountinfo), r.device.decimal, add)
	}
	spaces := map[string]bool{r.namespace(1): true}
	r.processes(func(pid int) {
		space := r.namespace(pid)
		if space == "" || spaces[space] || len(spaces) >= maxSpaces {
			return
		}
		spaces[space] = true
		fd, err := unix.Openat(r.proc, fmt.Sprintf("%d/mountinfo", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		parseMounts(r.table(fd), r.device.decimal, add)
		unix.Close(fd)
	})
	slices.SortFunc(found, func(a, b mountPoint) int {
		return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.kind, b.kind))
	})
	changed = !slices.Equal(found, r.mounts)
	r.mounts = found
	return changed
}

// namespace names the mount namespace of a process; it is empty for one that has ended.
func (r *resident) namespace(pid int) string {
	n, err := unix.Readlinkat(r.proc, fmt.Sprintf("%d/ns/mnt", pid), r.scratch[:64])
	if err != nil {
		return ""
	}
	return string(r.scratch[:n])
}

func (r *resident) table(fd int) string {
	var b strings.Builder
	for b.Len() < maxTable {
		n, err := unix.Read(fd, r.scratch)
		if n <= 0 || err != nil {
			break
		}
		b.Write(r.scratch[:n])
	}
	return b.String()
}

// findStale finds the processes that have replaced files mapped, and reports whether they are others than before.
func (r *resident) findStale() (changed bool) {
	var found []process
	known := make(map[uint64]bool) // files: whether they are replaced
	r.processes(func(pid int) {
		p := process{pid: pid}
		seen := make(map[uint64]bool)
		r.mappings(pid, func(m mapping) {
			if seen[m.inode] {
				return
			}
			seen[m.inode] = true
			replaced, looked := known[m.inode]
			if !looked {
				replaced = r.replaced(pid, &m)
				known[m.inode] = replaced
			}
			switch {
			case replaced && p.path == "":
				p.path = m.path
			case replaced:
				p.more++
			}
		})
		if p.path != "" {
			p.name = strings.TrimSpace(r.readProc(fmt.Sprintf("%d/comm", pid)))
			p.unit = systemUnit(r.readProc(fmt.Sprintf("%d/cgroup", pid)))
			found = append(found, p)
		}
	})
	slices.SortFunc(found, func(a, b process) int { return cmp.Compare(a.pid, b.pid) })
	changed = !slices.Equal(found, r.stale)
	r.stale = found
	return changed
}

// mappings yields the files of the replica that a process has mapped.
func (r *resident) mappings(pid int, yield func(mapping)) {
	fd, err := unix.Openat(r.proc, fmt.Sprintf("%d/maps", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	buf, kept := make([]byte, 8<<10), 0 // kept: the beginning of a line
	for {
		n, err := unix.Read(fd, buf[kept:])
		if n <= 0 || err != nil {
			return
		}
		rest := buf[:kept+n]
		for {
			line, after, ok := bytes.Cut(rest, []byte{'\n'})
			if !ok {
				break
			}
			if m, ok := parseMapping(string(line), r.device.hex); ok {
				yield(m)
			}
			rest = after
		}
		if kept = copy(buf, rest); kept == len(buf) {
			return // the kernel's lines are shorter
		}
	}
}

// replaced reports whether a mapped file is no more what stands at its path. The path is a hint, which may be one of another mount namespace:
// when another file stands there, the server is asked whether the mapped one has a name still: of one that has none it says that its file system
// has no blocks.
func (r *resident) replaced(pid int, m *mapping) bool {
	var st unix.Statx_t
	if fd, err := r.open(strings.TrimPrefix(m.path, "/"), 0); err == nil {
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
		unix.Close(fd)
		if err == nil && st.Ino == m.inode {
			return false
		}
	}
	fd, err := unix.Openat(r.proc, fmt.Sprintf("%d/map_files/%s", pid, m.at), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.ESTALE)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	err = errors.Join(unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st), unix.Fstatfs(fd, &fs))
	return errors.Is(err, unix.ESTALE) || err == nil && st.Ino == m.inode && fs.Blocks == 0
}
