package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dim/internal/lab"
	"dim/internal/lab/master"
)

// The demonstration uses examples/small.xml. These are names and addresses in it.
const (
	description = "examples/small.xml"
	masterAt    = "/srv/dim/masters/compute"
	serverName  = "head"
	image       = "compute"
)

var (
	serverAddr = netip.MustParsePrefix("10.77.0.1/24")
	nodes      = []node{
		{"n01", "10.77.0.11", "52:54:00:4d:00:01"},
		{"n02", "10.77.0.12", "52:54:00:4d:00:02"},
	}
)

type node struct{ name, addr, mac string }

// demonstration is one run of the demonstration.
type demonstration struct {
	start   time.Time
	dir     string
	master  string
	cluster *lab.Cluster
	guests  []*lab.Guest

	mu sync.Mutex // held while a line is printed
}

func demo(ctx context.Context) (err error) {
	if os.Getuid() != 0 {
		return errors.New("the demonstration needs root: it makes a network namespace, mounts and device nodes")
	}
	dir, err := os.MkdirTemp("/var/tmp", "dim-demo-")
	if err != nil {
		return err
	}
	d := &demonstration{start: time.Now(), dir: dir, master: filepath.Join(dir, "master")}
	defer func() {
		if err != nil {
			d.printLogs()
		}
		d.printf("cleaning up")
		err = errors.Join(err, d.close())
	}()
	for _, step := range []func(context.Context) error{
		d.installMaster, d.startServer, d.capture, d.boot, d.checkIsolation, d.changeMaster,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if os.Getenv("KEEP") != "" {
		d.waitForInterrupt(ctx)
		return nil
	}
	return d.shutdown(ctx)
}

// printf prints a line after the seconds since the start.
func (d *demonstration) printf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Printf("%7.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

// timed calls f and prints how long it took.
func (d *demonstration) timed(what string, f func() error) error {
	d.printf("%s …", what)
	begin := time.Now()
	if err := f(); err != nil {
		return err
	}
	d.printf("%s: %.1f s", what, time.Since(begin).Seconds())
	return nil
}

func (d *demonstration) installMaster(ctx context.Context) error {
	return d.timed("master: installing Debian 12 with mmdebstrap", func() error {
		log, err := os.Create(filepath.Join(d.dir, "master.log"))
		if err != nil {
			return err
		}
		defer log.Close()
		p := newProgress(os.Stdout, d.start)
		return p.during(ctx, func() error {
			return master.Build(ctx, master.Spec{Dir: d.master, Log: log, Progress: p.update})
		})
	})
}

func (d *demonstration) startServer(ctx context.Context) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	xml, err := filepath.Abs(description)
	if err != nil {
		return err
	}
	return d.timed("server: dim init, dim serve --cluster "+description+" --as "+serverName, func() (err error) {
		d.cluster, err = lab.Up(ctx, lab.ClusterSpec{
			Name: fmt.Sprintf("dim-demo-%d", os.Getpid()), Dir: filepath.Join(d.dir, "lab"), Bin: bin,
			Master: d.master, MasterAt: masterAt, Description: xml, Server: serverName, Address: serverAddr,
		})
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(d.master, "root/.ssh/authorized_keys"), []byte(d.cluster.Key+"\n"), 0o600)
	})
}

func (d *demonstration) capture(ctx context.Context) error {
	return d.timed("dim image capture "+image+" --rollout now", func() error {
		return d.dim(ctx, "image", "capture", image, "--rollout", "now")
	})
}

// dim runs the dim command and prints its output.
func (d *demonstration) dim(ctx context.Context, args ...string) error {
	out, err := d.cluster.Dim(ctx, args...)
	for line := range strings.Lines(strings.TrimSpace(out)) {
		d.printf("    %s", strings.TrimRight(line, "\n"))
	}
	return err
}

func (d *demonstration) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for _, n := range nodes {
		tap, err := d.cluster.Net.Tap(n.name)
		if err != nil {
			return err
		}
		g, err := lab.StartGuest(context.WithoutCancel(ctx), lab.GuestSpec{
			Name: n.name, Net: d.cluster.Net, Firmware: lab.BIOS, NICs: []lab.NIC{{Tap: tap, MAC: n.mac}},
			Log: filepath.Join(d.dir, n.name+".log"),
		})
		if err != nil {
			return err
		}
		d.guests = append(d.guests, g)
		d.printf("%s: power on (QEMU, BIOS, PXE; no disk)", n.name)
	}
	watchCtx, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	for _, n := range nodes {
		watchers.Go(func() { d.printStages(watchCtx, n) })
	}
	defer func() { stop(); watchers.Wait() }()
	return forEachNode(func(n node) error {
		out, err := d.cluster.SSH.Await(ctx, n.addr, "hostname")
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		d.printf("ssh %s hostname: %s", n.name, strings.TrimSpace(out))
		if strings.TrimSpace(out) != n.name {
			return fmt.Errorf("%s has the host name %q", n.name, out)
		}
		const isRunning = "systemctl is-system-running --wait || { systemctl --failed; false; }"
		state, err := d.cluster.SSH.Await(ctx, n.addr, isRunning)
		d.printf("ssh %s systemctl is-system-running: %s", n.name, strings.TrimSpace(state))
		return err
	})
}

