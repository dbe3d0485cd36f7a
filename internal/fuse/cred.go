package fuse

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// caller returns the credential of a request, with the supplementary groups unless it is root.
func caller(h *gofuse.InHeader) *vfs.Cred {
	c := withoutGroups(h)
	if c.UID != 0 {
		c.Groups = groupsOf(h.Pid)
	}
	return c
}

// withoutGroups returns the credential of a request without the supplementary groups.
func withoutGroups(h *gofuse.InHeader) *vfs.Cred { return &vfs.Cred{UID: h.Uid, GID: h.Gid} }

func root() *vfs.Cred { return &vfs.Cred{} }

// retryWithGroups makes a call that changes nothing without the groups, and if it is refused, with them.
func retryWithGroups(h *gofuse.InHeader, call func(c *vfs.Cred) error) error {
	err := call(withoutGroups(h))
	if err == vfs.EACCES {
		err = call(caller(h))
	}
	return err
}

// groupsOf returns the supplementary groups of a thread, or none if it has ended or is in another PID namespace
// (pid 0).
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
