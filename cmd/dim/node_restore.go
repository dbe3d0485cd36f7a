package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

// restoreFlags are the flags of `dim node restore`.
type restoreFlags struct {
	from, to      string
	force, dryRun bool
}

func (a *app) nodeRestoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := a.listing(&cobra.Command{
		Use:   "restore NODE (PATH | --to VERSION|TIME|STAMP)",
		Short: "Restore set-aside files, or a snapshot of the node's layer",
		Long: `With a PATH, it moves the set-aside files at or below PATH back into the root of
the node: the latest of each path, or those whose stamp begins with --from. To
the node, this looks as if it had written the files itself: while it runs, it
sees them within its cache time. A process that has one of these files open goes
on using it. What the node has at such a path now is set aside; dim node saved
lists it. With --to DIR, the files are put into that directory of the node
instead.

Without a PATH, the whole layer of the node becomes what it was at a snapshot;
dim node snapshots lists them. The snapshot is the last one of a VERSION of the
image (12 or compute@12), the last one at or before a TIME such as
2026-01-02T15:04:05Z, or the one with a STAMP. The present layer is kept in a
snapshot first, so that the restore can be undone, and is set aside. If the node
has another version now, the rules of a switch apply: what the master has
changed since is held back and stays in the snapshot. A node that may be running
is refused without --force. Files that it has open stay open.`,
		Example: `  dim node restore n01 --to compute@12 --dry-run
  dim node restore n01 --to 2026-01-02T15:04:05Z
  dim node restore n01 /etc/motd --dry-run
  dim node restore n01 /etc/motd
  dim node restore n01 / --from 20260102T1504
  dim node restore n01 /etc/motd --to /root/old`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				r := control.RestoreSnapshotRequest{To: f.to, DryRun: f.dryRun, Force: f.force}
				return a.nodeRestoreSnapshot(cmd.Context(), args[0], r)
			}
			return a.nodeRestore(cmd.Context(), args[0], control.RestoreRequest{
				Path: control.Path(args[1]), From: f.from, To: control.Path(f.to), DryRun: f.dryRun,
			})
		},
		ValidArgsFunction: completeSaved(a),
	})
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "with a PATH: from the entries whose stamp begins with `STAMP`")
	flags.StringVar(&f.to, "to", "", "without a PATH: a version, a time or a stamp; with one: a directory of the node")
	flags.BoolVar(&f.force, "force", false, "without a PATH: restore even if the node may be running")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only list what would be restored")
	return cmd
}

func (a *app) nodeRestore(ctx context.Context, node string, r control.RestoreRequest) error {
	list, err := a.client().Restore(ctx, node, r)
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) { printRestored(w, list, r.DryRun) })
}

func printRestored(w io.Writer, list []control.RestoredEntry, dry bool) {
	for _, r := range list {
		done := "restored: "
		if r.Saved.Kind == "removal" {
			done = "removed again: " // what comes back is that the node had removed it
		}
		text := would(dry, done) + safe(string(r.Path))
		switch r.Saved.Kind {
		case "opaque":
			text += ", which hides the master's"
		case "attributes":
			text += ", owner and mode"
		}
		if r.Displaced {
			text += "; the present entry is set aside"
		}
		fmt.Fprintln(w, text)
	}
}

// completeSaved offers nodes, then the paths of the node's set-aside entries.
func completeSaved(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return complete(1, a.nodeNames)(cmd, args, part)
		}
		return complete(2, func(ctx context.Context) []string {
			var paths []string
			list, _ := a.client().Saved(ctx, args[0]) // when no daemon answers it offers nothing
			for _, s := range list {
				paths = append(paths, string(s.Path))
			}
			return paths
		})(cmd, args, part)
	}
}
