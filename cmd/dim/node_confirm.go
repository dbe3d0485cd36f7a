package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeConfirmCommand() *cobra.Command {
	var dry bool
	cmd := a.listing(&cobra.Command{
		Use:   "confirm NODES…",
		Short: "Confirm that nodes run what their rollouts brought",
		Long: `After a rollout, dim rollout status lists for each node the services to restart
and the commands by which daemons read their configuration again. Nodes with
push report restarts, and whether systemd has read its units. What a node does
not report stays in its verdict until it boots.

This command ends that: it records that everything was done on these nodes that
they do not report themselves. What they report, and what needs a reboot, stays
in their verdicts. The next rollout has a verdict of its own.

With --dry-run it lists what would be confirmed: what to do on the nodes before.`,
		Example: `  dim node confirm n01 --dry-run
  ssh n01 systemctl reload dbus && dim node confirm n01
  dim node confirm 'n[01-64]'`,
		Args: operands(1, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.client().ConfirmNodes(cmd.Context(),
				control.ConfirmRequest{Nodes: joined(args), DryRun: dry})
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printConfirmed(w, list, dry) })
		},
		ValidArgsFunction: complete(anyNumber, a.nodeNames),
	})
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only list what would be confirmed")
	return cmd
}

func printConfirmed(w io.Writer, list []control.ConfirmedNode, dry bool) {
	what := "CONFIRMED"
	if dry {
		what = "TO CONFIRM"
	}
	row(w, "NODE", "ROLLOUT", what, "VERDICT")
	for _, n := range list {
		done := make([]string, 0, len(n.Reload)+len(n.Restart))
		done = append(done, n.Reload...)
		for _, unit := range n.Restart {
			done = append(done, "restart of "+unit)
		}
		id := "-"
		if n.Rollout > 0 {
			id = fmt.Sprint(n.Rollout)
		}
		row(w, n.Node, id, safe(strings.Join(done, ", ")), safe(n.Verdict))
	}
}
