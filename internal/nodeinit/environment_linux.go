package nodeinit

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// creator is one piece of the boot environment.
type creator interface {
	fmt.Stringer
	// Create makes it; it is no error if it exists.
	Create() error
}

// dir is a directory.
type dir struct{ path string }

func (d dir) String() string { return "directory " + d.path }
func (d dir) Create() error  { return os.MkdirAll(d.path, 0o755) }

// mount is a file system of the kernel's own.
type mount struct {
	path, kind, data string
	flags            uintptr
}

func (m mount) String() string { return m.kind + " on " + m.path }

func (m mount) Create() error {
	if mounted(m.path) {
		return nil
	}
	return unix.Mount(m.kind, m.path, m.kind, m.flags, m.data)
}

// newRoot is where the replica is mounted before it becomes the root.
const newRoot = "/root"

// environment returns what prepare makes. The options are those of systemd (src/shared/mount-setup.c), which takes
// these mounts over as they are.
func environment() []creator {
	const runFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_STRICTATIME
	return []creator{
		dir{"/dev"}, dir{"/proc"}, dir{"/sys"}, dir{"/run"}, dir{newRoot},
		mount{"/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
		mount{"/proc", "proc", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		mount{"/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		mount{"/run", "tmpfs", "mode=0755,size=20%,nr_inodes=800k", runFlags},
	}
}

func (k *kernel) prepare() error {
	unix.Umask(0o022)
	for _, c := range environment() {
		if err := c.Create(); err != nil {
			return fmt.Errorf("make %s: %w", c, err)
		}
	}
	return nil
}

// mounted reports whether a file system is mounted on a directory.
func mounted(path string) bool {
	var here, above unix.Stat_t
	if unix.Stat(path, &here) != nil || unix.Stat(filepath.Dir(path), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}
