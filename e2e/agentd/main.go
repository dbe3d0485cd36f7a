// Agentd is the init of a test guest: it sets up the little that a kernel needs, then serves packages agent and
// storm on port 7000. Its parameters come from the kernel command line: agent.addr=ADDRESS/PREFIX,
// agent.if=CARD, agent.modules=DIR.
package main

import (
	"fmt"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dim/e2e/agent"
	"dim/e2e/storm"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("agentd:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range []struct{ source, dir, kind string }{
		{"proc", "/proc", "proc"},
		{"sys", "/sys", "sysfs"},
		{"dev", "/dev", "devtmpfs"},
		{"run", "/run", "tmpfs"},
		{"mnt", "/mnt", "tmpfs"},
		{"tmp", "/tmp", "tmpfs"},
	} {
		// the kernel may have mounted /dev itself
		if err := unix.Mount(m.source, m.dir, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	params, err := parameters()
	if err != nil {
		return err
	}
	if err := loadModules(params["agent.modules"]); err != nil {
		return err
	}
	if err := configure(params["agent.if"], params["agent.addr"]); err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(agent.New()); err != nil {
		return err
	}
	if err := server.Register(new(storm.Load)); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", ":7000")
	if err != nil {
		return err
	}
	fmt.Println("agentd: ready")
	server.Accept(ln)
	return nil
}

func parameters() (map[string]string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	params := map[string]string{}
	for _, word := range strings.Fields(string(line)) {
		k, v, _ := strings.Cut(word, "=")
		params[k] = v
	}
	return params, err
}

// loadModules loads the modules that an NFSv3 mount needs, in the order of their dependencies. Modules that are
// built in have no file.
func loadModules(dir string) error {
	for _, name := range []string{
		"net/sunrpc/sunrpc", "fs/nfs_common/grace", "fs/lockd/lockd", "fs/netfs/netfs", "fs/fscache/fscache",
		"fs/nfs/nfs", "fs/nfs_common/nfs_acl", "fs/nfs/nfsv3", "fs/overlayfs/overlay",
	} {
		f, err := os.Open(filepath.Join(dir, "kernel", name+".ko"))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

func configure(card, addr string) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(card)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}