// printStages prints the stages of a node's boot that the server reports, until ctx ends.
func (d *demonstration) printStages(ctx context.Context, n node) {
	var seen int
	for ctx.Err() == nil {
		var view struct {
			Details struct {
				Stages []struct {
					Stage, Text string
					Time        time.Time
				}
			}
		}
		if err := d.cluster.DimJSON(ctx, &view, "node", "show", n.name); err == nil {
			for ; seen < len(view.Details.Stages); seen++ {
				st := view.Details.Stages[seen]
				d.printf("%s: %-10s %s", n.name, st.Stage, st.Text)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// forEachNode calls f for all nodes concurrently.
func forEachNode(f func(node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// checkIsolation checks that nodes do not see each other's changes and cannot write to shared paths.
func (d *demonstration) checkIsolation(ctx context.Context) error {
	if _, err := d.cluster.SSH.Run(ctx, "10.77.0.11", "echo mine > /root/only-on-n01"); err != nil {
		return err
	}
	d.printf("n01 has written /root/only-on-n01")
	out, err := d.cluster.SSH.Run(ctx, "10.77.0.12", "test ! -e /root/only-on-n01 && ls -la /root")
	if err != nil {
		return fmt.Errorf("n02 sees the file of n01: %s %w", out, err)
	}
	d.printf("n02 does not see it")
	if out, err := d.cluster.SSH.Run(ctx, "10.77.0.11", "touch /usr/x 2>&1; test ! -e /usr/x"); err == nil {
		d.printf("n01, touch /usr/x: %s", strings.TrimSpace(out))
	} else {
		return fmt.Errorf("n01 can write to /usr: %w", err)
	}
	return d.dim(ctx, "node", "ls")
}

// changeMaster changes a file in the master and waits until all nodes show it.
func (d *demonstration) changeMaster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	const line = "changed in the master"
	// A loop on each node looks for the change: ssh is slow to start under emulation and must not be measured.
	seen := make(chan error, len(nodes))
	started := make(chan struct{}, len(nodes))
	for _, n := range nodes {
		go func() {
			started <- struct{}{}
			_, err := d.cluster.SSH.Run(ctx, n.addr, "until grep -q '"+line+"' /etc/motd; do sleep 0.1; done")
			if err == nil {
				d.printf("%s shows the new line", n.name)
			}
			seen <- err
		}()
	}
	for range nodes {
		<-started
	}
	time.Sleep(5 * time.Second)
	d.printf("master: echo '%s' >> /etc/motd", line)
	f, err := os.OpenFile(filepath.Join(d.master, "etc/motd"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.capture(ctx); err != nil {
		return err
	}
	captured := time.Now()
	for range nodes {
		if err := <-seen; err != nil {
			return err
		}
	}
	d.printf("all running nodes show it %.1f s after the capture ended (they cache attributes for 3 s)",
		time.Since(captured).Seconds())
	return d.dim(ctx, "status")
}

// waitForInterrupt prints how to use the cluster and waits until it is interrupted.
func (d *demonstration) waitForInterrupt(ctx context.Context) {
	d.printf("KEEP is set: the cluster runs until you press ^C. Try in another terminal:")
	prefix := "ip netns exec " + d.cluster.Net.Name
	d.printf("    %s bin/dim node ls --data %s", prefix, filepath.Join(d.dir, "lab/data"))
	d.printf("    %s ssh -i %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@%s",
		prefix, d.cluster.SSH.Key, nodes[0].addr)
	d.printf("    the master is %s, the serial consoles are %s/*.log", d.master, d.dir)
	<-ctx.Done()
}

func (d *demonstration) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return d.timed("nodes: systemctl poweroff", func() error {
		for i, n := range nodes {
			// The command fails because the connection breaks.
			_, _ = d.cluster.SSH.Run(ctx, n.addr, "systemctl poweroff")
			if err := d.guests[i].Wait(ctx); err != nil {
				return err
			}
			d.printf("%s is off", n.name)
		}
		return nil
	})
}

// printLogs prints the ends of the consoles and of the logs, after a failure.
func (d *demonstration) printLogs() {
	for i, g := range d.guests {
		fmt.Printf("--- console of %s ---\n%s", nodes[i].name, g.Tail(25))
	}
	for _, name := range []string{"lab/serve.log", "master.log"} {
		text, err := os.ReadFile(filepath.Join(d.dir, name))
		if err == nil {
			fmt.Printf("--- %s ---\n%s", name, tail(text))
		}
	}
}

// tail returns the end of a log.
func tail(text []byte) []byte { return text[max(0, len(text)-4000):] }

func (d *demonstration) close() error {
	for _, g := range d.guests {
		g.Kill()
	}
	var err error
	if d.cluster != nil {
		err = d.cluster.Down()
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}
