// Package metrics exports the counters of this server in the format of Prometheus. docs/guide/metrics.md explains every
// series.
//
// It keeps nothing but Classes: it asks Sources each time it is read.
package metrics

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/dhcp"
	"dim/internal/meter"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/problems"
	"dim/internal/replicate"
	"dim/internal/tftp"
)

// RPC counts the calls of all programs. oncrpc.Server implements it.
type RPC interface {
	// ClassStats returns the counters of the calls of a class; class 0 is those of no node.
	ClassStats(meter.Class) []oncrpc.ProcStats
	// Stats returns the counters of the connections.
	Stats() oncrpc.Stats
}

// NFS counts what it refuses. nfs.Server implements it.
type NFS interface{ Refused() nfs.Refusals }

// Sources are what the metrics are made of. All are needed.
type Sources struct {
	Cluster func() *cluster.Cluster
	RPC     RPC
	NFS     NFS
	Classes *Classes
	Flushes func() (waits, flushes, failures uint64) // of the disk, for calls of nodes
	Stages  func() map[string]int                    // how many declared nodes are in each stage
	Disks   func() []control.Disk
	DHCP    func() dhcp.Stats
	TFTP    func() tftp.Stats
	Lost    func() map[string]uint64           // messages that the kernel dropped, by service
	Closed  func() map[string]uint64           // connections that were closed at accept, by service
	Pulled  func() map[string]replicate.Counts // from other servers, by their names

	Problems func(context.Context) []problems.Problem // of this server itself
}

// problemsTimeout bounds the search for problems. A disk that hangs takes longer; its problem is told then.
const problemsTimeout = 2 * time.Second

// Handler serves the metrics to programs on this machine and to hosts of admin networks.
func Handler(s Sources) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{s})
	show := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !mayRead(s.Cluster(), r) {
			http.Error(w, "metrics are for this machine and for admin networks", http.StatusForbidden)
			return
		}
		show.ServeHTTP(w, r)
	})
}

// mayRead reports whether the caller may read the metrics. No node may, whatever network it is on, because metrics tell
// of other nodes.
func mayRead(c *cluster.Cluster, r *http.Request) bool {
	peer, err := caller.OfRequest(r)
	if err != nil {
		return false
	}
	who, err := caller.Resolve(c, peer)
	return err == nil && who.Node == nil && (who.Local || who.Admin)
}

// collector makes metrics of the sources whenever it is asked.
type collector struct{ Sources }

// Describe implements prometheus.Collector. It sends nothing, because the series depend on the cluster.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	collectCalls(out, c.RPC.ClassStats(0), class{})
	c.Classes.each(func(k class, of meter.Class) { collectCalls(out, c.RPC.ClassStats(of), k) })
	s := c.RPC.Stats()
	out <- gauge(describe("nfs_connections", "Connections that are open now."), float64(s.Conns))
	out <- gauge(describe("nfs_buffer_bytes", "Memory of large buffers in use."), float64(s.Memory))
	c.collectCounters(out, &s)
	c.collectBoots(out)
	c.collectProblems(out)
	nodes := describe("nodes", "Declared nodes by the stage that they are in.", "stage")
	for stage, n := range c.Stages() {
		out <- gauge(nodes, float64(n), stage)
	}
	for _, disk := range c.Disks() {
		out <- gauge(describe("disk_free_bytes", "Free space on the disk of the data directory."),
			float64(disk.BytesFree))
		out <- gauge(describe("disk_bytes", "Size of the disk of the data directory."), float64(disk.Bytes))
	}
}

func (c collector) collectProblems(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), problemsTimeout)
	defer cancel()
	counts := make(map[problems.Kind]int)
	for _, p := range c.Problems(ctx) {
		counts[p.About.Kind]++
	}
	desc := describe("problems", "Problems of this server itself, by what they are about.", "kind")
	for _, kind := range problems.Kinds() {
		out <- gauge(desc, float64(counts[kind]), string(kind))
	}
}

