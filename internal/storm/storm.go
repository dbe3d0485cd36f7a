// Package storm makes a load test: it lets simulated nodes boot from servers that run, verifies what they read, and
// measures what that takes.
//
// A server lends each simulated node a root (control.StormBackend). The node gets its boot files and its root over the
// protocols that a real one uses, and makes the calls that package bootload has recorded. The servers measure what they
// use meanwhile.
//
// # What it must not know
//
// How images are stored, and how the API is transported.
package storm

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/bootload"
	"dim/internal/capacity"
	"dim/internal/control"
	"dim/internal/procstat"
)

// Options say what load to make. Nodes and Listen are needed.
type Options struct {
	Nodes   int
	Servers []string      // from which the nodes boot; none: from this machine's
	Version string        // NAME[@NUMBER|@TAG]; "": what most nodes of a server follow
	Rate    float64       // nodes that begin to boot in a second; 0: all at once
	Limit   time.Duration // after which what still runs is ended; 0: none
	Seed    uint64        // of all random choices
	// Listen is net.ListenPacket: only programs open listening sockets.
	Listen func(network, address string) (net.PacketConn, error)
	// Progress is called about once a second, never concurrently; nil: nobody looks.
	Progress func(Progress)
}

// Progress is how far a load test is.
type Progress struct {
	Nodes, Booting, Done, Failed int
	Bytes                        uint64
	Took                         time.Duration
}

// Result is what a load test has measured.
type Result struct {
	Nodes   int              `json:"node_count"`
	Ref     string           `json:"reference"`
	Took    float64          `json:"took_seconds"`
	Failed  int              `json:"failed_nodes"`
	Wrong   int              `json:"wrong_files"` // files whose bytes were not those of the version
	Maker   Maker            `json:"load_maker"`
	Servers []Server         `json:"storm_servers"`
	Verdict capacity.Verdict `json:"limit"`
	Plan    *capacity.Plan   `json:"plan,omitempty"`
}

// Maker is what the load maker itself has used.
type Maker struct {
	CPUs  int     `json:"cpus"`
	CPU   float64 `json:"cpu_seconds"`
	Share float64 `json:"share"` // of its machine's processors that were busy, by whatever
}

// Server is what was measured of one server.
type Server struct {
	capacity.Use
	Begun   int      `json:"begun_nodes"`
	Failed  int      `json:"failed_nodes"`
	Wrong   int      `json:"wrong_files"`
	Calls   uint64   `json:"calls"`
	CallP50 float64  `json:"call_p50_seconds"`
	CallP99 float64  `json:"call_p99_seconds"`
	BootP50 float64  `json:"boot_p50_seconds"` // of a whole boot
	BootP99 float64  `json:"boot_p99_seconds"`
	Memory  uint64   `json:"memory_bytes"`          // of the server process, the most that was seen
	Skipped []string `json:"skipped,omitempty"`     // steps of a boot that were left out, with why
	Errors  []string `json:"causes,omitempty"`      // why nodes failed, each cause once
	Lost    string   `json:"ended_early,omitempty"` // why the server could not be measured to the end
}

// inFlight is the number of calls that a node has in flight. A Linux client has up to 64.
const inFlight = 8

// maxRemote is the most nodes that boot from another machine: each needs a port that only the superuser has.
const maxRemote = 400

// Plan returns what a load test would do, for each server, without doing anything. The nodes are divided as the real
// ones are.
func Plan(ctx context.Context, b control.StormBackend, o Options) (list []control.Storm, err error) {
	servers := o.Servers
	if len(servers) == 0 {
		servers = []string{""}
	}
	if o.Nodes < len(servers) {
		return nil, control.Errorf(control.Invalid, "storm: %d nodes cannot boot from %d servers", o.Nodes,
			len(servers))
	}
	var declared []int
	for _, name := range servers {
		s, err := b.BeginStorm(ctx, o.request(name, 1, true))
		if err != nil {
			return nil, about(name, err)
		}
		declared = append(declared, s.Declared)
	}
	for i, n := range divide(o.Nodes, declared) {
		s, err := b.BeginStorm(ctx, o.request(servers[i], n, true))
		if err != nil {
			return nil, about(servers[i], err)
		}
		if t := (&target{Storm: s}); !t.onLoopback() && n > maxRemote {
			return nil, control.Errorf(control.Invalid, "storm: %d nodes for %s: from another machine %d at most", n,
				s.Server, maxRemote).WithHint("take fewer nodes, or run the test on that server")
		}
		list = append(list, s)
	}
	return list, nil
}

func (o *Options) request(server string, nodes int, dry bool) control.StormRequest {
	return control.StormRequest{Server: server, Nodes: nodes, Version: o.Version, Seed: o.Seed, DryRun: dry}
}

// about adds the server to an error of it that does not name it.
func about(server string, err error) error {
	e, ok := errors.AsType[*control.Error](err)
	if server == "" || !ok || slices.Contains(strings.Fields(e.Message), server) {
		return err
	}
	c := *e
	c.Message = server + ": " + c.Message
	return &c
}

