package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeSnapshotsCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "snapshots [NODES]",
		Short: "List the snapshots of what nodes have of their own",
		Long: `Lists the snapshots of the nodes' layers that this server has: when each was taken and before what, the versions that the node had while its
layer was so, how much is in it, and how much of that is shared neither with the layer nor with an earlier snapshot. They are taken where the
image has a <saved snapshots="…"/>, kept as that says, and count against no quota.

dim node restore NODE --to STAMP puts one back.`,
		Example: "  dim node snapshots\n  dim node snapshots 'n[01-04]' -o json\n  dim node restore n01 --to compute@12 --dry-run",
		Args:    operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.client().Snapshots(cmd.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printSnapshots(w, list) })
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
}

// nodeLayersCommand is the former name of nodeSnapshotsCommand. Help and completion do not show it.
func (a *app) nodeLayersCommand() *cobra.Command {
	cmd := a.nodeSnapshotsCommand()
	cmd.Use, cmd.Hidden = "layers [NODES]", true
	return cmd
}

func printSnapshots(w io.Writer, list []control.Snapshot) {
	if len(list) == 0 {
		fmt.Fprintln(w, `no snapshots; where an image has <saved snapshots="N"/> they are taken before a switch and a reset`)
		return
	}
	row(w, "NODE", "IMAGE", "STAMP", "VERSIONS", "BEFORE", "FILES", "SIZE", "NOT SHARED")
	for _, l := range list {
		if l.Problem == "" {
			row(w, l.Node, l.Image, l.Stamp, strings.Join(l.Versions, " "), whyText(l.Why), count(l.Files), size(l.Bytes), size(l.Copied))
		}
	}
	for _, l := range list {
		if l.Problem != "" {
			fmt.Fprintf(w, "problem: %s/%s: the last snapshot was not taken: %s\n", l.Node, l.Image, safe(l.Problem))
		}
	}
}

func (a *app) nodeRestoreSnapshot(ctx context.Context, node string, q control.RestoreSnapshotRequest) error {
	if q.To == "" {
		return &usageError{errors.New("node restore: what?"), "name a PATH, or --to VERSION, TIME or STAMP"}
	}
	done, err := a.client().RestoreSnapshot(ctx, node, q)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { printRestoredSnapshot(w, node, &done, q.DryRun) })
}

func printRestoredSnapshot(w io.Writer, node string, done *control.RestoredSnapshot, dry bool) {
	fmt.Fprintf(w, "snapshot: %s of %s\n", done.Snapshot.Stamp, strings.Join(done.Snapshot.Versions, " "))
	if done.Unknown {
		fmt.Fprintln(w, "its version is no longer in the store: what the master has changed since is not known, and nothing is held back")
	}
	if done.Copies > 0 {
		fmt.Fprintf(w, "%s%s: this disk cannot share blocks, and the node's calls wait meanwhile\n", would(dry, "copied: "), size(done.Copies))
	}
	for _, p := range done.Paths {
		path := safe(string(p.Path))
		switch {
		case p.What == "held back":
			fmt.Fprintf(w, "%s%s %s, for the master has changed it since; it stays in the snapshot\n", would(dry, "held back: "), path, p.Kind)
		case p.Displaced:
			fmt.Fprintf(w, "%s%s %s, in place of what is set aside\n", would(dry, p.What+": "), path, p.Kind)
		default:
			fmt.Fprintf(w, "%s%s %s\n", would(dry, p.What+": "), path, p.Kind)
		}
	}
	switch {
	case len(done.Paths) == 0:
		fmt.Fprintln(w, "the node has just that")
	case done.Undo != "":
		fmt.Fprintf(w, "undo: dim node restore %s --to %s\n", node, done.Undo)
	}
}
