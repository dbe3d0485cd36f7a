package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/daemon"
)

func (a *app) nodeCheckCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "check [NODES]",
		Short: "Check what is kept of nodes' own on the disk",
		Long: `Reads the layers, the saved areas and the journal of the nodes, or of all, and tells what docs/formats/layer.md does not allow: ids that
two entries have, hard-link groups and whiteouts that are wrong, what does not belong there, what others have links to. With a running daemon
what is served is compared with the disk; without one the data directory is read alone, and nothing is changed.

What a crash leaves, and the next use of the layer puts right, is listed as "mends" and is no problem. Exit code 3 tells of problems.`,
		Example: "  dim node check\n  dim node check 'n[01-04]' -o json\n  dim --data /mnt/old/dim node check",
		Args:    operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := strings.Join(args, "")
			list, err := a.client().Check(cmd.Context(), set)
			if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.Unavailable {
				list, err = daemon.CheckReplicas(a.data, set)
			}
			if err != nil {
				return err
			}
			if err := a.show(list, func(w io.Writer) { printChecked(w, list) }); err != nil {
				return err
			}
			for _, c := range list {
				for _, p := range c.Problems {
					if !p.Repairable {
						return errProblems
					}
				}
			}
			return nil
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
}

func printChecked(w io.Writer, list []control.CheckResult) {
	row(w, "NODE", "IMAGE", "ENTRIES", "SIZE", "SAVED", "PROBLEMS")
	for _, c := range list {
		row(w, c.Node, c.Image, count(uint64(c.Entries)), size(c.Bytes), count(uint64(c.Saved)), len(c.Problems))
	}
	for _, c := range list {
		for _, p := range c.Problems {
			word := "problem"
			if p.Repairable {
				word = "mends"
			}
			fmt.Fprintf(w, "%s: %s/%s/%s %s\n", word, c.Node, c.Image, safe(string(p.Path)), safe(p.Text))
		}
	}
}
