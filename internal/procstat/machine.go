package procstat

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Machine is what a machine has used since it was started.
type Machine struct {
	CPU            float64 // seconds of all processors, without idle and waiting time
	Sent, Received uint64  // bytes of all network interfaces
}

// ReadMachine returns what this machine has used so far.
func ReadMachine() (m Machine, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	for i, f := range bytes.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal guest guest_nice; user has guest in it (proc(5)).
		switch i {
		case 1, 2, 3, 6, 7:
			n, err := strconv.ParseUint(string(f), 10, 64)
			if err != nil {
				return m, fmt.Errorf("read /proc/stat: %w", err)
			}
			m.CPU += float64(n) / ticks
		}
	}
	m.Sent, m.Received, err = interfaces()
	return m, err
}

// interfaces returns how many bytes all interfaces have sent and received.
func interfaces() (sent, received uint64, err error) {
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		_, counts, ok := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if !ok || len(f) < 9 {
			continue // the two lines of the head
		}
		in, err1 := strconv.ParseUint(f[0], 10, 64)
		out, err2 := strconv.ParseUint(f[8], 10, 64)
		if err1 != nil || err2 != nil {
			return 0, 0, fmt.Errorf("read /proc/net/dev: a line that begins with %.40q", line)
		}
		sent, received = sent+out, received+in
	}
	return sent, received, nil
}

// Disk is what a disk has done since it was attached.
type Disk struct {
	Read, Written uint64  // bytes
	Busy          float64 // seconds during which it had something to do
}

// sector is the unit of /proc/diskstats, whatever the disk's own is (kernel, Documentation/admin-guide/iostats.rst).
const sector = 512

// ReadDisk returns what the disk of the file system of a path has done. ok is false if the kernel counts nothing for
// it: it is in memory, on another machine or made of several disks.
func ReadDisk(path string) (d Disk, ok bool) {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return d, false
	}
	dev := uint64(st.Dev)
	major, minor := dev>>8&0xfff|dev>>32&^0xfff, dev&0xff|dev>>12&^0xff // gnu_dev_major and gnu_dev_minor of glibc
	f, err := os.Open("/proc/diskstats")
	if err != nil {
		return d, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 13 || f[0] != strconv.FormatUint(major, 10) || f[1] != strconv.FormatUint(minor, 10) {
			continue
		}
		var n [3]uint64
		for i, field := range []int{5, 9, 12} {
			if n[i], err = strconv.ParseUint(f[field], 10, 64); err != nil {
				return d, false
			}
		}
		return Disk{Read: n[0] * sector, Written: n[1] * sector, Busy: float64(n[2]) / 1000}, true
	}
	return d, false
}

// LinkSpeed returns the bits a second of the network interface that has an address, 0 if the kernel does not tell.
func LinkSpeed(addr netip.Addr) uint64 {
	list, err := net.Interfaces()
	if err != nil {
		return 0
	}
	for _, i := range list {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err != nil || p.Addr() != addr {
				continue
			}
			b, err := os.ReadFile(filepath.Join("/sys/class/net", i.Name, "speed"))
			if err != nil {
				return 0
			}
			mbits, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // -1: no link
			return uint64(max(mbits, 0)) * 1_000_000
		}
	}
	return 0
}

// Memory returns the resident memory of this process, in bytes; 0 if the kernel does not tell.
func Memory() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	f := bytes.Fields(b)
	if err != nil || len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(string(f[1]), 10, 64)
	return pages * uint64(os.Getpagesize())
}
