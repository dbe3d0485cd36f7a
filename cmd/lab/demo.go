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
)

// The demonstration is of examples/small.xml; these are its facts.
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

// show is one run of the demonstration.
type show struct {
	start   time.Time
	dir     string
	master  string
	cluster *lab.Cluster
	guests  []*lab.Guest

	mu sync.Mutex // guards the terminal
}

func demo(ctx context.Context) (err error) {
	if os.Getuid() != 0 {
		return errors.New("the demonstration needs root: it makes a network namespace, mounts and device nodes")
	}
	dir, err := os.MkdirTemp("/var/tmp", "dim-demo-")
	if err != nil {
		return err
	}
	s := &show{start: time.Now(), dir: dir, master: filepath.Join(dir, "master")}
	defer func() {
		if err != nil {
			s.explain()
		}
		s.say("cleaning up")
		err = errors.Join(err, s.close())
	}()
	for _, act := range []func(context.Context) error{s.install, s.raise, s.capture, s.boot, s.isolate, s.change} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	if os.Getenv("KEEP") != "" {
		s.keep(ctx)
		return nil
	}
	return s.shutdown(ctx)
}

// say prints a line with the seconds since the start.
func (s *show) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("%7.1fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// took runs do and says how long it took.
func (s *show) took(what string, do func() error) error {
	s.say("%s …", what)
	begin := time.Now()
	if err := do(); err != nil {
		return err
	}
	s.say("%s: %.1f s", what, time.Since(begin).Seconds())
	return nil
}

func (s *show) install(ctx context.Context) error {
	return s.took("master: installing Debian 12 with mmdebstrap", func() error {
		log, err := os.Create(filepath.Join(s.dir, "master.log"))
		if err != nil {
			return err
		}
		defer log.Close()
		return lab.BuildMaster(ctx, lab.MasterSpec{Dir: s.master, Log: log})
	})
}

func (s *show) raise(ctx context.Context) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	xml, err := filepath.Abs(description)
	if err != nil {
		return err
	}
	return s.took("server: dim init, dim serve --cluster "+description+" --as "+serverName, func() (err error) {
		s.cluster, err = lab.Up(ctx, lab.ClusterSpec{
			Name: fmt.Sprintf("dim-demo-%d", os.Getpid()), Dir: filepath.Join(s.dir, "lab"), Bin: bin, Master: s.master, MasterAt: masterAt,
			Description: xml, Server: serverName, Address: serverAddr,
		})
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(s.master, "root/.ssh/authorized_keys"), []byte(s.cluster.Key+"\n"), 0o600)
	})
}

func (s *show) capture(ctx context.Context) error {
	return s.took("dim image capture "+image+" --rollout now", func() error { return s.dim(ctx, "image", "capture", image, "--rollout", "now") })
}

// dim runs the dim command and shows what it prints.
func (s *show) dim(ctx context.Context, args ...string) error {
	out, err := s.cluster.Dim(ctx, args...)
	for line := range strings.Lines(strings.TrimSpace(out)) {
		s.say("    %s", strings.TrimRight(line, "\n"))
	}
	return err
}

func (s *show) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for _, n := range nodes {
		tap, err := s.cluster.Net.Tap(n.name)
		if err != nil {
			return err
		}
		g, err := lab.StartGuest(ctx2(ctx), lab.GuestSpec{
			Name: n.name, Net: s.cluster.Net, Firmware: lab.BIOS, NICs: []lab.NIC{{Tap: tap, MAC: n.mac}},
			Log: filepath.Join(s.dir, n.name+".log"),
		})
		if err != nil {
			return err
		}
		s.guests = append(s.guests, g)
		s.say("%s: power on (QEMU, BIOS, PXE; no disk)", n.name)
	}
	watch, done := context.WithCancel(ctx)
	var watching sync.WaitGroup
	for _, n := range nodes {
		watching.Go(func() { s.stages(watch, n) })
	}
	defer func() { done(); watching.Wait() }()
	return s.each(func(n node) error {
		out, err := s.cluster.SSH.Await(ctx, n.addr, "hostname")
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		s.say("ssh %s hostname: %s", n.name, strings.TrimSpace(out))
		if strings.TrimSpace(out) != n.name {
			return fmt.Errorf("%s says that it is %q", n.name, out)
		}
		state, err := s.cluster.SSH.Await(ctx, n.addr, "systemctl is-system-running --wait || { systemctl --failed; false; }")
		s.say("ssh %s systemctl is-system-running: %s", n.name, strings.TrimSpace(state))
		return err
	})
}

