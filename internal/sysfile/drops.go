package sysfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// UDPDrops returns how many messages the kernel has dropped of an IPv4 UDP socket of this process, because nobody read
// them in time or there was no memory. It reads /proc/net/udp.
func UDPDrops(conn syscall.Conn) (uint64, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read drops of socket: %w", err)
	}
	var st syscall.Stat_t
	if cerr := raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &st) }); cerr != nil || err != nil {
		return 0, fmt.Errorf("read drops of socket: %w", errors.Join(cerr, err))
	}
	table, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		return 0, fmt.Errorf("read drops of socket: %w", err)
	}
	inode := strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(table)) {
		// sl local remote state queues timer retransmits uid timeout inode references pointer drops
		f := strings.Fields(line)
		if len(f) < 13 || f[9] != inode {
			continue
		}
		return strconv.ParseUint(f[12], 10, 64)
	}
	return 0, fmt.Errorf("read drops of socket: inode %s is not in /proc/net/udp", inode)
}
