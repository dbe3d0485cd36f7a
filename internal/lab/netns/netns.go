// Package netns makes networks of network namespaces for tests: a bridge, taps for guests, and hosts with cables that
// can be cut. It needs root, and ip and tc (iproute2).
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// bridge is the name of the bridge in every Net.
const bridge = "br0"

// Net is a network namespace with a bridge to which guests and servers are attached.
type Net struct {
	Name   string // of the namespace, as in `ip netns`
	Bridge string // name of the bridge
}

// New makes a namespace with a bridge that has the addresses addr, those of the servers. If there is a namespace of
// that name, left by an earlier run, it is removed first.
func New(name string, addr ...netip.Prefix) (*Net, error) {
	n := &Net{Name: name, Bridge: bridge}
	if _, err := os.Stat(n.path()); err == nil {
		if err := n.Close(); err != nil {
			return nil, err
		}
	}
	if err := ip("netns", "add", name); err != nil {
		return nil, err
	}
	steps := [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"},
		{"link", "set", bridge, "up"},
	}
	for _, a := range addr {
		steps = append(steps, []string{"addr", "add", a.String(), "dev", bridge})
	}
	for _, s := range steps {
		if err := n.ip(s...); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// Tap makes a tap device and attaches it to the bridge. It returns the name, for NIC.Tap.
func (n *Net) Tap(name string) (string, error) {
	steps := [][]string{
		{"tuntap", "add", "dev", name, "mode", "tap"},
		{"link", "set", name, "master", bridge},
		{"link", "set", name, "up"},
	}
	for _, s := range steps {
		if err := n.ip(s...); err != nil {
			return "", err
		}
	}
	return name, nil
}

// AddAddr adds an address to the bridge, for another server in the same namespace.
func (n *Net) AddAddr(a netip.Prefix) error { return n.ip("addr", "add", a.String(), "dev", bridge) }

// Close removes the namespace and its devices. If processes run in it, it exists until they end.
func (n *Net) Close() error { return ip("netns", "del", n.Name) }

// Do calls fn on an operating-system thread that is in the namespace. Sockets that fn makes stay in the namespace.
// Goroutines that fn starts are not in it.
func (n *Net) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked, so it ends with this goroutine and never runs another one in the namespace.
		runtime.LockOSThread()
		done <- n.enter(fn)
	}()
	return <-done
}

func (n *Net) enter(fn func() error) error {
	fd, err := unix.Open(n.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", n.path(), err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network %s: %w", n.Name, err)
	}
	return fn()
}

// Listen is net.Listen in the namespace.
func (n *Net) Listen(network, addr string) (ln net.Listener, err error) {
	err = n.Do(func() error { ln, err = net.Listen(network, addr); return err })
	return ln, err
}

// ListenPacket is net.ListenPacket in the namespace.
func (n *Net) ListenPacket(network, addr string) (pc net.PacketConn, err error) {
	err = n.Do(func() error { pc, err = net.ListenPacket(network, addr); return err })
	return pc, err
}

// DialContext is net.Dialer.DialContext in the namespace, for http.Transport. addr must not contain a host name.
func (n *Net) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
	return c, err
}

// Command is exec.CommandContext for a program that runs in the namespace.
func (n *Net) Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, arg...)...)
}

func (n *Net) path() string { return "/run/netns/" + n.Name }

func (n *Net) ip(arg ...string) error { return ip(append([]string{"-n", n.Name}, arg...)...) }

func (n *Net) tc(arg ...string) error {
	return command("tc", append([]string{"-n", n.Name}, arg...)...)
}

func ip(arg ...string) error { return command("ip", arg...) }

func command(name string, arg ...string) error {
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %v: %s", name, strings.Join(arg, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
