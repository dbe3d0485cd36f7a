package confine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nobody is the user and the group of children, whatever the machine's list of users says.
const nobody = 65534

// spareAddresses is how much address space a Go program reserves beyond what it uses.
const spareAddresses = 1 << 30

// killDelay is how many seconds after the time in Limits the kernel ends a process. Whoever looks at the times of the
// process then finds that it had all of its time.
const killDelay = 1

// confine takes from this process what it does not need. It comes before the first untrusted byte.
func confine(l *Limits) error {
	if err := limitMemory(l.Memory); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // better this process than the parent
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 64, unix.RLIMIT_FSIZE: maxNote}
	for which, n := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	if l.CPU > 0 {
		n := uint64(math.Ceil(float64(l.CPU) / float64(time.Second)))
		if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: n, Max: n + killDelay}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	if os.Geteuid() == 0 {
		if err := leaveRoot(); err != nil {
			return err
		}
	}
	// Landlock answers EPERM on a thread that may gain rights. This was seen, rarely, right after all threads had given
	// that up. Nothing has been denied then, and both calls are made again.
	for try := 1; ; try++ {
		if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
			return os.NewSyscallError("prctl", err)
		}
		if err := denyFiles(); !errors.Is(err, unix.EPERM) || try == maxTries {
			return err
		}
	}
}

// maxTries bounds how often a process tries to deny itself all files.
const maxTries = 3

// limitMemory limits what the process may have besides what it has now. The kernel's limits end it; the runtime's lets
// it collect garbage before.
func limitMemory(n uint64) error {
	debug.SetMemoryLimit(int64(n / 4 * 3))
	text, err := os.ReadFile("/proc/self/statm") // proc(5): size resident shared text lib data dt, in pages
	if err != nil {
		return err
	}
	f := strings.Fields(string(text))
	if len(f) < 6 {
		return errors.New("/proc/self/statm is not understood")
	}
	size, err := strconv.ParseUint(f[0], 10, 52)
	data, derr := strconv.ParseUint(f[5], 10, 52)
	if err = errors.Join(err, derr); err != nil {
		return err
	}
	page := uint64(os.Getpagesize())
	limits := map[int]uint64{unix.RLIMIT_DATA: data*page + n, unix.RLIMIT_AS: size*page + n + spareAddresses}
	for which, n := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

// leaveRoot moves to a directory that has been removed, in which nothing can be made, and gives up root's rights.
func leaveRoot() error {
	dir, err := os.MkdirTemp("", "dim-empty-")
	if err != nil {
		return err
	}
	err = os.Chdir(dir)
	if err = errors.Join(err, os.Remove(dir)); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"chroot", func() error { return syscall.Chroot(".") }},
		{"setgroups", func() error { return syscall.Setgroups(nil) }},
		{"setgid", func() error { return syscall.Setresgid(nobody, nobody, nobody) }},
		{"setuid", func() error { return syscall.Setresuid(nobody, nobody, nobody) }}, // drops all capabilities
	} {
		if err := step.do(); err != nil {
			return os.NewSyscallError(step.name, err)
		}
	}
	return nil
}

// The rights of Landlock (linux/landlock.h) by the version of its interface that first had them all.
const (
	landlockFiles   = 1<<13 - 1 // version 1
	landlockRefer   = 1 << 13   // 2
	landlockCut     = 1 << 14   // 3
	landlockConnect = 3         // 4: bind and connect by TCP
	landlockIoctl   = 1 << 15   // 5
)

// denyFiles denies all of the file system and TCP by Landlock, if the kernel has it.
func denyFiles() error {
	version, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: landlockFiles}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	for least, right := range map[uintptr]uint64{2: landlockRefer, 3: landlockCut, 5: landlockIoctl} {
		if version >= least {
			attr.Handled_access_fs |= right
		}
	}
	if version >= 4 {
		attr.Handled_access_net, size = landlockConnect, size+unsafe.Sizeof(attr.Handled_access_net)
	}
	fd, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	if err := onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0); err != nil {
		return fmt.Errorf("landlock_restrict_self: %w", err)
	}
	return nil
}

// onAllThreads makes a system call on all threads. A build with cgo, as for the race detector, cannot do that; it makes
// the call on this one.
func onAllThreads(trap, a1, a2 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, 0)
	if errno == unix.ENOTSUP {
		_, _, errno = syscall.Syscall(trap, a1, a2, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