// ctx2 detaches a guest's life from the bound on its boot.
func ctx2(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

// stages says each stage of a node's boot as the server hears of it.
func (s *show) stages(ctx context.Context, n node) {
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
		if err := s.cluster.DimJSON(ctx, &view, "node", "show", n.name); err == nil {
			for ; seen < len(view.Details.Stages); seen++ {
				st := view.Details.Stages[seen]
				s.say("%s: %-10s %s", n.name, st.Stage, st.Text)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// each does something for all nodes at once.
func (s *show) each(do func(node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *show) isolate(ctx context.Context) error {
	if _, err := s.cluster.SSH.Run(ctx, "10.77.0.11", "echo mine > /root/only-on-n01"); err != nil {
		return err
	}
	s.say("n01 has written /root/only-on-n01")
	out, err := s.cluster.SSH.Run(ctx, "10.77.0.12", "test ! -e /root/only-on-n01 && ls -la /root")
	if err != nil {
		return fmt.Errorf("n02 sees what n01 wrote: %s %w", out, err)
	}
	s.say("n02 does not see it")
	if out, err := s.cluster.SSH.Run(ctx, "10.77.0.11", "touch /usr/x 2>&1; test ! -e /usr/x"); err == nil {
		s.say("n01, touch /usr/x: %s", strings.TrimSpace(out))
	} else {
		return fmt.Errorf("n01 can write to /usr: %w", err)
	}
	return s.dim(ctx, "node", "ls")
}

func (s *show) change(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	const line = "changed in the master"
	// The nodes look by themselves; ssh is slow to start under emulation and must not be in the measurement.
	seen := make(chan error, len(nodes))
	looking := make(chan struct{}, len(nodes))
	var captured time.Time
	for _, n := range nodes {
		go func() {
			looking <- struct{}{}
			_, err := s.cluster.SSH.Run(ctx, n.addr, "until grep -q '"+line+"' /etc/motd; do sleep 0.1; done")
			if err == nil {
				s.say("%s shows the new line", n.name)
			}
			seen <- err
		}()
	}
	for range nodes {
		<-looking
	}
	time.Sleep(5 * time.Second)
	s.say("master: echo '%s' >> /etc/motd", line)
	f, err := os.OpenFile(filepath.Join(s.master, "etc/motd"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.capture(ctx); err != nil {
		return err
	}
	captured = time.Now()
	for range nodes {
		if err := <-seen; err != nil {
			return err
		}
	}
	s.say("seen on all running nodes %.1f s after the capture ended (the nodes' kernels look again every 3 s)", time.Since(captured).Seconds())
	return s.dim(ctx, "status")
}

// keep leaves everything up until it is interrupted.
func (s *show) keep(ctx context.Context) {
	s.say("KEEP: the cluster stays until you press ^C. For example, in another terminal:")
	prefix := "ip netns exec " + s.cluster.Net.Name
	s.say("    %s bin/dim node ls --data %s", prefix, filepath.Join(s.dir, "lab/data"))
	s.say("    %s ssh -i %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@%s", prefix, s.cluster.SSH.Key, nodes[0].addr)
	s.say("    the master is %s, the serial consoles are %s/*.log", s.master, s.dir)
	<-ctx.Done()
}

func (s *show) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return s.took("nodes: systemctl poweroff", func() error {
		for i, n := range nodes {
			// The connection breaks under the command.
			_, _ = s.cluster.SSH.Run(ctx, n.addr, "systemctl poweroff")
			if err := s.guests[i].Wait(ctx); err != nil {
				return err
			}
			s.say("%s is off", n.name)
		}
		return nil
	})
}

// explain shows what is known of a demonstration that failed: the ends of the consoles and of the server's log.
func (s *show) explain() {
	for i, g := range s.guests {
		fmt.Printf("--- console of %s ---\n%s", nodes[i].name, g.Tail(25))
	}
	for _, name := range []string{"lab/serve.log", "master.log"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err == nil {
			fmt.Printf("--- %s ---\n%s", name, text[max(0, len(text)-4000):])
		}
	}
}

func (s *show) close() error {
	for _, g := range s.guests {
		g.Kill()
	}
	var err error
	if s.cluster != nil {
		err = s.cluster.Down()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