func (c collector) collectCounters(out chan<- prometheus.Metric, s *oncrpc.Stats) {
	count := func(name, help string, n uint64) { out <- counter(describe(name, help), n) }
	count("nfs_connections_total", "Connections since the start.", s.Accepted)
	count("nfs_repeated_total", "Calls answered from the replies kept for clients that repeat them.", s.Repeated)
	count("nfs_relieved_total",
		"Calls that waited for a disk so long that another thread served other calls meanwhile.", s.HandedOver)
	waits, flushes, failures := c.Flushes()
	count("sync_waits_total", "Times that a call waited for the disk.", waits)
	count("sync_flushes_total", "Flushes of the disk for calls; one flush serves all calls that wait.", flushes)
	count("sync_failures_total", "Flushes that failed.", failures)
	refused := describe("nfs_refused_total", "Calls and connections that were refused, by reason.", "reason")
	n := c.NFS.Refused()
	for reason, n := range map[string]uint64{
		"port": n.Port, "export": n.Export, "stalled": s.Stalled, "malformed": s.Broken,
		"unknown_call": s.Rejected,
	} {
		out <- counter(refused, n, reason)
	}
}

// collectBoots makes the metrics of the services of firmware and loaders.
func (c collector) collectBoots(out chan<- prometheus.Metric) {
	d := c.DHCP()
	out <- counter(describe("dhcp_messages_total", "DHCP messages that were received."), d.Received)
	out <- counter(describe("dhcp_answers_total", "DHCP messages that were answered."), d.Answered)
	each := func(desc *prometheus.Desc, counts map[string]uint64) {
		for label, n := range counts {
			out <- counter(desc, n, label)
		}
	}
	each(describe("dhcp_ignored_total", "DHCP messages that were not answered, by reason.", "reason"),
		map[string]uint64{
			"port": d.Port, "malformed": d.Malformed, "interface": d.Interface, "unknown": d.Unknown,
			"other_server": d.Other, "no_answer": d.Silent, "unsent": d.Unsent,
		})
	t := c.TFTP()
	each(describe("tftp_requests_total", "TFTP requests that have ended, by result.", "result"), map[string]uint64{
		"done": t.Done, "failed": t.Failed, "refused": t.Refused, "dropped": t.Dropped, "malformed": t.Malformed,
	})
	each(describe("connections_refused_total", "Connections that were closed at accept, by service.", "service"),
		c.Closed())
	c.collectPulled(out)
	each(describe("receive_drops_total", "Messages for which the kernel had no room, by service.", "service"), c.Lost())
}

// collectPulled makes the metrics of what came from other servers.
func (c collector) collectPulled(out chan<- prometheus.Metric) {
	bytes := describe("pull_bytes_total", "Bytes of versions that were received from other servers.", "server")
	bad := describe("pull_failures_total", "Answers of other servers that failed, by reason.", "server", "reason")
	for server, n := range c.Pulled() {
		out <- counter(bytes, n.Bytes, server)
		out <- counter(bad, n.Failed, server, "failed")
		out <- counter(bad, n.Slow, server, "slow")
		out <- counter(bad, n.Refused, server, "refused")
	}
}

// collectCalls makes the metrics of one class's calls.
func collectCalls(out chan<- prometheus.Metric, procs []oncrpc.ProcStats, k class) {
	labels := []string{"program", "procedure", "image", "groups"}
	errs := describe("nfs_errors_total",
		"Calls that were answered with an error, such as that a name does not exist.", labels...)
	in := describe("nfs_received_bytes_total", "Bytes of calls.", labels...)
	sent := describe("nfs_sent_bytes_total", "Bytes of replies.", labels...)
	took := describe("nfs_call_seconds", "How long calls took, from when they were read to their reply.", labels...)
	for _, p := range procs {
		if p.Calls == 0 {
			continue
		}
		values := []string{p.Program, p.Proc, k.image, k.groups}
		out <- counter(errs, p.Errors, values...)
		out <- counter(in, p.BytesIn, values...)
		out <- counter(sent, p.BytesOut, values...)
		out <- prometheus.MustNewConstHistogram(took, p.Calls, p.Busy.Seconds(), buckets(&p), values...)
	}
}

// buckets returns every second bucket of a procedure's latencies, from 4 µs to 4 s, cumulated.
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

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dim_"+name, help, labels, nil)
}

func gauge(desc *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
}

func counter(desc *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
}
