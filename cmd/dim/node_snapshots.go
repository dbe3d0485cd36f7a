package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeSnapshotsCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "snapshots [NODES…]",
		Short: "List the snapshots of the layers of nodes",
		Long: `Lists the snapshots of the nodes' layers on this server: when and before what
each was taken, the versions that the node had with that layer, the size, and
how much of it is shared neither with the layer nor with an earlier snapshot.
The server takes and keeps them as <saved snapshots="…"/> of the image says.
They do not count against a quota.

dim node restore NODE --to STAMP restores one.`,
		Example: `  dim node snapshots
  dim node snapshots 'n[01-04]' -o json
  dim node restore n01 --to compute@12 --dry-run`,
		Args: operands(0, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.client().Snapshots(cmd.Context(), joined(args))
			if err != nil {
				return err
			}
			if err := a.show(list, func(w io.Writer) { printSnapshots(w, list) }); err != nil {
				return err
			}
			if slices.ContainsFunc(list, func(s control.Snapshot) bool { return s.Image == "" }) {
				return errProblems // a server does not answer
			}
			return nil
		},
		ValidArgsFunction: complete(anyNumber, a.nodeNames),
	})
}

// nodeLayersCommand is the former name of nodeSnapshotsCommand. Help and completion do not show it.
func (a *app) nodeLayersCommand() *cobra.Command {
	cmd := a.nodeSnapshotsCommand()
	cmd.Use, cmd.Hidden = "layers [NODES…]", true
	return cmd
}

func printSnapshots(w io.Writer, list []control.Snapshot) {
	if len(list) == 0 {
		fmt.Fprintln(w,
			`no snapshots; they are taken before switches and resets if the image has <saved snapshots="N"/>`)
		return
	}
	row(w, "NODE", "IMAGE", "STAMP", "VERSIONS", "BEFORE", "FILES", "SIZE", "NOT SHARED")
	for _, s := range list {
		if s.Problem == "" {
			row(w, s.Node, s.Image, s.Stamp, strings.Join(s.Versions, " "), whyText(s.Why),
				count(s.Files), size(s.Bytes), size(s.Copied))
		}
	}
	for _, s := range list {
		switch {
		case s.Image == "": // their server does not answer
			fmt.Fprintf(w, "problem: %s: %s\n", s.Node, safe(s.Problem))
		case s.Problem != "":
			fmt.Fprintf(w, "problem: %s/%s: the last snapshot was not taken: %s\n", s.Node, s.Image, safe(s.Problem))
		}
	}
}

func (a *app) nodeRestoreSnapshot(ctx context.Context, node string, r control.RestoreSnapshotRequest) error {
	if r.To == "" {
		return &usageError{
			errors.New("node restore: neither a PATH nor --to is given"), "name a PATH, or --to VERSION, TIME or STAMP",
		}
	}
	done, err := a.client().RestoreSnapshot(ctx, node, r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { printRestoredSnapshot(w, node, &done, r.DryRun) })
}

func printRestoredSnapshot(w io.Writer, node string, done *control.RestoredSnapshot, dry bool) {
	fmt.Fprintf(w, "snapshot: %s of %s\n", done.Snapshot.Stamp, strings.Join(done.Snapshot.Versions, " "))
	if done.Unknown {
		fmt.Fprintln(w, "the version of the snapshot was removed: "+
			"nothing is held back, because it is not known what the master has changed since")
	}
	if done.Copies > 0 {
		fmt.Fprintf(w, "%s%s, because the file system cannot share blocks; calls of the node wait\n",
			would(dry, "copied: "), size(done.Copies))
	}
	for _, p := range done.Paths {
		remark := ""
		switch {
		case p.What == "held back":
			remark = ", because the master has changed it since; it stays in the snapshot"
		case p.Displaced:
			remark = "; the present entry is set aside"
		}
		fmt.Fprintf(w, "%s%s %s%s\n", would(dry, p.What+": "), safe(string(p.Path)), p.Kind, remark)
		for _, c := range p.Conflicts {
			fmt.Fprintf(w, "  conflict: %s\n", safe(c.String()))
		}
	}
	switch {
	case len(done.Paths) == 0:
		fmt.Fprintln(w, "nothing to restore: the node has exactly that")
	case done.Undo != "":
		fmt.Fprintf(w, "undo: dim node restore %s --to %s\n", node, done.Undo)
	}
}
