package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// network is a head and some servers, each a network namespace.
type network struct {
	head    string
	servers []string
	web     int    // the process that serves files over HTTP
	dir     string // on the file system that all work on
}

// sync waits until all that was written is on the disk.
func (n *network) sync() error {
	f, err := os.Open(n.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func newNetwork(servers int) (n *network, err error) {
	prefix := fmt.Sprintf("dimb%d-", os.Getpid())
	n = &network{head: prefix + "h"}
	for i := range servers {
		n.servers = append(n.servers, prefix+strconv.Itoa(i+1))
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, ns := range append([]string{n.head}, n.servers...) {
		if err := ip("netns add " + ns); err != nil {
			return n, err
		}
		if err := ip("-n " + ns + " link set lo up"); err != nil {
			return n, err
		}
	}
	if err := ip("-n " + n.head + " link add br0 type bridge"); err != nil {
		return n, err
	}
	for i, ns := range n.servers {
		port := "p" + strconv.Itoa(i+1)
		for _, args := range []string{
			"-n " + n.head + " link add " + port + " type veth peer name eth0 netns " + ns,
			"-n " + n.head + " link set " + port + " master br0 up",
			"-n " + ns + " address add " + n.address(i+1) + "/16 dev eth0",
			"-n " + ns + " link set eth0 up",
		} {
			if err := ip(args); err != nil {
				return n, err
			}
		}
	}
	if err := ip("-n " + n.head + " address add " + n.address(0) + "/16 dev br0"); err != nil {
		return n, err
	}
	return n, ip("-n " + n.head + " link set br0 up")
}

func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

func (n *network) close() {
	for _, ns := range append([]string{n.head}, n.servers...) {
		_ = ip("netns del " + ns)
	}
}

// address returns the address of the head, 0, or of a server.
func (n *network) address(i int) string { return fmt.Sprintf("10.88.0.%d", i+1) }

// bytes returns how many bytes head and servers have received together, and how many the head has sent.
func (n *network) bytes() (all, head uint64, err error) {
	all, head, err = counters(n.head, "br0")
	for _, ns := range n.servers {
		received, _, cerr := counters(ns, "eth0")
		all, err = all+received, errors.Join(err, cerr)
	}
	return all, head, err
}

// counters returns how many bytes the programs of a namespace have received and sent over a link.
func counters(ns, link string) (received, sent uint64, err error) {
	out, err := exec.Command("ip", "-n", ns, "-s", "-j", "link", "show", link).Output()
	if err != nil {
		return 0, 0, err
	}
	var links []struct {
		Stats64 struct {
			Rx, Tx struct{ Bytes uint64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, 0, fmt.Errorf("counters of %s: %v: %s", ns, err, out)
	}
	return links[0].Stats64.Rx.Bytes, links[0].Stats64.Tx.Bytes, nil
}

func command(ns string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
}

// start starts a program in a namespace.
func (n *network) start(ns string, args ...string) (*exec.Cmd, error) {
	c := command(ns, args...)
	c.Stderr = os.Stderr
	return c, c.Start()
}

func end(c *exec.Cmd) {
	_ = c.Process.Signal(os.Interrupt)
	_ = c.Wait()
}

// everywhere runs a command on all servers at once, and returns how long that took and its CPU time.
func (n *network) everywhere(args func(i int) []string) (took, cpu time.Duration, err error) {
	var running []*exec.Cmd
	begin := time.Now()
	for i, ns := range n.servers {
		c := command(ns, append([]string{"timeout", "600"}, args(i)...)...)
		out, ferr := os.CreateTemp("", "replicate-")
		if ferr != nil {
			return 0, 0, ferr
		}
		defer os.Remove(out.Name())
		defer out.Close()
		c.Stdout, c.Stderr = out, out
		if err := c.Start(); err != nil {
			return 0, 0, err
		}
		running = append(running, c)
	}
	for _, c := range running {
		werr := c.Wait()
		if werr != nil && err == nil {
			text, _ := os.ReadFile(c.Stdout.(*os.File).Name())
			err = fmt.Errorf("%s: %w: %.300s", strings.Join(c.Args[5:], " "), werr, text)
		}
		cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	return time.Since(begin), cpu, err
}

// cpuTime returns the CPU time of a process and of those of its children that it has waited for.
func cpuTime(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for i := 11; i <= 14 && i < len(fields); i++ {
		n, _ := strconv.Atoi(fields[i])
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
