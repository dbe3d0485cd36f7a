package nodeinit

import (
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"dim/internal/kmod"
)

// restartDelay is the pause before the program executes itself anew.
const restartDelay = 10 * time.Second

// Main is dim-init as process 1. It does not return. args are the arguments of the process without its name; the node's
// init gets them, as from the kernel.
func Main(args []string) {
	k := &kernel{}
	defer func() {
		// If process 1 ended, the kernel would panic. All steps can be repeated.
		k.Log(fmt.Sprintf("dim: internal fault: %v; restarting in %v\n%s", recover(), restartDelay, debug.Stack()))
		time.Sleep(restartDelay)
		k.restart()
	}()
	if err := k.prepare(); err != nil {
		panic(err)
	}
	run(k, args)
	panic("the handover returned")
}

// Modprobe is dim-init as /sbin/modprobe, which the kernel runs as `modprobe -q -- NAME` when a driver requests a
// module.
func Modprobe(args []string) error {
	k := &kernel{}
	t, _, err := k.Tables()
	if err != nil {
		return err
	}
	line, err := k.Cmdline()
	if err != nil {
		return err
	}
	p, _ := parseParams(line)
	ix := kmod.Parse(t)
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		for _, n := range drivers(ix, []string{name}, &p, make(map[string]bool)) {
			file, _ := ix.Path(n)
			if err := k.LoadModule(file, moduleOptions(ix, &p, n)); err != nil {
				return fmt.Errorf("load %s: %w", n, err)
			}
		}
	}
	return nil
}

// kernel is the real machine.
type kernel struct {
	console *os.File
}

// restart executes the program anew.
func (k *kernel) restart() {
	err := syscall.Exec("/init", append([]string{"/init"}, os.Args[1:]...), os.Environ())
	for {
		k.Log(fmt.Sprintf("dim: cannot restart: %v; switch the node off and on", err))
		time.Sleep(time.Minute)
	}
}

// Log writes to the console and to the kernel's log, from which the node's journal takes it. There the line has the
// level of debugging, so that the console does not show it twice.
func (k *kernel) Log(line string) {
	if k.console == nil {
		k.console, _ = os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0)
	}
	if k.console != nil {
		_, _ = k.console.WriteString(strings.ReplaceAll(line, "\n", "\r\n") + "\r\n")
	}
	if log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		_, _ = log.WriteString("<7>" + line)
		_ = log.Close()
	}
}

func (k *kernel) Cmdline() (string, error) {
	b, err := os.ReadFile("/proc/cmdline")
	return string(b), err
}

func (k *kernel) Release() string { return readLine("/proc/sys/kernel/osrelease") }

// Tables reads the tables that package initramfs has written.
func (k *kernel) Tables() (kmod.Tables, []string, error) {
	var t kmod.Tables
	dir := k.moduleDir()
	for name, to := range map[string]*string{
		dir + "/modules.dep": &t.Dep, dir + "/modules.alias": &t.Alias, dir + "/modules.softdep": &t.Softdep,
		dir + "/modules.builtin": &t.Builtin, "/etc/modprobe.d/image.conf": &t.Conf,
	} {
		b, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			return t, nil, err
		}
		*to = string(b)
	}
	extra, err := os.ReadFile("/etc/modules")
	if os.IsNotExist(err) {
		err = nil
	}
	return t, strings.Fields(string(extra)), err
}

func (k *kernel) moduleDir() string { return path.Join("/lib/modules", k.Release()) }

func readLine(name string) string {
	b, _ := os.ReadFile(name)
	return strings.TrimSpace(string(b))
}
