// Package procstat reads from /proc and /sys what a process and its machine have used so far: CPU time, bytes of
// network interfaces and of a disk.
//
// It must not know what the machine does.
package procstat

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// ticks is USER_HZ of Linux, in which /proc counts CPU time: 100 a second on all architectures that DIM runs on.
const ticks = 100

// CPUTime returns the CPU time that a process has used so far in user and kernel mode, in seconds. It is 0 if there is
// no such process.
func CPUTime(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(string(f[11]))
	system, _ := strconv.Atoi(string(f[12]))
	return float64(user+system) / ticks
}
