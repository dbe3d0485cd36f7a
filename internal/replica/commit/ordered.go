package commit

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ordered reports whether the file system of dir is known to write its log in order, as the package comment
// describes. It returns false if that cannot be determined.
func ordered(dir int) bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(dir, &fs) != nil || unix.Fstat(dir, &st) != nil {
		return false
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC:
		return hasJournal(st.Dev) && mountedPlainly(st.Dev, "ext4")
	case unix.XFS_SUPER_MAGIC:
		return mountedPlainly(st.Dev, "xfs")
	}
	return false
}

// hasJournal reports whether the ext4 on device dev has a journal: its sysfs names the thread that writes it.
func hasJournal(dev uint64) bool {
	disk, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return false
	}
	task, err := os.ReadFile(filepath.Join("/sys/fs/ext4", filepath.Base(disk), "journal_task"))
	return err == nil && strings.Trim(string(task), "0123456789\n") == "" && len(task) > 1
}

// mountedPlainly reports whether dev is mounted as kind, without an option that keeps changes out of the log
// until the file itself is synced.
func mountedPlainly(dev uint64, kind string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	return plainIn(f, fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)), kind)
}

// plainIn is mountedPlainly for mounts in the form of /proc/self/mountinfo (proc(5)). Options of the file
// system are the last field.
func plainIn(mounts io.Reader, dev, kind string) bool {
	found := false
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		dash := slices.Index(f, "-")
		if len(f) < 6 || f[2] != dev || dash < 0 || len(f) < dash+4 || f[dash+1] != kind {
			continue
		}
		found = true
		for _, options := range []string{f[5], f[dash+3]} {
			if slices.Contains(strings.Split(options, ","), "lazytime") {
				return false
			}
		}
	}
	return found && lines.Err() == nil
}
