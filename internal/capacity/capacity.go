// Package capacity judges what limited the servers of a load test, and plans how many servers a number of nodes needs.
//
// All functions are arithmetic on what was measured. It must not know how anything is measured.
package capacity

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Use is what a load test took from one server.
type Use struct {
	Server  string  `json:"server"`
	Nodes   int     `json:"node_count"` // nodes that booted on it
	Seconds float64 `json:"took_seconds"`

	CPUs    int     `json:"cpus"`                // processors of its machine
	CPU     float64 `json:"cpu_seconds"`         // of the server process
	Machine float64 `json:"machine_cpu_seconds"` // of everything on its machine
	Maker   float64 `json:"maker_cpu_seconds"`   // of the load maker, if it is on the same machine

	Payload  uint64  `json:"payload_bytes"` // that nodes got from it
	Sent     uint64  `json:"sent_bytes"`    // by the interfaces of its machine
	Link     uint64  `json:"link_bits"`     // bits a second; 0: not known
	Read     uint64  `json:"disk_read_bytes"`
	Written  uint64  `json:"disk_written_bytes"`
	DiskBusy float64 `json:"disk_busy_seconds"`
	NoDisk   bool    `json:"disk_is_not_measured"`
}

// Resource is what can limit a server.
type Resource string

// The resources.
const (
	CPU     Resource = "CPU"
	Network Resource = "network"
	Disk    Resource = "disk"
)

// Share is the part of a resource that was in use, between 0 and 1, or a little more by the rounding of the kernel's
// counters. It is 0 where it is not known.
func (u *Use) Share(r Resource) float64 {
	if u.Seconds <= 0 {
		return 0
	}
	switch r {
	case CPU:
		return u.Machine / (float64(max(u.CPUs, 1)) * u.Seconds)
	case Network:
		if u.Link == 0 {
			return 0
		}
		return float64(u.Sent) * 8 / (float64(u.Link) * u.Seconds)
	}
	return u.DiskBusy / u.Seconds
}

const (
	// full is the share from which a resource counts as the limit.
	full = 0.8
	// makerPart is the part of the CPU time of a machine from which a load maker on it distorts the times.
	makerPart = 0.2
)

// Verdict says what limited a load test.
type Verdict struct {
	Server   string   `json:"server"`   // the server that is the limit, or is closest to it; "": the load maker is
	Resource Resource `json:"resource"` // of Server
	Share    float64  `json:"share"`    // of Resource that was in use
	Reached  bool     `json:"reached"`  // it is the limit
	Text     string   `json:"text"`
	Hint     string   `json:"hint,omitempty"` // what to do
}

// Judge returns what limited a load test. makerShare is the part of the load maker's machine that was busy.
func Judge(servers []Use, makerShare float64) Verdict {
	var v Verdict
	var worst *Use
	for i := range servers {
		u := &servers[i]
		for _, r := range []Resource{CPU, Network, Disk} {
			if share := u.Share(r); worst == nil || share > v.Share {
				v.Server, v.Resource, v.Share, worst = u.Server, r, share, u
			}
		}
	}
	if worst == nil {
		return Verdict{Text: "nothing was measured"}
	}
	v.Reached = v.Share >= full
	switch {
	case v.Resource == CPU && v.Reached && worst.Maker > makerPart*worst.Machine:
		return Verdict{
			Resource: CPU, Share: v.Share, Reached: true,
			Text: fmt.Sprintf(
				"the load maker is the limit: it used %s of the CPU time on %s, whose processors were %s busy",
				percent(worst.Maker/worst.Machine), worst.Server, percent(v.Share)),
			Hint: "the CPU time of a node is right, and the times are too long: to measure times make the load on " +
				"another machine",
		}
	case makerShare >= full && !v.Reached:
		return Verdict{
			Resource: CPU, Share: makerShare, Reached: true,
			Text: fmt.Sprintf("the load maker is the limit: its processors were %s busy, and no server was",
				percent(makerShare)),
			Hint: "make the load on a larger machine, or on several at once",
		}
	case !v.Reached:
		v.Text = fmt.Sprintf("no server was at its limit: the busiest was %s, with %s of its %s in use", v.Server,
			percent(v.Share), v.Resource)
		v.Hint = "take more nodes, or more nodes at once, to find the limit"
		return v
	}
	v.Text = fmt.Sprintf("%s is the limit: %s, %s in use", v.Server, v.Resource, percent(v.Share))
	v.Hint = relief(servers, worst, v.Resource)
	if v.Resource == CPU {
		v.Text += " (" + worst.users() + ")"
		if worst.rest() > worst.Machine/2 {
			v.Hint = "most of it is for other programs of " + v.Server +
				": the times are too long, see what else runs there"
		}
	}
	return v
}

// rest is the CPU time of what is neither the server nor the load maker.
func (u *Use) rest() float64 { return max(0, u.Machine-u.CPU-u.Maker) }

