package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dim/internal/control"
)

func (a *app) nodeRmCommand() *cobra.Command {
	var dry, yes bool
	cmd := a.listing(&cobra.Command{
		Use:   "rm [NODES…]",
		Short: "Remove the files of nodes that the description no longer has",
		Long: `A node that is removed from the description leaves its files on its server: what
it has written, what was set aside, and snapshots. If it comes back, it has them
again. As long as they are there, the versions below them cannot be pruned.

This command removes them for good. On a terminal it lists what it will remove,
and asks; elsewhere it needs --yes. With --dry-run it only lists. Without NODES,
--dry-run lists the files of all such nodes. Nodes of the description are
refused. On a head it asks all servers; those that do not answer are named, and
the exit code is 4 then.`,
		Example: `  dim node rm --dry-run
  dim node rm 'n[90-99]'
  dim node rm n99 --yes`,
		Args: operands(0, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.nodeRm(cmd, control.RemoveLayersRequest{Nodes: joined(args), DryRun: dry}, yes)
		},
		ValidArgsFunction: complete(anyNumber, a.leftNodes),
	})
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only list what would be removed")
	cmd.Flags().BoolVar(&yes, "yes", false, "remove without a question")
	return cmd
}

// leftNodes returns the names of the nodes of which files are left, for completion.
func (a *app) leftNodes(ctx context.Context) []string {
	var names []string
	list, _ := a.client().RemoveLayers(ctx, control.RemoveLayersRequest{DryRun: true}) // without a daemon: nothing
	for _, l := range list {
		if l.Node != "" {
			names = append(names, l.Node)
		}
	}
	return names
}

func (a *app) nodeRm(cmd *cobra.Command, r control.RemoveLayersRequest, yes bool) error {
	if r.Nodes == "" && !r.DryRun {
		return &usageError{errors.New("node rm: NODES are missing"), "dim node rm --dry-run lists all that is left"}
	}
	if !r.DryRun && !yes {
		plan := r
		plan.DryRun = true
		list, err := a.client().RemoveLayers(cmd.Context(), plan)
		if err != nil {
			return err
		}
		printRemovedLayers(a.err, list, true)
		sure, asked := a.confirm(cmd, "Remove them for good?")
		if !asked {
			return &usageError{errors.New("node rm: nobody can be asked"), "add --yes to remove them"}
		}
		if !sure {
			return errors.New("node rm: nothing was removed")
		}
	}
	list, err := a.client().RemoveLayers(cmd.Context(), r)
	if err != nil {
		return err
	}
	if err := a.show(list, func(w io.Writer) { printRemovedLayers(w, list, r.DryRun) }); err != nil {
		return err
	}
	for _, l := range list {
		if l.Problem != "" {
			return control.Errorf(control.Unavailable, "node rm: %s has not answered", l.Server).
				WithHint("run the command again when that server is up; dim status lists its problems")
		}
	}
	return nil
}

func printRemovedLayers(w io.Writer, list []control.RemovedLayer, dry bool) {
	total := uint64(0)
	for _, l := range list {
		if l.Problem != "" {
			fmt.Fprintf(w, "not known: what is left on %s: %s\n", l.Server, safe(l.Problem))
			continue
		}
		fmt.Fprintf(w, "%s%s of %s on %s, %s, %s\n", would(dry, "removed: "), l.Image, l.Node, l.Server,
			plural(l.Entries, "path"), size(l.Bytes))
		total += l.Bytes
	}
	switch {
	case len(list) == 0:
		fmt.Fprintln(w, "no files of removed nodes are left")
	case len(list) > 1:
		fmt.Fprintf(w, "%s%s\n", would(dry, "freed: "), size(total))
	}
}

// confirm asks a question on the terminal. asked is false if there is none.
func (a *app) confirm(cmd *cobra.Command, question string) (yes, asked bool) {
	if !a.hasTerminal(cmd) {
		return false, false
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // at the end of the input it is ""
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, true
	}
	return false, true
}

// hasTerminal reports whether a person can be asked.
func (a *app) hasTerminal(cmd *cobra.Command) bool {
	in, ok := cmd.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(in.Fd()))
}

func (a *app) nodeAcceptCommand() *cobra.Command {
	var r control.AcceptRequest
	cmd := a.listing(&cobra.Command{
		Use:   "accept NODE",
		Short: "Serve a node with files that are in doubt",
		Long: `If the journal of switches was damaged, the server does not know over which
version the files of some nodes are. It does not serve these nodes, and dim
status lists them. This command serves such a node with its files, which count
as files over the version that the journal has, and switches it to the version
that it should show. Files that belong to another version may then hide files of
the master that are newer; dim node diff lists what the node has.

With --dry-run it shows that version, and how much the node has.`,
		Example: `  dim node accept n01 --dry-run
  dim node accept n01`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := a.client().Accept(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return a.show(done, func(w io.Writer) {
				fmt.Fprintf(w, "%s%s of %s, as files over %s: %s, %s\n", would(r.DryRun, "accepted: "), done.Image,
					done.Node, done.Version, plural(done.Entries, "path"), size(done.Bytes))
				fmt.Fprintln(w, "the damaged journal:", done.Copy)
			})
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only show what would be accepted")
	return cmd
}
