package member

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// database is the path of etcd's database below its directory.
const database = "/member/snap/db"

// pageOut removes the pages of etcd's database from this process's memory. etcd maps the file with MAP_POPULATE, which
// reads all of it: 16 MB, of which a few dozen pages are used. The kernel reads these again on access. Errors are
// ignored: they cost memory only.
//
// MADV_DONTNEED is not used: it could destroy data if the mapping was replaced by another one in the meantime.
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