// divide divides n nodes, at least one each, in proportion to weights.
func divide(n int, weights []int) []int {
	shares, left, sum := make([]int, len(weights)), n, 0
	for _, w := range weights {
		sum += max(w, 1)
	}
	for i, w := range weights {
		rest := len(weights) - i - 1
		share := int(math.Round(float64(left) * float64(max(w, 1)) / float64(sum)))
		shares[i] = max(1, min(share, left-rest))
		left -= shares[i]
		sum -= max(w, 1)
	}
	return shares
}

// Run makes the load and returns what was measured. The error is that of ctx if that ended, else of a server that does
// not lend roots. That nodes failed is no error. Whatever it returns, nothing of the load test is left on the servers.
func Run(ctx context.Context, b control.StormBackend, o Options) (*Result, error) {
	planned, err := Plan(ctx, b, o)
	if err != nil {
		return nil, err
	}
	var targets []*target
	defer func() { finish(ctx, targets) }()
	for _, p := range planned {
		// What has begun on the server must be known here, to be ended.
		server := p.Server
		if len(o.Servers) == 0 {
			server = ""
		}
		s, err := b.BeginStorm(context.WithoutCancel(ctx), o.request(server, p.Nodes, false))
		if err != nil {
			return nil, about(server, err)
		}
		t := &target{Storm: s, backend: b, opt: &o}
		targets = append(targets, t)
		if err := t.prepare(ctx); err != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if o.Limit > 0 {
		limited, cancel = context.WithTimeoutCause(ctx, o.Limit, errLate)
	}
	defer cancel()
	r := &Result{Nodes: o.Nodes, Ref: planned[0].Ref, Maker: Maker{CPUs: runtime.NumCPU()}}
	before, own := busy(), procstat.CPUTime(os.Getpid())
	began := time.Now()
	runAll(limited, targets)
	r.Took = time.Since(began).Seconds()
	r.Maker.CPU = procstat.CPUTime(os.Getpid()) - own
	r.Maker.Share = (busy() - before) / (r.Took * float64(r.Maker.CPUs))
	finish(ctx, targets)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, t := range targets {
		r.Servers = append(r.Servers, t.result(r.Maker.CPU))
	}
	r.judge()
	return r, nil
}

// runAll lets the nodes of all targets boot.
func runAll(ctx context.Context, targets []*target) {
	polled, stop := context.WithCancel(ctx)
	var polls, nodes sync.WaitGroup
	for _, t := range targets {
		polls.Go(func() { t.poll(polled) })
	}
	polls.Go(func() { show(polled, targets) })
	for _, t := range targets {
		nodes.Go(func() { t.run(ctx) })
	}
	nodes.Wait()
	stop()
	polls.Wait()
}

// show tells how far the load test is.
func show(ctx context.Context, targets []*target) {
	opt, began := targets[0].opt, time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for opt.Progress != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p := Progress{Nodes: opt.Nodes, Took: time.Since(began)}
		for _, t := range targets {
			done, failed := int(t.done.Load()), int(t.failed.Load())
			p.Done += done
			p.Failed += failed
			p.Booting += int(t.begun.Load()) - done - failed
			p.Bytes += t.meter.Read.Load() + t.payload.Load()
		}
		opt.Progress(p)
	}
}

// finish ends the load test on all servers, once.
func finish(ctx context.Context, targets []*target) {
	var all sync.WaitGroup
	for _, t := range targets {
		all.Go(func() { t.ended.Do(func() { t.finish(ctx) }) })
	}
	all.Wait()
}

var errLate = errors.New("the time of the load test was over")

// busy returns the CPU time that this machine has used.
func busy() float64 {
	m, _ := procstat.ReadMachine() // /proc/stat is always there
	return m.CPU
}

func (r *Result) judge() {
	var uses []capacity.Use
	for i := range r.Servers {
		s := &r.Servers[i]
		r.Failed += s.Failed
		r.Wrong += s.Wrong
		uses = append(uses, s.Use)
	}
	r.Verdict = capacity.Judge(uses, r.Maker.Share)
}

// PlanFor adds a plan to the result, if a node has booted.
func (r *Result) PlanFor(g capacity.Goal) {
	var uses []capacity.Use
	for i := range r.Servers {
		uses = append(uses, r.Servers[i].Use)
	}
	if p, ok := capacity.PlanFor(uses, g); ok {
		r.Plan = &p
	}
}

// target is one server, with the nodes that boot from it.
type target struct {
	control.Storm
	backend control.StormBackend
	opt     *Options
	sample  []bootload.File
	boot    bootSource
	meter   bootload.Meter
	payload atomic.Uint64 // bytes of boot files
	took    time.Duration // until no node booted any more
	ended   sync.Once

	begun, done, failed, wrong atomic.Int64

	mu    sync.Mutex
	boots []time.Duration // of the nodes that are done
	cause []string        // of failures
	first control.StormUsage
	last  control.StormUsage
	most  uint64 // memory
	lost  string
}

