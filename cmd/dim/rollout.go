package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) rolloutCommand() *cobra.Command {
	r := control.RolloutRequest{}
	var soak time.Duration
	cmd := a.listing(&cobra.Command{
		Use:   "rollout [NODES] NAME[@VERSION]",
		Short: "Move nodes to a version of their image",
		Long: `Lets nodes follow a version: without one the newest, without NODES all nodes of the image. A capture alone moves no node.

--when now moves them at once, running or off: what runs keeps the files that it has open, and whoever opens a file anew sees the new
version. 

When all nodes of an image were moved, the version is the image's current one: nodes that are added to the description later start
with it.`,
		Example: `  dim rollout compute --when now                     all nodes of the image, to the newest version
  dim rollout 'n[01-04]' compute@12 --when now       some nodes, to version 12
  dim rollout compute --when now --dry-run           who would move from where to where?
  dim rollout status                                 how far is it?`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Version = args[len(args)-1]
			if len(args) > 1 {
				r.Nodes = args[0]
			}
			r.Soak = soak.Seconds()
			return a.rollout(cmd.Context(), r)
		},
		ValidArgsFunction: complete(2, func(ctx context.Context) []string { return append(a.nodeNames(ctx), a.references(ctx)...) }),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only tell who would move from which version to which")
	a.rolloutFlags(cmd, &r, &soak, "when")
	cmd.AddCommand(a.rolloutLsCommand(), a.rolloutStatusCommand(), a.rolloutUndoCommand())
	return cmd
}

// rolloutFlags adds the flags that say how nodes move; the one that says when has a name of its own with each command.
func (a *app) rolloutFlags(cmd *cobra.Command, r *control.RolloutRequest, _ *time.Duration, when string) {
	cmd.Flags().StringVar(&r.When, when, "", "`WHEN` nodes change: now")
	_ = cmd.RegisterFlagCompletionFunc(when, cobra.FixedCompletions([]string{"now"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) rollout(ctx context.Context, r control.RolloutRequest) error {
	if r.When == "" {
		return &usageError{fmt.Errorf("rollout: it is not said when nodes change"), "--when now"}
	}
	done, err := a.client().Rollout(ctx, r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { printRollout(w, done) })
}

// printRollout tells in a line or a few what a rollout did, does, or would do.
func printRollout(w io.Writer, r control.Rollout) {
	ref := fmt.Sprintf("%s@%d", r.Image, r.Version)
	switch r.State {
	case "nothing to do":
		fmt.Fprintf(w, "%s: %s follow it already\n", ref, plural(r.Count, "node"))
		return
	case "planned":
		printPlan(w, r)
		return
	}
	line := fmt.Sprintf("rollout %d: %s, %s of %s", r.ID, r.State, ref, plural(r.Count, "node"))
	if r.Reason != "" {
		line += ": " + safe(r.Reason)
	}
	fmt.Fprintf(w, "%s; %d show it\n", line, r.Shows)
}

func printPlan(w io.Writer, r control.Rollout) {
	row(w, "RING", "COUNT", "FROM", "TO", "PATHS", "NODES")
	for i, ring := range r.Rings {
		for _, m := range ring.Moves {
			row(w, i+1, m.Count, m.From, m.To, m.Paths, m.Nodes)
		}
	}
}

func (a *app) rolloutLsCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:     "ls",
		Short:   "List the rollouts, the latest first",
		Example: "  dim rollout ls\n  dim rollout ls -o json | jq '.[0].state'",
		Args:    operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Rollouts(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printRollouts(w, list, time.Now()) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

func printRollouts(w io.Writer, list []control.Rollout, now time.Time) {
	row(w, "ROLLOUT", "VERSION", "WHEN", "STATE", "AGE", "RING", "SHOW IT", "NODES", "REASON")
	for _, r := range list {
		row(w, r.ID, fmt.Sprintf("%s@%d", r.Image, r.Version), r.When, r.State, ago(r.Started, now), fmt.Sprintf("%d/%d", r.Ring, len(r.Rings)),
			fmt.Sprintf("%d/%d", r.Shows, r.Count), r.Nodes, safe(r.Reason))
	}
}

func (a *app) rolloutStatusCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:     "status [ROLLOUT]",
		Short:   "Tell how far a rollout is, ring by ring and node by node",
		Long:    "Tells how far a rollout is: without a number the latest. The last column says for each node whether it has got there, and if not, why.",
		Example: "  dim rollout status\n  dim rollout status 7 -o json | jq '.nodes_now[] | select(.verdict != \"current\")'",
		Args:    operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := rolloutNumber(cmd, args)
			if err != nil {
				return err
			}
			r, err := a.client().RolloutStatus(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { printRolloutStatus(w, r, time.Now()) })
		},
		ValidArgsFunction: complete(1, a.rolloutNumbers),
	})
}

func printRolloutStatus(w io.Writer, r control.Rollout, now time.Time) {
	state := r.State
	if r.State == "running" {
		state += ", " + r.Phase
	}
	if r.Reason != "" {
		state += ": " + safe(r.Reason)
	}
	row(w, "rollout", r.ID)
	row(w, "version", fmt.Sprintf("%s@%d, --when %s", r.Image, r.Version, r.When))
	row(w, "state", state)
	row(w, "since", fmt.Sprintf("%s (begun %s ago)", clock(r.Since), ago(r.Started, now)))
	for i, ring := range r.Rings {
		mark := ""
		if i+1 == r.Ring && (r.State == "running" || r.State == "paused") {
			mark = " <"
		}
		row(w, fmt.Sprintf("ring %d", i+1), fmt.Sprintf("%d of %s: %s%s", ring.Shows, plural(ring.Count, "node"), ring.Nodes, mark))
	}
	fmt.Fprintln(w)
	row(w, "NODE", "RING", "SHOWS", "STAGE", "VERDICT")
	for _, n := range r.States {
		row(w, n.Node, n.Ring, n.Shows, n.Stage, safe(n.Verdict))
	}
}

func (a *app) rolloutUndoCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:   "undo [ROLLOUT]",
		Short: "Give every node back what it followed before",
		Long: `Gives every node that a rollout has moved back what it followed before, also in the middle of it. It is refused when somebody has moved
one of the nodes since. Without a number it is the latest rollout.`,
		Example: "  dim rollout undo\n  dim rollout undo 7",
	}, &control.RolloutChange{Do: "undo"})
}

