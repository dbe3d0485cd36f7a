package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeDiffCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "diff NODE [OTHER]",
		Short: "List the changes of a node, or why two nodes differ",
		Long: `Lists the changes that NODE has made to its root, after a letter: A added, D
removed, M other content, a only other attributes, which are then named. A file
with the size and the time of the master's file counts as unchanged. The packages
that the node has installed, upgraded or removed come first; with -o json they
are in dim node show.

With a second node it lists why the two differ: their images and versions, the
files that are rendered for each, and the changes of each.`,
		Example: `  dim node diff n01
  dim node diff n01 -o json | jq -r '.[] | select(.change == "added") | .path'
  dim node diff n01 n02`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return a.nodeCompare(cmd.Context(), args[0], args[1])
			}
			return a.nodeChanges(cmd.Context(), args[0])
		},
		ValidArgsFunction: complete(2, a.nodeNames),
	})
}

func (a *app) nodeChanges(ctx context.Context, node string) error {
	list := []control.Change{}
	if err := a.client().NodeChanges(ctx, node, func(c control.Change) { list = append(list, c) }); err != nil {
		return err
	}
	n, err := a.client().Node(ctx, node)
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		if n.Details != nil {
			printPackages(w, n.Details.Packages)
			if text := n.Details.PackagesUnread; text != "" {
				fmt.Fprintln(w, text)
			}
		}
		for _, c := range list {
			if c.What == "hides" {
				c.What = "hides the master's"
			}
			printChange(w, c)
		}
	})
}

func (a *app) nodeCompare(ctx context.Context, one, other string) error {
	d, err := a.client().NodeDiff(ctx, one, other)
	if err != nil {
		return err
	}
	return a.show(d, func(w io.Writer) { printDifference(w, d) })
}

func printDifference(w io.Writer, d control.NodeDiff) {
	version := func(s control.NodeDiffSide) string { return versionRef(s.Image, s.Version) }
	row(w, "WHAT", strings.ToUpper(d.A.Node), strings.ToUpper(d.B.Node), "PATH")
	if version(d.A) != version(d.B) {
		row(w, "version", version(d.A), version(d.B), "")
	}
	for _, p := range d.Paths {
		row(w, p.Of, p.A, p.B, safe(string(p.Path)))
	}
}

func (a *app) nodeResetCommand() *cobra.Command {
	var q control.ResetRequest
	cmd := a.listing(&cobra.Command{
		Use:   "reset NODE [PATH...]",
		Short: "Set aside the changes of a node",
		Long: `Gives the node a clean root: its changes, at and below the PATHs or everywhere,
are set aside in one step, and the files of the master and those rendered for
the node appear. dim node saved lists what was set aside, and
dim node restore NODE / --from STAMP undoes the reset.

Without a PATH, a node that may be running is refused, because its services
would lose their files. A node may be running if it has made a call within the
last ten minutes. Switch it off, name PATHs, or add --force and boot the node
afterwards. Files that it has open stay open.`,
		Example: `  dim node reset n01 --dry-run
  dim node reset n01
  dim node reset n01 /etc/ssh /var/lib/app`,
		Args: operands(1, 1000),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range args[1:] {
				q.Paths = append(q.Paths, control.Path(p))
			}
			list, err := a.client().Reset(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printReset(w, args[0], list, q.DryRun) })
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
	f := cmd.Flags()
	f.BoolVar(&q.DryRun, "dry-run", false, "only list what would be set aside")
	f.BoolVar(&q.Force, "force", false, "reset even if the node may be running")
	return cmd
}

func printReset(w io.Writer, node string, list []control.SavedEntry, dry bool) {
	for _, s := range list {
		fmt.Fprintf(w, "%s%s %s\n", would(dry, "set aside: "), safe(string(s.Path)), s.Kind)
	}
	switch {
	case len(list) == 0:
		fmt.Fprintln(w, "nothing to set aside")
	case !dry:
		fmt.Fprintf(w, "undo: dim node restore %s / --from %s\n", node, list[0].Stamp)
	}
}
