package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) rolloutCommand() *cobra.Command {
	r, wait := control.RolloutRequest{}, false
	cmd := a.listing(&cobra.Command{
		Use:   "rollout [NODES] NAME[@VERSION]",
		Short: "Move nodes to a version of their image",
		Long: `Lets nodes follow a version: without one the newest, without NODES all nodes of the image. A capture alone moves no node.

--when now moves them at once, running or off: what runs keeps the files that it has open, and whoever opens a file anew sees the new
version. --when boot moves each when it boots the next time. A node in the middle of a boot keeps what it was given the kernel of until
it runs.

--rings 1,10%,rest moves one node, then a tenth of all, then the others. Before the next ring follows, all nodes of the ring show the
version, the hook was run, the soak time is over, the nodes that ran before are up, and the check succeeds. What does not go well
pauses the rollout: dim rollout status tells why. The server carries it out: this command returns when the first ring has begun, and a
server that is started again goes on.

Hook and check are run on the head by /bin/sh, with DIM_ROLLOUT, DIM_RING (from 1), DIM_NODES (of the ring, a node set), DIM_IMAGE and
DIM_VERSION in the environment. A command that was running when the server ended is run again.

When all nodes of an image were moved, the version is the image's current one: nodes that are added to the description later start
with it.`,
		Example: `  dim rollout compute --when now                     all nodes of the image, to the newest version
  dim rollout 'n[01-04]' compute@12 --when boot      some nodes, to version 12, when they boot
  dim rollout compute --when now --rings 1,10%,rest --soak 10m --check 'nodes-are-well "$DIM_NODES"'
  dim rollout compute --when now --dry-run           who would move from where to where?
  dim rollout status                                 how far is it?`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Version = args[len(args)-1]
			if len(args) > 1 {
				r.Nodes = args[0]
			}
			return a.rollout(cmd.Context(), r, wait)
		},
		ValidArgsFunction: complete(2, func(ctx context.Context) []string { return append(a.nodeNames(ctx), a.references(ctx)...) }),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only tell who would move from which version to which")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when it has ended or is paused (exit code 3)")
	rolloutFlags(cmd, &r, "when")
	cmd.AddCommand(a.rolloutLsCommand(), a.rolloutStatusCommand(), a.rolloutPauseCommand(), a.rolloutResumeCommand(), a.rolloutUndoCommand(),
		a.rolloutStopCommand())
	return cmd
}

// rolloutFlags adds the flags that say how nodes move; the one that says when has a name of its own with each command.
func rolloutFlags(cmd *cobra.Command, r *control.RolloutRequest, when string) {
	f := cmd.Flags()
	f.StringVar(&r.When, when, "", "`WHEN` nodes change: now or boot")
	f.StringVar(&r.Rings, "rings", "", "move in `RINGS`: numbers of nodes, percentages and rest, such as 1,10%,rest")
	f.Var((*seconds)(&r.Soak), "soak", "how long a ring has to be well before the next one follows, such as 10m")
	f.StringVar(&r.Check, "check", "", "`COMMAND` that has to succeed after each ring")
	f.StringVar(&r.Hook, "hook", "", "`COMMAND` that is run for each ring when it shows the version")
	_ = cmd.RegisterFlagCompletionFunc(when, cobra.FixedCompletions([]string{"now", "boot"}, cobra.ShellCompDirectiveNoFileComp))
}

// seconds is a flag that is a duration.
type seconds float64

func (s *seconds) String() string { return time.Duration(float64(*s) * float64(time.Second)).String() }
func (s *seconds) Type() string   { return "duration" }
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	*s = seconds(d.Seconds())
	return err
}

func (a *app) rollout(ctx context.Context, r control.RolloutRequest, wait bool) error {
	if r.When == "" {
		return &usageError{errors.New("rollout: it is not said when nodes change"), "--when now or --when boot"}
	}
	done, err := a.client().Rollout(ctx, r)
	for err == nil && wait && done.State == "running" {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
		done, err = a.client().RolloutStatus(ctx, done.ID)
	}
	if err != nil {
		return err
	}
	if err := a.show(done, func(w io.Writer) { printRollout(w, done) }); err != nil {
		return err
	}
	if wait && done.State == "paused" {
		return errProblems
	}
	return nil
}

// printRollout tells in a line or a few what a rollout did, does, or would do.
func printRollout(w io.Writer, r control.Rollout) {
	ref := fmt.Sprintf("%s@%d", r.Image, r.Version)
	switch r.State {
	case "nothing to do":
		fmt.Fprintf(w, "%s: %s follow it already\n", ref, plural(r.Count, "node"))
		return
	case "planned":
		printMoves(w, r)
		return
	}
	fmt.Fprintln(w, "rollout", rolloutLine(r))
}

