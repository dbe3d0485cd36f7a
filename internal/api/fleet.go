package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/problems"
	"dim/internal/quantity"
)

// reported returns what a server reported last; nil when it has not reported.
func (api *API) reported(s *cluster.Server) *control.Observed {
	h, ok := api.Fleet.Last(s.Name)
	if !ok {
		return nil
	}
	out := &control.Observed{
		Up: s.Name == api.Server || fleet.Fresh(h.At), Started: h.Started, Program: h.Program,
		Revision: h.Revision, Versions: []control.HeldVersion{}, Stages: map[string]int{}, Shows: map[string]int{},
		Clock: h.Ahead().Seconds(), Problems: []control.Problem{},
	}
	for _, v := range h.Versions {
		held := control.HeldVersion{Version: v.Version.String(), Digest: v.Digest.String()}
		if m := v.Missing; m != nil {
			held.Missing = &control.Missing{
				Files: m.Files, Bytes: m.Bytes, Left: m.TimeLeft.Seconds(), Problem: m.Problem,
			}
		}
		out.Versions = append(out.Versions, held)
	}
	for i := range h.Nodes {
		out.Stages[h.Nodes[i].Stage]++
		out.Shows[h.Nodes[i].Shows.String()]++
	}
	for _, p := range h.Problems {
		out.Problems = append(out.Problems, control.Problem(p))
	}
	return out
}

// fault is one thing that may be wrong with a server.
type fault struct {
	hint string // SERVER in it stands for the name
	find func(name cluster.ServerName, h fleet.Heard, known bool) (text string, since time.Time)
	many string // what is said of many servers
}

// faults are what a head looks for in what servers report, or do not.
func (api *API) faults() []fault {
	return []fault{
		{
			hint: "if it has not joined: dim token --for SERVER, here; if it has: look whether dim serve runs there, " +
				"and whether it reaches the api-port of this head (7117, unless the description has another)",
			many: "never reported here",
			find: func(_ cluster.ServerName, _ fleet.Heard, known bool) (string, time.Time) {
				if known || time.Since(api.Started) < fleet.SilentAfter {
					return "", time.Time{}
				}
				return "it never reported here", api.Started
			},
		},
		{
			hint: "look whether it runs, and at the network to it; " +
				"if it runs, it serves its nodes what was declared last",
			many: "do not report any more",
			find: func(_ cluster.ServerName, h fleet.Heard, known bool) (string, time.Time) {
				if !known || fleet.Fresh(h.At) || h.FromDisk && time.Since(api.Started) < fleet.SilentAfter {
					return "", time.Time{}
				}
				return "it does not report any more", h.At
			},
		},
		{
			hint: "switch off the machine that is a copy of the other; if it is to be a server of its own: " +
				"dim token --for NAME, here, then on the copy the command that it prints, with --replace",
			many: "are two machines each",
			find: func(name cluster.ServerName, _ fleet.Heard, _ bool) (string, time.Time) {
				d, ok := api.Fleet.Duplicate(name)
				if !ok {
					return "", time.Time{}
				}
				return fmt.Sprintf("two machines report as it: %s, and %s, whose reports are refused", d.Older,
					d.Younger), d.Since
			},
		},
		{
			hint: "run chrony or systemd-timesyncd on both",
			many: "have a clock that differs from this server's",
			find: func(_ cluster.ServerName, h fleet.Heard, known bool) (string, time.Time) {
				if !known || h.Ahead().Abs() < follow.ClockTolerance {
					return "", time.Time{}
				}
				return clockText(h.Ahead().Round(time.Second)), time.Time{}
			},
		},
		{
			hint: "dim server show SERVER lists them",
			many: "have problems of their own",
			find: func(_ cluster.ServerName, h fleet.Heard, known bool) (string, time.Time) {
				if !known || len(h.Problems) == 0 {
					return "", time.Time{}
				}
				p := h.Problems[0]
				text := fmt.Sprintf("it reports a problem: %s: %s", p.About, p.Text)
				if more := len(h.Problems) - 1; more > 0 {
					text = fmt.Sprintf("it reports %d problems, first %s: %s", more+1, p.About, p.Text)
				}
				return text, p.Since
			},
		},
	}
}

// otherServerProblems lists what is wrong with the other servers, on a head.
func (api *API) otherServerProblems(context.Context) []problems.Problem {
	if !api.Follow.IsHead() {
		return nil
	}
	now := api.Follow.Now()
	var list []problems.Problem
	for _, f := range api.faults() {
		list = append(list, api.faulty(now, f)...)
	}
	return list
}

// faulty lists the servers that have a fault: each one, or many as one problem.
func (api *API) faulty(now *follow.Declared, f fault) []problems.Problem {
	var list []problems.Problem
	var names []string
	nodes := 0
	for _, s := range now.Cluster.Servers {
		if s.Name == api.Server {
			continue
		}
		h, known := api.Fleet.Last(s.Name)
		text, since := f.find(s.Name, h, known)
		if text == "" {
			continue
		}
		names = append(names, string(s.Name))
		nodes += nodesOf(now.Cluster, s)
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindServer, Name: string(s.Name)}, Text: text, Since: since,
			Hint: strings.ReplaceAll(f.hint, "SERVER", string(s.Name)),
		})
	}
	if len(list) <= listedEach {
		return list
	}
	return []problems.Problem{{
		About: problems.Subject{Kind: problems.KindServer, Name: nodeset.Fold(names)}, Hint: f.hint,
		Text: fmt.Sprintf("%s of %s %s", quantity.Plural(len(names), "server"), quantity.Plural(nodes, "node"), f.many),
	}}
}

// nodesOf returns how many nodes a server serves.
func nodesOf(c *cluster.Cluster, s *cluster.Server) int {
	nodes := 0
	for _, n := range c.Nodes {
		if n.Server() == s {
			nodes++
		}
	}
	return nodes
}
