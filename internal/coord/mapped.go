package coord

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// database is where etcd keeps its state, below its directory.
const database = "/member/snap/db"

// pageOut takes etcd's database out of this process's memory. The file is mapped whole, and read in whole when it is
// mapped (MAP_POPULATE): 16 MB for a few dozen pages that are used, which come back by themselves. What fails costs memory and nothing else.
//
// MADV_PAGEOUT and not MADV_DONTNEED: if the mapping went away meanwhile, what stands there now must not lose a byte.
func pageOut() {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !strings.HasSuffix(lines.Text(), database) {
			continue
		}
		span, _, _ := strings.Cut(lines.Text(), " ") // proc_pid_maps(5)
		from, to, _ := strings.Cut(span, "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_PAGEOUT)
		}
	}
}
