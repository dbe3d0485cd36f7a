package nodeinit

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HandOver does what switch_root(8) does. Everything before its last step can be repeated. After that there is no
// initramfs any more, and only the execution of init is tried again: meanwhile somebody may repair the root.
func (k *kernel) HandOver(init string, args []string) error {
	for _, m := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := moveMount(m); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	emptyInitramfs()
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for {
		err := syscall.Exec(init, append([]string{init}, args...), os.Environ())
		k.Log(fmt.Sprintf("dim: cannot run %s: %v; trying again in %v", init, err, restartDelay))
		time.Sleep(restartDelay)
	}
}

func moveMount(path string) error {
	to := filepath.Join(newRoot, path)
	if mounted(to) {
		return nil
	}
	if _, err := os.Stat(to); os.IsNotExist(err) {
		if err := os.Mkdir(to, 0o755); err != nil {
			return fmt.Errorf("make the directory %s, which the image lacks: %w", path, err)
		}
	}
	if err := unix.Mount(path, to, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to the new root: %w", path, err)
	}
	return nil
}

// emptyInitramfs removes all files of the initramfs to free its memory. It stays within that file system; everything
// else is mounted below newRoot.
func emptyInitramfs() {
	var root unix.Statfs_t
	if unix.Statfs("/", &root) != nil || root.Type != unix.RAMFS_MAGIC && root.Type != unix.TMPFS_MAGIC {
		return // not an initramfs: never delete what is on a disk
	}
	var here unix.Stat_t
	if unix.Stat("/", &here) == nil {
		removeBelow("/", here.Dev)
	}
}

func removeBelow(dir string, dev uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Dev != dev {
			continue
		}
		if e.IsDir() {
			removeBelow(path, dev)
		}
		_ = os.Remove(path)
	}
}
