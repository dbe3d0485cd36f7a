package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/pki"
)

// dim is a cluster of real servers.
type dim struct {
	n       *network
	o       *options
	daemons []*exec.Cmd // the head first
	version int
}

func newCluster(n *network, o *options) (*dim, error) {
	d := &dim{n: n, o: o}
	file := filepath.Join(o.dir, "cluster.xml")
	if err := os.WriteFile(file, []byte(d.description()), 0o600); err != nil {
		return d, err
	}
	if _, err := pki.Init(d.data(0)); err != nil {
		return d, err
	}
	if err := d.serve(0, n.head, file); err != nil {
		return d, err
	}
	if err := d.await("the head answers", func() bool { return d.cli("image", "ls") == nil }); err != nil {
		return d, err
	}
	for i, ns := range n.servers {
		if err := d.join(i + 1); err != nil {
			return d, err
		}
		if err := d.serve(i+1, ns, file); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (d *dim) description() string {
	b := &strings.Builder{}
	fmt.Fprintf(b, `<cluster name="bench" domain="bench.example">
  <network name="boot" subnet="10.88.0.0/16" insecure="yes"/>
  <server name="head" roles="head" dhcp="off"><interface network="boot" address="%s"/></server>
`, d.n.address(0))
	for i := range d.n.servers {
		fmt.Fprintf(b, `  <server name="is%d" roles="image" dhcp="off"><interface network="boot" address="%s"/></server>
`, i+1, d.n.address(i+1))
	}
	fmt.Fprintf(b, `  <image name="compute" arch="amd64" master="dir:%s"/>
`, d.o.master)
	for i := range d.n.servers {
		fmt.Fprintf(b, `  <node name="n%d" image="compute" servers="is%[1]d">
    <interface name="eth0" network="boot" address="10.88.1.%[1]d" mac="52:54:00:4d:00:%02[1]x"/>
  </node>
`, i+1)
	}
	return b.String() + "</cluster>\n"
}

func (d *dim) data(i int) string { return filepath.Join(d.o.dir, fmt.Sprintf("dim-%d", i)) }

// join makes the data directory of a server that the head has certified.
func (d *dim) join(i int) error {
	data := d.data(i)
	if _, err := pki.Init(data); err != nil {
		return err
	}
	ca := filepath.Join(data, "ca")
	if err := errors.Join(os.RemoveAll(ca), os.CopyFS(ca, os.DirFS(filepath.Join(d.data(0), "ca")))); err != nil {
		return err
	}
	c, err := pki.Open(data)
	if err != nil {
		return err
	}
	name := cluster.ServerName(fmt.Sprintf("is%d", i))
	if err := c.Assume(name, []cluster.Role{cluster.RoleImage}, time.Now()); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(filepath.Join(ca, "servers")), os.RemoveAll(filepath.Join(ca, "nodes")),
		os.Remove(filepath.Join(ca, "key.pem")))
}

func (d *dim) serve(i int, ns, file string) error {
	log, err := os.Create(d.data(i) + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	c := command(ns, d.o.dim, "serve", "--cluster", file)
	if i == 0 {
		c.Args = append(c.Args, "--as", "head")
	}
	c.Env = append(os.Environ(), "DIM_DATA="+d.data(i))
	c.Stderr = log
	d.daemons = append(d.daemons, c)
	return c.Start()
}

// cli runs a command of the head.
func (d *dim) cli(args ...string) error {
	c := exec.Command(d.o.dim, args...)
	c.Env = append(os.Environ(), "DIM_DATA="+d.data(0))
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("dim %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (d *dim) await(what string, done func() bool) error {
	for range 600_000 {
		if done() {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("after ten minutes still not: %s", what)
}

func (d *dim) close() {
	for _, c := range d.daemons {
		end(c)
	}
}

func (*dim) name() string { return "dim" }

func (d *dim) prepare() error {
	d.version++
	return nil
}

// transfer captures. The time runs from when the head has the version.
func (d *dim) transfer() (took, cpu time.Duration, err error) {
	captured := make(chan error, 1)
	go func() { captured <- d.cli("image", "capture", "compute", "-o", "json") }()
	if err := d.await("the head has the version", func() bool { return d.has(0) }); err != nil {
		return 0, 0, err
	}
	begin, before := time.Now(), d.cpu()
	err = d.await("the servers have the version", func() bool {
		for i := range d.n.servers {
			if !d.has(i + 1) {
				return false
			}
		}
		return true
	})
	return time.Since(begin), d.cpu() - before, errors.Join(err, <-captured)
}

// has reports whether a store has the version.
func (d *dim) has(i int) bool {
	_, err := os.Lstat(filepath.Join(d.data(i), "store/versions/compute", fmt.Sprintf("%d.json", d.version)))
	return err == nil
}

func (d *dim) cpu() (sum time.Duration) {
	for _, c := range d.daemons {
		sum += cpuTime(c.Process.Pid)
	}
	return sum
}