// rolloutChange makes a command that changes a rollout.
func (a *app) rolloutChange(cmd *cobra.Command, change *control.RolloutChange) *cobra.Command {
	cmd.Args = operands(0, 1)
	cmd.ValidArgsFunction = complete(1, a.rolloutNumbers)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := rolloutNumber(cmd, args)
		if err == nil && id == 0 {
			var latest control.Rollout
			latest, err = a.client().RolloutStatus(cmd.Context(), 0)
			id = latest.ID
		}
		if err != nil {
			return err
		}
		r, err := a.client().ChangeRollout(cmd.Context(), id, *change)
		if err != nil {
			return err
		}
		return a.show(r, func(w io.Writer) { printRollout(w, r) })
	}
	return a.listing(cmd)
}

// rolloutNumber is the operand, or 0.
func rolloutNumber(cmd *cobra.Command, args []string) (int, error) {
	if len(args) == 0 {
		return 0, nil
	}
	id, err := strconv.Atoi(args[0])
	if err != nil || id < 1 {
		return 0, &usageError{fmt.Errorf("%s: %q is no rollout's number", verb(cmd), args[0]), "dim rollout ls lists them"}
	}
	return id, nil
}

func (a *app) rolloutNumbers(ctx context.Context) (names []string) {
	list, _ := a.client().Rollouts(ctx)
	for _, r := range list {
		names = append(names, cobra.CompletionWithDesc(fmt.Sprint(r.ID), strings.Join([]string{r.State, r.Image}, " ")))
	}
	return names
}
