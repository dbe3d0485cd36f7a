package daemon

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/meter"
	"dim/internal/oncrpc"
)

// class is a kind of node whose calls are counted apart: one image, one set of groups. Thousands of nodes are few classes.
type class struct{ image, groups string }

// classesMax bounds the classes that are told apart: a description may put every node into a group of its own.
const classesMax = 64

// classes are the classes of the nodes that this server has served, numbered from 1.
type classes struct {
	mu  sync.Mutex
	all map[class]meter.Class
}

// of returns the class of node n when it runs im.
func (c *classes) of(n *cluster.Node, im *cluster.Image) meter.Class {
	var groups []string
	for _, g := range n.Groups {
		groups = append(groups, g.Name)
	}
	slices.Sort(groups)
	return c.get(class{string(im.Name), strings.Join(groups, ",")})
}

func (c *classes) get(k class) meter.Class {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= classesMax && c.all[k] == 0 {
		k = class{"other", ""}
	}
	if c.all[k] == 0 {
		if c.all == nil {
			c.all = map[class]meter.Class{}
		}
		c.all[k] = meter.Class(len(c.all) + 1)
	}
	return c.all[k]
}

// each calls f for every class there is.
func (c *classes) each(f func(class, meter.Class)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, of := range c.all {
		f(k, of)
	}
}

// newMeter returns the meter of node n's replica of im, which goes on with what old, if there is one, has counted.
func (d *daemon) newMeter(n *cluster.Node, im *cluster.Image, old *export) *meter.Meter {
	m := &meter.Meter{Counts: new(meter.Counts), Class: d.classes.of(n, im)}
	if old != nil && old.meter != nil {
		m.Counts = old.meter.Counts
	}
	return m
}

// metricsHandler serves what is counted to those who may know it: programs on this machine, and hosts of admin networks.
func (d *daemon) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{d})
	show := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.maySeeMetrics(r) {
			http.Error(w, "metrics are for this machine and for admin networks", http.StatusForbidden)
			return
		}
		show.ServeHTTP(w, r)
	})
}

// maySeeMetrics reports whether the caller may read the metrics: this machine and hosts of admin networks, but no node whatever
// network it is on, because metrics tell of other nodes.
func (d *daemon) maySeeMetrics(r *http.Request) bool {
	peer, err := caller.OfRequest(r)
	if err != nil {
		return false
	}
	who, err := caller.Resolve(d.cluster(), peer)
	return err == nil && who.Node == nil && (who.Local || who.Admin)
}

// collector makes metrics of what is counted when it is asked.
type collector struct{ d *daemon }

var procLabels = []string{"program", "procedure", "image", "groups"}

func describeMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dim_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector. It says nothing: what there is follows from the cluster.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	d := c.d
	collectCalls(out, d.rpc.ClassStats(0), class{})
	d.classes.each(func(k class, of meter.Class) { collectCalls(out, d.rpc.ClassStats(of), k) })
	s := d.rpc.Stats()
	gauge := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(describeMetric(name, help), prometheus.GaugeValue, v)
	}
	gauge("nfs_connections", "Connections that are open now.", float64(s.Conns))
	gauge("nfs_buffer_bytes", "Memory of large buffers in use.", float64(s.Memory))
	for name, n := range d.counted(&s) {
		out <- prometheus.MustNewConstMetric(describeMetric(name, countedHelp[name]), prometheus.CounterValue, float64(n))
	}
	refused := describeMetric("nfs_refused_total", "What was turned away, by the reason.", "reason")
	for reason, n := range d.refusals(&s) {
		out <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(n), reason)
	}
	stages := map[string]int{}
	now := d.declared()
	for _, n := range now.cluster.Nodes {
		stages[d.node(now, n).Stage]++
	}
	nodes := describeMetric("nodes", "Declared nodes by the stage that they are in.", "stage")
	for stage, n := range stages {
		out <- prometheus.MustNewConstMetric(nodes, prometheus.GaugeValue, float64(n), stage)
	}
	for _, disk := range d.disks() {
		gauge("disk_free_bytes", "Room on the disk of the data directory.", float64(disk.BytesFree))
		gauge("disk_bytes", "Size of the disk of the data directory.", float64(disk.Bytes))
	}
}

var countedHelp = map[string]string{
	"nfs_connections_total": "Connections since the start.",
	"nfs_repeated_total":    "Calls answered from the replies kept for clients that repeat them.",
	"nfs_relieved_total":    "Calls that waited for a disk so long that others were served by another thread meanwhile.",
	"sync_waits_total":      "Times that a call waited for the disk.",
	"sync_flushes_total":    "Flushes of the disk that were made for them: one serves all who wait.",
	"sync_failures_total":   "Flushes that failed.",
}

func (d *daemon) counted(s *oncrpc.Stats) map[string]uint64 {
	waits, flushes, failures := d.set.Flushes()
	return map[string]uint64{
		"nfs_connections_total": s.Accepted, "nfs_repeated_total": s.Repeated, "nfs_relieved_total": s.HandedOver,
		"sync_waits_total": waits, "sync_flushes_total": flushes, "sync_failures_total": failures,
	}
}

func (d *daemon) refusals(s *oncrpc.Stats) map[string]uint64 {
	n := d.nfs.Refused()
	return map[string]uint64{
		"port": n.Port, "export": n.Export, "connections": s.Refused, "stalled": s.Stalled, "malformed": s.Broken, "unknown_call": s.Rejected,
	}
}

// collectCalls makes the metrics of one class's calls.
func collectCalls(out chan<- prometheus.Metric, procs []oncrpc.ProcStats, k class) {
	errs := describeMetric("nfs_errors_total", "Calls that were answered with an error, such as that a name does not exist.", procLabels...)
	in := describeMetric("nfs_received_bytes_total", "Bytes of calls.", procLabels...)
	sent := describeMetric("nfs_sent_bytes_total", "Bytes of replies.", procLabels...)
	took := describeMetric("nfs_call_seconds", "How long calls took, from when they were read to their reply.", procLabels...)
	for _, p := range procs {
		if p.Calls == 0 {
			continue
		}
		labels := []string{p.Program, p.Proc, k.image, k.groups}
		out <- prometheus.MustNewConstMetric(errs, prometheus.CounterValue, float64(p.Errors), labels...)
		out <- prometheus.MustNewConstMetric(in, prometheus.CounterValue, float64(p.BytesIn), labels...)
		out <- prometheus.MustNewConstMetric(sent, prometheus.CounterValue, float64(p.BytesOut), labels...)
		out <- prometheus.MustNewConstHistogram(took, p.Calls, p.Busy.Seconds(), buckets(&p), labels...)
	}
}

// buckets are every second of those that are counted, from 4 µs to 4 s, cumulated.
func buckets(p *oncrpc.ProcStats) map[float64]uint64 {
	list, sum := map[float64]uint64{}, uint64(0)
	for i := range oncrpc.LatencyBuckets - 1 {
		sum += p.Latency[i]
		if i >= 2 && i%2 == 0 {
			list[float64(uint64(1)<<i)/1e6] = sum
		}
	}
	return list
}