// users says who used the processors of a server.
func (u *Use) users() string {
	all := float64(max(u.CPUs, 1)) * u.Seconds
	text := "the server " + percent(u.CPU/all)
	if u.Maker > 0 {
		text += ", the load maker " + percent(u.Maker/all)
	}
	return text + ", the rest " + percent(u.rest()/all)
}

// relief says how the load of the server worst can be lowered.
func relief(servers []Use, worst *Use, r Resource) string {
	var sum float64
	var nodes int
	for i := range servers {
		sum += servers[i].Share(r)
		nodes += servers[i].Nodes
	}
	mean := sum / float64(len(servers))
	move := int(math.Round(float64(worst.Nodes) * (1 - mean/worst.Share(r))))
	if len(servers) > 1 && move > 0 && float64(move) > 0.05*float64(worst.Nodes) {
		return fmt.Sprintf("add a server, or move %d of its %d nodes to the others", move, worst.Nodes)
	}
	more := len(servers) + 1
	return fmt.Sprintf("add a server: with %d each would boot %d of the %d nodes", more, (nodes+more-1)/more, nodes)
}

// percent shows a share. The kernel counts in ticks, so that the share of a short time may be above 1.
func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*min(share, 1)) }

// Goal is what a plan is for.
type Goal struct {
	Nodes   int     // that boot at the same time
	Seconds float64 // within which all have booted
	Link    uint64  // bits a second of a server, where none was measured
}

// Need is what a plan needs of one resource.
type Need struct {
	Resource Resource `json:"resource"`
	Node     float64  `json:"per_node"`   // CPU seconds, bytes, or seconds of the disk
	Server   float64  `json:"per_second"` // what a server has of it in a second
	Servers  int      `json:"server_count"`
	Known    bool     `json:"is_known"`
}

// Plan is how many servers a goal needs.
type Plan struct {
	Nodes       int      `json:"node_count"`
	Seconds     float64  `json:"within_seconds"`
	Servers     int      `json:"server_count"`
	PerServer   int      `json:"nodes_per_server"`
	Limit       Resource `json:"resource"` // that decides
	Needs       []Need   `json:"needs"`
	Assumptions []string `json:"assumptions"`
}

const (
	// usable is the part of a resource that a plan counts on.
	usable = 0.7
	// headers is what Ethernet, IP, TCP, RPC and NFS add to large reads.
	headers = 1.05
)

// PlanFor returns how many servers like the measured ones a goal needs. ok is false if no node booted. A node costs
// what it cost on average, and each server is as the weakest of those that were measured.
func PlanFor(servers []Use, g Goal) (p Plan, ok bool) {
	var cpu, payload, busy float64
	nodes, cpus, link, disk := 0, math.MaxInt, uint64(math.MaxUint64), true
	for i := range servers {
		u := &servers[i]
		nodes += u.Nodes
		cpu += u.CPU
		payload += float64(u.Payload) * headers
		busy += u.DiskBusy
		cpus = min(cpus, u.CPUs)
		link = min(link, cmp.Or(u.Link, g.Link))
		disk = disk && !u.NoDisk
	}
	if nodes == 0 || g.Seconds <= 0 || g.Nodes <= 0 {
		return p, false
	}
	p = Plan{Nodes: g.Nodes, Seconds: g.Seconds, Needs: []Need{
		{Resource: CPU, Node: cpu / float64(nodes), Server: float64(cpus), Known: true},
		{Resource: Network, Node: payload / float64(nodes), Server: float64(link) / 8, Known: true},
		{Resource: Disk, Node: busy / float64(nodes), Server: 1, Known: disk},
	}}
	for i := range p.Needs {
		n := &p.Needs[i]
		if !n.Known {
			continue
		}
		n.Servers = max(1, int(math.Ceil(float64(g.Nodes)*n.Node/(n.Server*g.Seconds*usable))))
	}
	most := slices.MaxFunc(p.Needs, func(a, b Need) int {
		return cmp.Or(cmp.Compare(a.Servers, b.Servers), cmp.Compare(a.Node/a.Server, b.Node/b.Server))
	})
	p.Limit, p.Servers = most.Resource, most.Servers
	p.PerServer = (g.Nodes + p.Servers - 1) / p.Servers
	p.Assumptions = assumptions(servers, cpus, link)
	return p, true
}

func assumptions(servers []Use, cpus int, link uint64) []string {
	list := []string{
		fmt.Sprintf("each server has %d processors and a link of %.4g Gbit/s", cpus, float64(link)/1e9),
		fmt.Sprintf("a plan counts on %s of each resource; headers add %s to what nodes read", percent(usable),
			percent(headers-1)),
		"a node costs what it cost in this test, whatever the number of nodes",
		"the servers have the version in memory; their disks are as in this test",
		"all nodes boot at the same time; the switches of the network are no limit",
	}
	if slices.ContainsFunc(servers, func(u Use) bool { return u.Link == 0 }) {
		list[0] += " (the kernel does not tell the speed of a link here: --link sets it)"
	}
	if slices.ContainsFunc(servers, func(u Use) bool { return u.NoDisk }) {
		list = append(list, "the disk of a server was not measured: it is left out")
	}
	return list
}
