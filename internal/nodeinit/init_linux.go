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

// relapse is the pause before everything is begun anew.
const relapse = 10 * time.Second

// Main is the whole of dim-init for process 1. It does not return. args are those of the process without its name;
// they are passed on to the node's init, as the kernel would have.
func Main(args []string) {
	k := &kernel{}
	defer func() {
		// Process 1 must not end: the kernel would panic. Whatever happened, all steps can be done again.
		k.Say(fmt.Sprintf("dim: internal fault: %v; beginning anew in %v\n%s", recover(), relapse, debug.Stack()))
		time.Sleep(relapse)
		k.again()
	}()
	if err := k.prepare(); err != nil {
		panic(err)
	}
	run(k, args)
	panic("the handover returned")
}

// Modprobe is what the kernel calls as /sbin/modprobe when a driver asks for another module, as `modprobe -q -- NAME`.
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
	p, _ := ParseParams(line)
	ix := kmod.Parse(t)
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		for _, n := range drivers(ix, []string{name}, nil, &p, make(map[string]bool)) {
			file, _ := ix.Path(n)
			if err := k.LoadModule(file, moduleOptions(ix, &p, n)); err != nil {
				return fmt.Errorf("load %s: %w", n, err)
			}
		}
	}
	return nil
}

// kernel is the machine that we really run on.
type kernel struct {
	console *os.File
}

func (k *kernel) again() {
	err := syscall.Exec("/init", append([]string{"/init"}, os.Args[1:]...), os.Environ())
	for {
		k.Say(fmt.Sprintf("dim: cannot begin anew: %v; switch the node off and on", err))
		time.Sleep(time.Minute)
	}
}

// Say writes to the console and, at the level of debugging so that it is not shown there again, to the kernel's
// log, from where the node's journal has it.
func (k *kernel) Say(line string) {
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

// Tables reads the tables that package initramfs has left.
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
