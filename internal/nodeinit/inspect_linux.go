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

// Bounds of an inspection.
const (
	maxTable      = 256 << 10 // bytes of a table of mounts
	maxNamespaces = 32        // mount namespaces
)

// readProc returns the text of a small file below /proc, or "" if it cannot be read.
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

// writeProc writes a file below /proc and ignores errors.
func (r *resident) writeProc(name, text string) {
	if fd, err := unix.Openat(r.proc, name, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
}

// residentMemory returns the memory of the process in kB.
func (r *resident) residentMemory() int {
	f := strings.Fields(r.readProc("self/statm"))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(f[1])
	return pages * os.Getpagesize() / 1024
}

// processes calls yield for each process.
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

// updateMounts finds the mounts on the replica in all mount namespaces, and reports whether they have changed.
func (r *resident) updateMounts() (changed bool) {
	var found []mountPoint
	seen := make(map[mountPoint]bool)
	add := func(m mountPoint) {
		if !seen[m] {
			seen[m] = true
			found = append(found, m)
		}
	}
	if _, err := unix.Seek(r.mountinfo, 0, 0); err == nil {
		parseMounts(r.readTable(r.mountinfo), r.device.decimal, add)
	}
	namespaces := map[string]bool{r.namespace(1): true}
	r.processes(func(pid int) {
		ns := r.namespace(pid)
		if ns == "" || namespaces[ns] || len(namespaces) >= maxNamespaces {
			return
		}
		namespaces[ns] = true
		fd, err := unix.Openat(r.proc, fmt.Sprintf("%d/mountinfo", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		parseMounts(r.readTable(fd), r.device.decimal, add)
		unix.Close(fd)
	})
	slices.SortFunc(found, func(a, b mountPoint) int {
		return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.kind, b.kind))
	})
	changed = !slices.Equal(found, r.mounts)
	r.mounts = found
	return changed
}

// namespace returns the name of a process's mount namespace, or "" if the process has ended.
func (r *resident) namespace(pid int) string {
	n, err := unix.Readlinkat(r.proc, fmt.Sprintf("%d/ns/mnt", pid), r.scratch[:64])
	if err != nil {
		return ""
	}
	return string(r.scratch[:n])
}

// readTable reads at most maxTable bytes.
func (r *resident) readTable(fd int) string {
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

// updateStale finds the processes that have replaced files mapped, and reports whether they have changed.
func (r *resident) updateStale() (changed bool) {
	var found []staleProcess
	replaced := make(map[uint64]bool) // by inode
	r.processes(func(pid int) {
		p := staleProcess{pid: pid}
		seen := make(map[uint64]bool)
		r.mappings(pid, func(m mapping) {
			if seen[m.inode] {
				return
			}
			seen[m.inode] = true
			if _, known := replaced[m.inode]; !known {
				replaced[m.inode] = r.isReplaced(pid, &m)
			}
			switch {
			case replaced[m.inode] && p.path == "":
				p.path = m.path
			case replaced[m.inode]:
				p.more++
			}
		})
		if p.path != "" {
			p.name = strings.TrimSpace(r.readProc(fmt.Sprintf("%d/comm", pid)))
			p.unit = systemUnit(r.readProc(fmt.Sprintf("%d/cgroup", pid)))
			found = append(found, p)
		}
	})
	slices.SortFunc(found, func(a, b staleProcess) int { return cmp.Compare(a.pid, b.pid) })
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
	buf, kept := make([]byte, 8<<10), 0 // kept is the size of an incomplete line
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

// isReplaced reports whether a mapped file was replaced. The mapping's path is a hint only, because it may be of
// another mount namespace. If another file is at the path, the server decides: for a file that has no name any more it
// reports a file system of no blocks.
func (r *resident) isReplaced(pid int, m *mapping) bool {
	var st unix.Statx_t
	if fd, err := r.open(strings.TrimPrefix(m.path, "/"), 0); err == nil {
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
		unix.Close(fd)
		if err == nil && shownAs(m.inode, st.Ino) {
			return false
		}
	}
	fd, err := unix.Openat(r.proc, fmt.Sprintf("%d/map_files/%s", pid, m.addresses), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.ESTALE)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	err = errors.Join(unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st), unix.Fstatfs(fd, &fs))
	return errors.Is(err, unix.ESTALE) || err == nil && shownAs(m.inode, st.Ino) && fs.Blocks == 0
}
