package fuse

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// caller is who makes a request, with the supplementary groups when they can matter.
func caller(h *gofuse.InHeader) *vfs.Cred {
	c := lean(h)
	if c.UID != 0 {
		c.Groups = groupsOf(h.Pid)
	}
	return c
}

// lean is the caller without supplementary groups.
func lean(h *gofuse.InHeader) *vfs.Cred { return &vfs.Cred{UID: h.Uid, GID: h.Gid} }

func root() *vfs.Cred { return &vfs.Cred{} }

// asCaller runs a call that only looks, without the groups at first.
func asCaller(h *gofuse.InHeader, call func(c *vfs.Cred) error) error {
	err := call(lean(h))
	if err == vfs.EACCES {
		err = call(caller(h))
	}
	return err
}

// groupsOf reads a thread's supplementary groups; none when it has gone or is in another PID namespace (pid 0).
func groupsOf(pid uint32) []uint32 {
	if pid == 0 {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	return parseGroups(b)
}

// parseGroups finds the line "Groups:" of /proc/PID/status (proc_pid_status(5)).
func parseGroups(status []byte) []uint32 {
	for line := range bytes.Lines(status) {
		list, ok := bytes.CutPrefix(line, []byte("Groups:"))
		if !ok {
			continue
		}
		var groups []uint32
		for _, f := range bytes.Fields(list) {
			if g, err := strconv.ParseUint(string(f), 10, 32); err == nil {
				groups = append(groups, uint32(g))
			}
		}
		return groups
	}
	return nil
}
