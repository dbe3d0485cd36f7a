// Package cputime reads how much CPU time a process has used.
package cputime

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Of returns the CPU time that a process has used so far in user and kernel mode, in seconds. It is 0 if there is no
// such process.
func Of(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces; utime and stime are fields 14 and 15 (proc(5)), in ticks of 10 ms.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(string(f[11]))
	system, _ := strconv.Atoi(string(f[12]))
	return float64(user+system) / 100
}
