package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/capacity"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/storm"
)

func (a *app) benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure what servers can do"}
	group(cmd)
	cmd.AddCommand(a.stormCommand())
	return cmd
}

// maxStormServers bounds the servers of one load test.
const maxStormServers = 256

// stormFlags are the flags of `dim bench storm` that are no storm.Options.
type stormFlags struct {
	servers string
	dryRun  bool
	plan    int
	within  time.Duration
	link    float64 // Gbit/s
}

func (a *app) stormCommand() *cobra.Command {
	var o storm.Options
	var f stormFlags
	cmd := a.listing(&cobra.Command{
		Use:   "storm N",
		Short: "Let N simulated nodes boot, and tell what limits the server",
		Long: `Lets N simulated nodes boot from the server on this machine, while it serves
its real nodes, and shows what that took and which resource is the limit. With
--plan it also tells how many such servers a number of nodes needs. On a head,
--servers takes other servers, among which the nodes are divided as the real
ones are.

Each simulated node gets the boot files and makes the 10,300 calls of a real
boot: it reads 140 MB, lists 100 directories and makes 300 files. All bytes that
it reads are compared with the digests of the version; a wrong byte is a failure.

The simulated nodes have roots of their own, which the server makes for the time
of the test in DATA/loadtest. Real nodes, their layers and the declared state
are not touched. Real nodes get slower meanwhile: --rate lets the simulated ones
begin one after the other, and --time ends the test. ^C ends it, too. The roots
are removed in any case.

Each server measures its CPU time, network and disk itself. The program that
makes the load uses this machine's processors, too: the output has its share,
and says so when it is the limit.

The exit code is 3 if a node failed or a byte was wrong.`,
		Example: `  dim bench storm 64
  dim bench storm 64 --dry-run             what it would do
  dim bench storm 16 --rate 2 --time 2m    gently, on a cluster in use
  dim bench storm 64 --plan 10000 --within 5m
  dim bench storm 200 --servers 'is[01-04]'`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 {
				return &usageError{
					fmt.Errorf("bench storm: %q is no number of nodes", args[0]), "usage: " + cmd.UseLine(),
				}
			}
			o.Nodes, o.Listen = n, listenShared
			return a.storm(cmd, o, f)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
	flags := cmd.Flags()
	flags.StringVar(&o.Version, "version", "", "`VERSION` to boot, NAME[@VERSION] (default: what most nodes follow)")
	flags.StringVar(&f.servers, "servers", "",
		"`SERVERS` to boot from, such as is[01-04] (default: the one on this machine); on a head")
	flags.Float64Var(&o.Rate, "rate", 0, "how many nodes begin in a second (default: all at once)")
	flags.DurationVar(&o.Limit, "time", 10*time.Minute, "end the test after this time")
	flags.Uint64Var(&o.Seed, "seed", 1, "of the choice of files; the same seed makes the same load")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only tell what would be done")
	flags.IntVar(&f.plan, "plan", 0, "tell how many servers this number of nodes needs")
	flags.DurationVar(&f.within, "within", 3*time.Minute, "time within which the nodes of --plan are to boot")
	flags.Float64Var(&f.link, "link", 10, "`GBIT`/s of a server's link in --plan, if the kernel does not tell")
	return cmd
}

// listenShared is net.ListenPacket for ports of single addresses that a server has on all addresses, as that of DHCP.
func listenShared(network, address string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		})
		return errors.Join(cerr, err)
	}}
	return lc.ListenPacket(context.Background(), network, address)
}

func (a *app) storm(cmd *cobra.Command, o storm.Options, f stormFlags) error {
	if f.plan < 0 || f.within <= 0 || f.link <= 0 || o.Rate < 0 || o.Limit < 0 {
		return &usageError{errors.New("bench storm: a flag has a value below zero"), "--help lists the flags"}
	}
	if f.servers != "" {
		var err error
		if o.Servers, err = nodeset.Expand(f.servers, nodeset.Options{Limit: maxStormServers}); err != nil {
			return &usageError{fmt.Errorf("bench storm: --servers: %w", err), "such as --servers 'is[01-04],is07'"}
		}
	}
	if f.dryRun {
		list, err := storm.Plan(cmd.Context(), a.client(), o)
		if err != nil {
			return err
		}
		return a.show(list, func(w io.Writer) { printStormPlan(w, list, o) })
	}
	p := newProgress(a.err)
	o.Progress = func(at storm.Progress) { p.line(stormLine(at)) }
	r, err := storm.Run(cmd.Context(), a.client(), o)
	p.end()
	if err != nil {
		return err
	}
	if f.plan > 0 {
		r.PlanFor(capacity.Goal{Nodes: f.plan, Seconds: f.within.Seconds(), Link: uint64(f.link * 1e9)})
	}
	if err := a.show(r, func(w io.Writer) { printStorm(w, r) }); err != nil {
		return err
	}
	if r.Failed > 0 || r.Wrong > 0 {
		return errProblems
	}
	return nil
}

