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
		Short: "List what a node has of its own, or why two nodes differ",
		Long: `Lists what NODE has of its own: A added, D removed, M other content, a only other attributes (which ones stands behind). A file whose
size and time are the master's is taken for unchanged.

With a second node it tells why the two differ: their images and versions, the files that are rendered for each, and what each has of its own.`,
		Example: "  dim node diff n01\n  dim node diff n01 -o json | jq -r '.[] | select(.change == \"added\") | .path'\n  dim node diff n01 n02",
		Args:    operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return a.nodeDiffer(cmd.Context(), args[0], args[1])
			}
			return a.nodeOwn(cmd.Context(), args[0])
		},
		ValidArgsFunction: complete(2, a.nodeNames),
	})
}

func (a *app) nodeOwn(ctx context.Context, node string) error {
	list := []control.Change{}
	if err := a.client().NodeChanges(ctx, node, func(c control.Change) { list = append(list, c) }); err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		for _, c := range list {
			if c.What == "hides" {
				c.What = "hides the master's"
			}
			printChange(w, c)
		}
	})
}

func (a *app) nodeDiffer(ctx context.Context, one, other string) error {
	d, err := a.client().NodeDiff(ctx, one, other)
	if err != nil {
		return err
	}
	return a.show(d, func(w io.Writer) { printDifference(w, d) })
}

func printDifference(w io.Writer, d control.NodeDiff) {
	version := func(s control.NodeDiffSide) string { return fmt.Sprintf("%s@%d", s.Image, s.Version) }
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
		Short: "Set aside what a node has of its own",
		Long: `Gives the node a clean root again: what it has of its own, at and below the PATHs or everywhere, is set aside in one step, and the
master's files and those rendered for it show. dim node saved lists what was set aside, dim node restore NODE / --from STAMP undoes it.

Everything is refused for a node that may be running, having made a call in the last ten minutes, for its services would lose their files:
switch it off, name PATHs, or add --force and boot it again afterwards. Files that it has open stay open.`,
		Example: "  dim node reset n01 --dry-run\n  dim node reset n01\n  dim node reset n01 /etc/ssh /var/lib/app",
		Args:    operands(1, 1000),
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
	f.BoolVar(&q.DryRun, "dry-run", false, "only tell what would be set aside")
	f.BoolVar(&q.Force, "force", false, "also when the node may be running")
	return cmd
}

func printReset(w io.Writer, node string, list []control.SavedEntry, dry bool) {
	for _, s := range list {
		fmt.Fprintf(w, "%s%s %s\n", would(dry, "set aside: "), safe(string(s.Path)), s.Kind)
	}
	switch {
	case len(list) == 0:
		fmt.Fprintln(w, "it has nothing of its own there")
	case !dry:
		fmt.Fprintf(w, "undo: dim node restore %s / --from %s\n", node, list[0].Stamp)
	}
}
