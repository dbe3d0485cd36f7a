package replica

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestHowManyFilesStayOpenFollowsTheProcessAndTheMemory(t *testing.T) {
	if got := openFiles(1); got != 64 {
		t.Errorf("of one: %d", got)
	}
	var limit unix.Rlimit
	var memory unix.Sysinfo_t
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || unix.Sysinfo(&memory) != nil {
		t.Skip("the kernel tells no limits")
	}
	got := uint64(openFiles(0))
	if got > max(limit.Cur/3, 64) || got > openFilesMost {
		t.Errorf("%d of %d that the process may open", got, limit.Cur)
	}
	large := uint64(memory.Totalram)*uint64(memory.Unit) >= openFilesMost*memoryPerFile
	if large && got != min(limit.Cur/3, openFilesMost) {
		t.Errorf("%d, although the machine has memory for %d", got, openFilesMost)
	}
}