func rolloutLine(r control.Rollout) string {
	line := fmt.Sprintf("%d: %s, %s@%d of %s", r.ID, r.State, r.Image, r.Version, plural(r.Count, "node"))
	if len(r.Rings) > 1 {
		line += fmt.Sprintf(", ring %d of %d", r.Ring, len(r.Rings))
	}
	if r.Reason != "" {
		line += ": " + safe(r.Reason)
	}
	return fmt.Sprintf("%s; %d show it", line, r.Shows)
}

// printMoves tells who would move, and what that means for them while they run.
func printMoves(w io.Writer, r control.Rollout) {
	row(w, "RING", "COUNT", "FROM", "TO", "PATHS", "NODES")
	for i, ring := range r.Rings {
		for _, m := range ring.Moves {
			row(w, i+1, m.Count, m.From, m.To, m.Paths, m.Nodes)
		}
	}
	told := map[string]bool{}
	for _, ring := range r.Rings {
		for _, m := range ring.Moves {
			if way := m.From + " to " + m.To; m.Verdict != nil && !told[way] {
				told[way] = true
				printMeaning(w, way, *m.Verdict)
			}
		}
	}
}

// printMeaning tells what a way from one version to another means for nodes that run.
func printMeaning(w io.Writer, way string, v control.Verdict) {
	if v.Programs == 0 && len(v.Restart) == 0 && !v.Init && !v.Reboot {
		fmt.Fprintf(w, "%s: all of it at once, nothing has to be restarted\n", way)
		return
	}
	fmt.Fprintf(w, "%s, on nodes that run:\n", way)
	printVerdict(w, v)
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

func (a *app) rolloutPauseCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:     "pause [ROLLOUT]",
		Short:   "Keep a rollout where it is",
		Long:    "Keeps a rollout where it is; a hook or check that is running is ended. Without a number it is the latest rollout.",
		Example: "  dim rollout pause\n  dim rollout pause 7 --dry-run",
	}, &control.RolloutChange{Do: "pause"})
}

func (a *app) rolloutResumeCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:   "resume [ROLLOUT]",
		Short: "Let a paused rollout go on",
		Long: `Lets a rollout go on that was paused by hand or because something did not go well. What it was at begins again: the hook, the soak
time and the check. Without a number it is the latest rollout.`,
		Example: "  dim rollout resume",
	}, &control.RolloutChange{Do: "resume"})
}

func (a *app) rolloutUndoCommand() *cobra.Command {
	change := &control.RolloutChange{Do: "undo"}
	cmd := a.rolloutChange(&cobra.Command{
		Use:   "undo [ROLLOUT]",
		Short: "Give every node back what it followed before",
		Long: `Gives every node that a rollout has moved back what it followed before, also in the middle of it. Nodes that it moved at their boot change
back at their next one, unless --when now says otherwise. It is refused when somebody has moved one of the nodes since. Without a number it
is the latest rollout.`,
		Example: "  dim rollout undo --dry-run\n  dim rollout undo\n  dim rollout undo 7 --when boot",
	}, change)
	cmd.Flags().StringVar(&change.When, "when", "", "`WHEN` nodes change back: now or boot (default: as they changed)")
	_ = cmd.RegisterFlagCompletionFunc("when", cobra.FixedCompletions([]string{"now", "boot"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) rolloutStopCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:   "stop [ROLLOUT]",
		Short: "End a rollout where it is",
		Long: `Ends a rollout that is running or paused: the nodes that it has moved keep the version, the others theirs. Another rollout may move them
then. Without a number it is the latest rollout.`,
		Example: "  dim rollout stop",
	}, &control.RolloutChange{Do: "stop"})
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
		return a.show(r, func(w io.Writer) { printRolloutChange(w, r, change.DryRun) })
	}
	cmd.Flags().BoolVar(&change.DryRun, "dry-run", false, "only tell what would become of it, and who would move")
	return a.listing(cmd)
}

func printRolloutChange(w io.Writer, r control.Rollout, dry bool) {
	fmt.Fprintln(w, would(dry, "rollout"), rolloutLine(r))
	if dry && slices.ContainsFunc(r.Rings, func(ring control.RolloutRing) bool { return len(ring.Moves) > 0 }) {
		printMoves(w, r)
	}
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
