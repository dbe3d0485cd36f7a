package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) statusCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "status",
		Short: "Show the state of the server, its images and its nodes",
		Long: `Shows the state of the server on this machine on one screen: what it serves, the
stages of its nodes, and every problem, with a hint. The exit code is 0 when
there is no problem and 3 when there are some.`,
		Example: "  dim status\n  dim status -o json | jq '.problems'",
		Args:    operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.show(s, func(w io.Writer) { printStatus(w, s, time.Now()) }); err != nil {
				return err
			}
			if len(s.Problems) > 0 {
				return errProblems
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

func printStatus(w io.Writer, s control.Status, now time.Time) {
	row(w, "server", fmt.Sprintf("%s, pid %d, up %s, dim %s", s.Server, s.PID, ago(s.Started, now), s.Program))
	row(w, "cluster",
		fmt.Sprintf("%s, description revision %d applied %s ago", s.Cluster, s.Revision, ago(s.Applied.Time, now)))
	row(w, "state", stateText(s.Coord))
	row(w, "listens", listens(s.Services))
	if s.Coord.Kind != "head" && len(s.Servers) > 1 {
		printServers(w, s.Servers, now)
	}
	for _, d := range s.Disks {
		row(w, "disk", fmt.Sprintf("%s: %s of %s free", d.Path, size(d.BytesFree), size(d.Bytes)))
	}
	if q := s.Quota; q != nil {
		row(w, "quota", quotaLimit(q)+" for each node without another")
	}
	for _, i := range s.Images {
		row(w, "image", imageLine(i, now))
		if len(i.Use) > 0 {
			row(w, "  nodes", useText(i))
		}
	}
	for _, i := range s.Images {
		if i.Watch != nil {
			row(w, "watch", i.Name+": "+watchText(i.Watch, now))
		}
	}
	for _, p := range s.Capturing {
		row(w, "capture", progressLine(p, now))
	}
	row(w, "nodes", stages(s.Nodes, s.Stages))
	for _, r := range s.Rollouts {
		row(w, "rollout", rolloutLine(r))
	}
	for _, m := range s.Mounts {
		row(w, "mount", m.What+" at "+safe(m.Dir))
	}
	for _, m := range s.Machines {
		row(w, "unknown", fmt.Sprintf("%s, %s ago, %s", m.MAC, ago(m.Last, now), safe(m.Asked)))
	}
	if len(s.Expires) > 0 {
		row(w, "expires", removalText(s.Expires[0]))
	}
	if len(s.Problems) == 0 {
		row(w, "problems", "none")
	}
	for _, p := range s.Problems {
		line := p.About + ": " + p.Text
		if !p.Since.IsZero() {
			line += " (since " + ago(p.Since, now) + ")"
		}
		row(w, "problem", safe(line))
		if p.Hint != "" {
			row(w, "  hint", p.Hint)
		}
	}
}

// removalText is "what was set aside of n01 (compute) at 20261130T060740.458087810Z, 2027-02-28 06:07:40 UTC".
func removalText(r control.Removal) string {
	what := "what was set aside of"
	if r.Snapshot {
		what = "snapshot of"
	}
	return fmt.Sprintf("%s %s (%s) at %s, %s", what, r.Node, r.Image, r.Stamp, clock(r.Expires))
}

// stateText tells where the declared state comes from, and why it does not.
func stateText(c control.Coord) string {
	switch {
	case c.Kind != "head" && c.OK:
		return c.Kind + " etcd" + membersText(c.Members)
	case c.Kind != "head":
		return c.Kind + " etcd" + membersText(c.Members) + ": " + c.Error
	case c.OK:
		return fmt.Sprintf("revision %d, from head %s", c.Revision, c.Head)
	}
	return fmt.Sprintf("revision %d, as it was declared last: no head can be followed", c.Revision)
}

// membersText is " of 3 heads: head (leads), head2, head3 (catches up)".
func membersText(list []control.Member) string {
	if len(list) == 0 {
		return ""
	}
	var parts []string
	for _, m := range list {
		name := cmp.Or(m.Server, "one that has not started yet")
		switch {
		case m.Leads:
			name += " (leads)"
		case !m.Votes:
			name += " (catches up)"
		}
		parts = append(parts, name)
	}
	slices.Sort(parts)
	return " of " + plural(len(list), "head") + ": " + strings.Join(parts, ", ")
}

// quotaLimit is "1.0 GiB, 100,000 files", or less if there is no bound for one of them.
func quotaLimit(q *control.Quota) string {
	var parts []string
	if q.Bytes > 0 {
		parts = append(parts, size(q.Bytes))
	}
	if q.Files > 0 {
		parts = append(parts, plural(int(q.Files), "file"))
	}
	if parts == nil {
		return "no bound"
	}
	return strings.Join(parts, ", ")
}

// listens groups the addresses by service: "nfs 10.0.0.1:2049 127.0.0.1:2049, http …".
func listens(services []control.Service) string {
	at := map[string][]string{}
	for _, s := range services {
		at[s.Name] = append(at[s.Name], s.Address)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(at)) {
		parts = append(parts, name+" "+strings.Join(at[name], " "))
	}
	return strings.Join(parts, ", ")
}

func imageLine(i control.Image, now time.Time) string {
	if i.Newest == nil {
		return fmt.Sprintf("%s: not captured yet, %s%s", i.Name, plural(i.Nodes, "node"), durability(i))
	}
	v := i.Newest
	line := fmt.Sprintf("%s, %s old, %s, %s",
		versionRef(i.Name, v.Number), ago(v.Created, now), plural(int(v.Files), "file"), size(v.Bytes))
	if v.Kernel != "" {
		line += ", kernel " + v.Kernel
	}
	return line + durability(i)
}

// useText tells which versions of an image its nodes run: "3 on compute@4 (at their next boot 2 to compute@6)".
func useText(i control.Image) string {
	var order []int
	on, next := map[int]int{}, map[int][]string{}
	for _, u := range i.Use {
		if on[u.Version] += u.Count; !slices.Contains(order, u.Version) {
			order = append(order, u.Version)
		}
		if u.Next > 0 {
			next[u.Version] = append(next[u.Version],
				fmt.Sprintf("%s to %s", count(uint64(u.Count)), versionRef(i.Name, u.Next)))
		}
	}
	parts := make([]string, len(order))
	for k, version := range order {
		where := "on " + versionRef(i.Name, version)
		if version == 0 {
			where = "without a version, or not known"
		}
		parts[k] = count(uint64(on[version])) + " " + where
		if len(next[version]) > 0 {
			parts[k] += " (at their next boot " + strings.Join(next[version], ", ") + ")"
		}
	}
	return strings.Join(parts, ", ")
}

// durability is ", durability async" for an image whose nodes get replies before their changes are on the disk.
func durability(i control.Image) string {
	if i.Durable == "sync" || i.Durable == "" {
		return ""
	}
	return ", durability " + i.Durable
}

// stages counts the nodes in each stage, the most common first: "4: 2 running, 1 off, 1 mount".
func stages(total int, at map[string]int) string {
	names := slices.SortedFunc(maps.Keys(at), func(a, b string) int {
		if at[a] != at[b] {
			return at[b] - at[a]
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, count(uint64(at[name]))+" "+name)
	}
	if len(parts) == 0 {
		return count(uint64(total))
	}
	return count(uint64(total)) + ": " + strings.Join(parts, ", ")
}
