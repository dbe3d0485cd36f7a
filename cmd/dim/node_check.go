package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/daemon"
)

func (a *app) nodeCheckCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "check [NODES…]",
		Short: "Check the layers of nodes on the disk",
		Long: `Reads the layers, the saved areas and the journal of the nodes, or of all nodes,
and reports what docs/formats/layer.md does not allow: ids that two entries
share, wrong hard-link groups and whiteouts, entries that do not belong there,
and entries to which others have links. If a daemon runs, the command also
compares what it serves with the disk. Otherwise it reads the data directory and
changes nothing.

Leftovers of a crash are listed as "repairable": the next use of the layer
repairs them. They do not count as problems. The exit code is 3 when there are
problems.`,
		Example: `  dim node check
  dim node check 'n[01-04]' -o json
  dim --data /mnt/old/dim node check`,
		Args: operands(0, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.nodeCheck(cmd.Context(), joined(args))
		},
		ValidArgsFunction: complete(anyNumber, a.nodeNames),
	})
}

func (a *app) nodeCheck(ctx context.Context, set string) error {
	list, err := a.client().Check(ctx, set)
	if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.Unavailable {
		list, err = daemon.CheckReplicas(a.data, set)
	}
	if err != nil {
		return err
	}
	if err := a.show(list, func(w io.Writer) { printChecks(w, list) }); err != nil {
		return err
	}
	if slices.ContainsFunc(list, hasProblem) {
		return errProblems
	}
	return nil
}

func hasProblem(c control.CheckResult) bool {
	return slices.ContainsFunc(c.Problems, func(p control.LayerProblem) bool { return !p.Repairable })
}

func printChecks(w io.Writer, list []control.CheckResult) {
	heading(w, len(list), "no replicas", "NODE", "IMAGE", "ENTRIES", "SIZE", "SAVED", "PROBLEMS")
	for _, c := range list {
		row(w, c.Node, c.Image, count(uint64(c.Entries)), size(c.Bytes), count(uint64(c.Saved)), len(c.Problems))
	}
	for _, c := range list {
		for _, p := range c.Problems {
			word := "problem"
			if p.Repairable {
				word = "repairable"
			}
			if c.Image == "" { // their server does not answer
				fmt.Fprintf(w, "%s: %s: %s\n", word, c.Node, safe(p.Text))
				continue
			}
			fmt.Fprintf(w, "%s: %s/%s/%s %s\n", word, c.Node, c.Image, safe(string(p.Path)), safe(p.Text))
		}
	}
}