// stormLine is the progress of a load test in one line.
func stormLine(at storm.Progress) string {
	line := fmt.Sprintf("storm: %s of %s have booted, %s boot", count(uint64(at.Done)), plural(at.Nodes, "node"),
		count(uint64(at.Booting)))
	if at.Failed > 0 {
		line += fmt.Sprintf(", %s failed", count(uint64(at.Failed)))
	}
	return line + fmt.Sprintf(", %s, %s", size(at.Bytes), at.Took.Round(time.Second))
}

func printStormPlan(w io.Writer, list []control.Storm, o storm.Options) {
	row(w, "SERVER", "REAL NODES", "SIMULATED", "VERSION", "ADDRESS", "BOOT FILES OF", "DISK, AT MOST")
	for i := range list {
		s := &list[i]
		row(w, s.Server, s.Declared, s.Nodes, s.Ref, s.Address, s.As, size(s.Bytes))
	}
	fmt.Fprintln(w, "the simulated nodes boot "+pace(o))
	fmt.Fprintln(w, "nothing was done")
}

func pace(o storm.Options) string {
	text := "all at once"
	if o.Rate > 0 {
		text = fmt.Sprintf("%g in a second", o.Rate)
	}
	if o.Limit > 0 {
		text += ", for " + o.Limit.String() + " at most"
	}
	return text
}

func printStorm(w io.Writer, r *storm.Result) {
	fmt.Fprintf(w, "%s booted %s in %s; what they read was compared with the digests of the version\n",
		plural(r.Nodes-r.Failed, "simulated node"), r.Ref, seconds3(r.Took))
	row(w, "SERVER", "BOOTED", "FAILED", "BOOT P50", "P99", "CALL P50", "P99", "CPU/NODE", "CPU", "NETWORK", "DISK",
		"MEMORY")
	for i := range r.Servers {
		s := &r.Servers[i]
		row(w, s.Server, s.Nodes, s.Failed, seconds3(s.BootP50), seconds3(s.BootP99), seconds3(s.CallP50),
			seconds3(s.CallP99), perNode(s.CPU, s.Nodes), share(s.Share(capacity.CPU)), rate(s.Sent, s.Seconds),
			diskShare(s), size(s.Memory))
	}
	for i := range r.Servers {
		s := &r.Servers[i]
		for _, text := range s.Skipped {
			row(w, s.Server, "left out: "+safe(text))
		}
		for _, text := range s.Errors {
			row(w, s.Server, "failure: "+safe(text))
		}
		if s.Lost != "" {
			row(w, s.Server, "the measurement ended early: "+safe(s.Lost))
		}
	}
	fmt.Fprintf(w, "load maker: %s of CPU time on this machine, whose %s were %s busy\n", seconds3(r.Maker.CPU),
		plural(r.Maker.CPUs, "processor"), share(r.Maker.Share))
	if r.Wrong > 0 {
		fmt.Fprintf(w, "WRONG BYTES in %s: check the store with dim image verify %s\n", plural(r.Wrong, "file"), r.Ref)
	}
	fmt.Fprintln(w, "verdict: "+r.Verdict.Text)
	if r.Verdict.Hint != "" {
		fmt.Fprintln(w, "  "+r.Verdict.Hint)
	}
	if r.Plan != nil {
		printCapacity(w, r.Plan)
	}
}

func printCapacity(w io.Writer, p *capacity.Plan) {
	fmt.Fprintf(w, "plan: %s boot within %s from %s, with %s each; %s decides\n",
		plural(p.Nodes, "node"), time.Duration(p.Seconds*float64(time.Second)), plural(p.Servers, "server"),
		plural(p.PerServer, "node"), p.Limit)
	row(w, "RESOURCE", "A NODE TAKES", "A SERVER HAS", "SERVERS")
	for _, n := range p.Needs {
		takes, has, servers := seconds3(n.Node), fmt.Sprintf("%g CPU s a second", n.Server), count(uint64(n.Servers))
		switch n.Resource {
		case capacity.Network:
			takes, has = size(uint64(n.Node)), size(uint64(n.Server))+"/s"
		case capacity.Disk:
			has = "1 s a second"
		}
		if !n.Known {
			takes, servers = "not measured", "-"
		}
		row(w, n.Resource, takes, has, servers)
	}
	for _, text := range p.Assumptions {
		fmt.Fprintln(w, "assumed: "+text)
	}
}

// seconds3 shows a time with three digits: 12.3 s, 450 ms, 85 µs.
func seconds3(s float64) string {
	switch {
	case s >= 0.9995:
		return fmt.Sprintf("%.3g s", s)
	case s >= 0.0009995:
		return fmt.Sprintf("%.3g ms", 1e3*s)
	}
	return fmt.Sprintf("%.3g µs", 1e6*s)
}

func share(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

func perNode(s float64, nodes int) string {
	if nodes == 0 {
		return ""
	}
	return fmt.Sprintf("%.3f s", s/float64(nodes))
}

func rate(bytes uint64, s float64) string {
	if s <= 0 {
		return ""
	}
	return size(uint64(float64(bytes)/s)) + "/s"
}

func diskShare(s *storm.Server) string {
	if s.NoDisk {
		return ""
	}
	return share(s.Share(capacity.Disk))
}