// prepare makes ready what all nodes share, and reads what the server has used until now.
func (t *target) prepare(ctx context.Context) (err error) {
	for _, f := range t.Files {
		x := bootload.File{Path: f.Path, Size: f.Size}
		if n, err := hex.Decode(x.Digest[:], []byte(f.Digest)); err != nil || n != len(x.Digest) {
			return fmt.Errorf("storm: %s sends %q as the digest of %s", t.Server, f.Digest, f.Path)
		}
		t.sample = append(t.sample, x)
	}
	if err := t.boot.open(ctx, t); err != nil {
		return err
	}
	t.first, err = t.backend.StormUsage(ctx, t.ID)
	t.last = t.first
	return err
}

// pollInterval is the interval between looks at what a server uses, and between two calls of Progress.
const pollInterval = time.Second

// run lets all nodes of a target boot, and returns when none boots any more.
func (t *target) run(ctx context.Context) {
	began := time.Now()
	var nodes sync.WaitGroup
	pace := time.NewTicker(t.gap())
	defer pace.Stop()
	for i := range t.Nodes {
		if i > 0 && t.opt.Rate > 0 {
			select {
			case <-ctx.Done():
			case <-pace.C:
			}
		}
		if ctx.Err() != nil {
			break
		}
		nodes.Go(func() { t.node(ctx, i) })
	}
	nodes.Wait()
	t.took = time.Since(began)
	u, err := t.backend.StormUsage(context.WithoutCancel(ctx), t.ID) // others may go on for longer
	t.used(u, err)
}

// gap is the time between two nodes of a target. All targets together have the rate that was asked for.
func (t *target) gap() time.Duration {
	if t.opt.Rate <= 0 {
		return time.Hour
	}
	rate := t.opt.Rate * float64(t.Nodes) / float64(t.opt.Nodes)
	return max(time.Duration(float64(time.Second)/rate), 1)
}

func (t *target) node(ctx context.Context, number int) {
	t.begun.Add(1)
	began := time.Now()
	err := t.bootNode(ctx, number)
	took := time.Since(began)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.done.Add(1)
		t.boots = append(t.boots, took)
		return
	}
	t.failed.Add(1)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // what ended in the middle has many words for it
	}
	t.note(err)
}

// maxCauses is how many causes of failures are kept.
const maxCauses = 5

// note keeps why a node failed, each text once.
func (t *target) note(err error) {
	for _, e := range parts(err) {
		if errors.Is(e, bootload.ErrWrongBytes) {
			t.wrong.Add(1)
		}
		known := false
		for _, c := range t.cause {
			known = known || c == e.Error()
		}
		if !known && len(t.cause) < maxCauses {
			t.cause = append(t.cause, e.Error())
		}
	}
}

// parts returns the errors of which err is joined.
func parts(err error) (list []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, parts(e)...)
		}
		return list
	}
	return []error{err}
}

// poll reads what the server uses, for its memory, and to keep the load test alive there.
func (t *target) poll(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		u, err := t.backend.StormUsage(ctx, t.ID)
		if ctx.Err() != nil {
			return
		}
		t.used(u, err)
	}
}

// used notes what the server has used.
func (t *target) used(u control.StormUsage, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.lost = err.Error()
		return
	}
	t.last, t.lost = u, ""
	t.most = max(t.most, u.Memory)
}

// finish ends the load test on the server, also when ctx has ended.
func (t *target) finish(ctx context.Context) {
	t.boot.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, err := t.backend.EndStorm(ctx, t.ID); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.lost = cmp.Or(t.lost, err.Error())
	}
}

func (t *target) result(maker float64) Server {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.onLoopback() {
		maker = 0 // it is on another machine
	}
	u, v := &t.first, &t.last
	s := Server{
		Use: capacity.Use{
			Server: t.Server, Nodes: int(t.done.Load()), Seconds: t.took.Seconds(), CPUs: t.Machine.CPUs,
			CPU: v.CPU - u.CPU, Machine: v.Machine - u.Machine, Maker: maker,
			Payload: t.meter.Read.Load() + t.payload.Load(), Sent: v.Sent - u.Sent, Link: t.Machine.Link,
			Read: v.DiskRead - u.DiskRead, Written: v.DiskWritten - u.DiskWritten, DiskBusy: v.DiskBusy - u.DiskBusy,
			NoDisk: v.NoDisk,
		},
		Begun: int(t.begun.Load()), Failed: int(t.failed.Load()), Wrong: int(t.wrong.Load()),
		Calls:   t.meter.Calls.Load(),
		CallP50: t.meter.Quantile(0.5).Seconds(), CallP99: t.meter.Quantile(0.99).Seconds(),
		BootP50: quantile(t.boots, 0.5), BootP99: quantile(t.boots, 0.99),
		Memory: t.most, Skipped: t.boot.skipped, Errors: t.cause, Lost: t.lost,
	}
	return s
}

// quantile returns the time within which the q-th part of boots ended, in seconds.
func quantile(boots []time.Duration, q float64) float64 {
	if len(boots) == 0 {
		return 0
	}
	slices.Sort(boots)
	return boots[int(math.Ceil(q*float64(len(boots))))-1].Seconds()
}
