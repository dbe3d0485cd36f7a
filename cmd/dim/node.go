package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Nodes and their replicas"}
	group(cmd)
	cmd.AddCommand(a.nodeLsCommand(), a.nodeShowCommand(), a.nodeWhyCommand(), a.nodeWatchCommand(),
		a.nodeRenderCommand(), a.nodeUnknownCommand(), a.nodeDiffCommand(),
		a.nodeResetCommand(), a.nodeSavedCommand(), a.nodeRestoreCommand(), a.nodeSnapshotsCommand(),
		a.nodeLayersCommand(), a.nodeCheckCommand(), a.nodeConfirmCommand(), a.nodeAcceptCommand(),
		a.nodeRmCommand(), a.nodeLearnCommand(), a.nodeRebindCommand())
	return cmd
}

// shownVersion returns the version that a node's replica shows, and the one that it should or will show, if that is
// another.
func shownVersion(n control.Node) string {
	v := n.Image
	if n.Version > 0 {
		v = versionRef(n.Image, n.Version)
	}
	if n.Wanted != "" && n.Wanted != n.Image && n.Wanted != v {
		v += " → " + n.Wanted
	}
	if n.Next != "" && n.Next != v {
		v += " (next boot: " + n.Next + ")"
	}
	return v
}

func (a *app) nodeShowCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:     "show NODE",
		Short:   "Show one node",
		Example: "  dim node show n01",
		Args:    operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.client().Node(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(n, func(w io.Writer) { printNode(w, n, time.Now()) })
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
}

func printNode(w io.Writer, n control.Node, now time.Time) {
	row(w, "node", fmt.Sprintf("%s (index %d)", n.Name, n.Index))
	row(w, "stage", n.Stage)
	row(w, "since", clock(n.Since))
	if n.Text != "" {
		row(w, "message", safe(n.Text))
	}
	row(w, "version", shownVersion(n))
	row(w, "address", n.Address)
	row(w, "mac", n.MAC)
	row(w, "last call", ago(n.LastCall, now))
	if n.Problem != "" {
		row(w, "problem", n.Problem)
	}
	if n.Hint != "" {
		row(w, "hint", n.Hint)
	}
	if n.Details != nil {
		printNodeDetails(w, n.Details, now)
	}
}

func printNodeDetails(w io.Writer, d *control.NodeDetails, now time.Time) {
	var position []string
	for _, level := range slices.Sorted(maps.Keys(d.Position)) {
		position = append(position, fmt.Sprintf("%s %d", level, d.Position[level]))
	}
	row(w, "position", strings.Join(position, ", "))
	row(w, "groups", strings.Join(d.Groups, " "))
	row(w, "servers", strings.Join(d.Servers, " "))
	row(w, "local changes", quotaText(d.Quota))
	if d.QuotaOf != "" {
		row(w, "quota of", d.QuotaOf)
	}
	row(w, "set aside", d.Saved)
	if s := d.Snapshots; s.Count > 0 {
		row(w, "snapshots", fmt.Sprintf("%d, %s, not shared %s", s.Count, size(s.Bytes), size(s.Copied)))
	}
	row(w, "durability", d.Durable)
	if u := d.Usage; u != nil {
		row(w, "NFS calls", fmt.Sprintf("%s since server start, %s failed, %s received, %s sent",
			count(u.Calls), count(u.Errors), size(u.Received), size(u.Sent)))
	}
	row(w, "node files", strings.Join(d.Files, " "))
	row(w, "kernel arguments", d.Append)
	printPush(w, d.Push, now)
	for _, i := range d.Interfaces {
		row(w, "interface", interfaceText(&i))
	}
	if r := d.Refused; r != nil {
		row(w, "not answered", fmt.Sprintf("%s  %s (%s)", clock(r.Last), safe(r.Text), plural(r.Count, "time")))
	}
	for _, s := range d.Stages {
		row(w, "boot", fmt.Sprintf("%s  %s  %s", clock(s.Time), s.Name, safe(s.Text)))
	}
}

// quotaText is "1.2 MiB of 1.0 GiB, 12 of 1,000 files", or without a quota "1.2 MiB, 12 files".
func quotaText(u control.QuotaUsage) string {
	text := size(u.Bytes)
	if u.BytesMax > 0 {
		text += " of " + size(u.BytesMax)
	}
	if u.FilesMax > 0 {
		return text + ", " + count(u.Files) + " of " + plural(int(u.FilesMax), "file")
	}
	text += ", " + plural(int(u.Files), "file")
	return text
}

func (a *app) nodeUnknownCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:   "unknown",
		Short: "List machines that ask for a boot and are not in the description",
		Long: `Lists the machines that ask for an address or a boot, and that no node's MAC
belongs to, the last one first. On a head these are the machines of all servers.
dim node learn makes nodes of them.`,
		Example: "  dim node unknown -o json | jq -r '.[].mac'",
		Args:    operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			machines, err := a.client().Machines(cmd.Context())
			if err != nil {
				return err
			}
			return showList(a, machines, func(m control.Machine) string { return m.MAC },
				func(w io.Writer) { printMachines(w, machines, time.Now()) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

func printMachines(w io.Writer, machines []control.Machine, now time.Time) {
	heading(w, len(machines), "no machines", "MAC", "LAST", "TIMES", "NETWORK", "SWITCH PORT", "UUID", "ASKED")
	for _, m := range machines {
		row(w, m.MAC, ago(m.Last, now), m.Count, m.Network, safe(m.Port), m.UUID, safe(m.Asked))
	}
}

// interfaceText describes an interface of a node: "eth0 on boot, 10.77.0.11, 52:54:00:4d:00:01".
func interfaceText(i *control.Interface) string {
	facts := []string{i.Name}
	if i.Network != "" {
		facts[0] += " on " + i.Network
	}
	switch below := strings.Join(i.Below, ", "); {
	case i.VLAN != 0:
		facts = append(facts, fmt.Sprintf("VLAN %d of %s", i.VLAN, below))
	case i.Bond != "":
		facts = append(facts, fmt.Sprintf("bond (%s) of %s", i.Bond, below))
	}
	for _, fact := range []string{i.Address, i.Address6, i.MAC} {
		if fact != "" {
			facts = append(facts, fact)
		}
	}
	if i.MTU != 0 {
		facts = append(facts, fmt.Sprintf("MTU %d", i.MTU))
	}
	return strings.Join(facts, ", ")
}
