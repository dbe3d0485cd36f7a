package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dim/internal/control"
)

func (a *app) rolloutCommand() *cobra.Command {
	var r control.RolloutRequest
	var wait bool
	cmd := a.listing(&cobra.Command{
		Use:   "rollout [NODES…] NAME[@VERSION]",
		Short: "Move nodes to a version of their image",
		Long: `Lets nodes follow a version of their image: those of the node set NODES, or all
nodes of the image for '@*'. Without NODES the command asks on a terminal
whether all nodes shall move; elsewhere that is an error. Several operands are
one node set. Without VERSION the nodes move to the newest version. A capture
alone moves no node.

With --when now they move at once, whether they are running or off. Running
programs keep the files that they have open; a file that is opened later is that
of the new version. With --when boot each node moves at its next boot. A node
that is booting keeps the version of its kernel until it runs.

With --rings 1,10%,rest, one node moves first, then a tenth of all nodes, then
the others. The next ring follows when all of this holds for a ring:

  - all nodes of the ring show the version
  - the hook was run
  - the soak time is over
  - the nodes that ran before are up
  - the check succeeds

If one of these fails, the rollout is paused, and dim rollout status shows the
reason. Some nodes may fail: as many as --max-failed says for a ring. They follow
the version too, and show it when they can. Before the first ring the rollout
waits until the servers of its nodes have the version, for ten minutes at most,
and for a minute for servers that do not report; not with --no-wait.

The server carries the rollout out, also across a restart. This command returns
when the first ring has begun or waits for servers; with --wait, when the
rollout has ended.

A rollout is done when all its nodes show the version: with --when boot, when
the last of them has booted. Until then another rollout may take nodes over from
it, unless it has further rings, a hook or a check; it ends as "replaced" when
all its nodes were taken.

The head runs hook and check with /bin/sh, with DIM_ROLLOUT, DIM_RING (from 1),
DIM_NODES (of the ring, a node set), DIM_NODES_FILE (a file with the same nodes,
one name a line), DIM_IMAGE and DIM_VERSION in the environment. If the server
ends while a command runs, it runs it again later.

When all nodes of an image have moved, the version becomes the current one of
the image: nodes that are added to the description later start with it.`,
		Example: `  dim rollout '@*' compute --when now            all, to the newest version
  dim rollout 'n[01-04]' compute@12 --when boot  some nodes, when they boot
  dim rollout '@*' compute --when now --rings 1,10%,rest --soak 10m \
      --check 'nodes-are-well "$DIM_NODES"'
  dim rollout compute --when now --dry-run       list which nodes would move
  dim rollout status                             show the progress`,
		Args: operands(1, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			last := len(args) - 1
			r.Nodes, r.Version = joined(args[:last]), args[last]
			return a.rollout(cmd, r, wait)
		},
		ValidArgsFunction: complete(anyNumber, a.nodesAndReferences),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list which nodes would move from which version to which")
	cmd.Flags().BoolVar(&wait, "wait", false,
		"return when the rollout has ended or is paused (exit code 3 if it is not done)")
	rolloutFlags(cmd, &r, "when")
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(a.rolloutLsCommand(), a.rolloutStatusCommand(), a.rolloutPauseCommand(), a.rolloutResumeCommand(),
		a.rolloutUndoCommand(), a.rolloutStopCommand())
	return cmd
}

// rolloutFlags adds the flags of a rollout. The flag for the time of the change is called when.
func rolloutFlags(cmd *cobra.Command, r *control.RolloutRequest, when string) {
	f := cmd.Flags()
	f.StringVar(&r.When, when, "", "`WHEN` nodes change: now or boot")
	f.Var((*nonBlank)(&r.Rings), "rings", "move in `RINGS`: numbers of nodes, percentages and rest, such as 1,10%,rest")
	f.Var((*seconds)(&r.Soak), "soak", "how long to wait after each ring, such as 10m")
	f.Var((*nonBlank)(&r.Check), "check", "`COMMAND` that must succeed after each ring")
	f.Var((*nonBlank)(&r.Hook), "hook", "`COMMAND` to run for each ring when it shows the version")
	f.Var((*nonBlank)(&r.MaxFailed), "max-failed",
		"`COUNT` of nodes, or percentage, of a ring that may fail without stopping the rollout (default 1%)")
	f.BoolVar(&r.NoWait, "no-wait", false, "do not wait until the servers have the version")
	f.StringVar(&r.OnConflict, "on-conflict", "",
		"`CHOICE` for nodes that have changed packages which the version changes too: stop (they are not moved; the "+
			"default), master (what they have of these packages is set aside) or node (these packages stay theirs)")
	completeFlag(cmd, when, "now", "boot")
	completeFlag(cmd, "on-conflict", "stop", "master", "node")
}

// seconds is a flag whose value is a duration.
type seconds float64

func (s *seconds) String() string { return time.Duration(float64(*s) * float64(time.Second)).String() }
func (s *seconds) Type() string   { return "duration" }
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	*s = seconds(d.Seconds())
	return err
}

func (a *app) rollout(cmd *cobra.Command, r control.RolloutRequest, wait bool) error {
	if r.When == "" {
		if r.Nodes == "" {
			if like := cmd.SuggestionsFor(r.Version); len(like) > 0 {
				return &usageError{
					fmt.Errorf("rollout: unknown command %q", r.Version),
					"did you mean " + strings.Join(like, " or ") + "?",
				}
			}
		}
		return &usageError{
			errors.New("rollout: --when is missing"),
			"--when now or --when boot; " + cmd.CommandPath() + " --help lists the commands",
		}
	}
	ctx := cmd.Context()
	if r.Nodes == "" && !r.DryRun {
		if err := a.confirmAll(cmd, r); err != nil {
			return err
		}
		r.Nodes = "@*"
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
	switch done.State {
	case "paused", "undone", "stopped", "replaced": // by somebody else: its nodes need not show the version
		if wait {
			return errProblems
		}
	}
	return nil
}

// confirmAll asks on the terminal whether all nodes of the image shall move.
func (a *app) confirmAll(cmd *cobra.Command, r control.RolloutRequest) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return &usageError{
			errors.New("rollout: NODES is missing"),
			fmt.Sprintf("for all nodes of the image: dim rollout '@*' %s --when %s", r.Version, r.When),
		}
	}
	r.DryRun = true
	plan, err := a.client().Rollout(cmd.Context(), r)
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Move all %s of image %s to %s?", plural(plan.Count, "node"), plan.Image,
		versionRef(plan.Image, plan.Version))
	if yes, _ := a.confirm(cmd, question); !yes {
		return errors.New("rollout: no node was moved")
	}
	return nil
}

// printRollout prints what a rollout did, does, or would do.
func printRollout(w io.Writer, r control.Rollout) {
	ref := versionRef(r.Image, r.Version)
	switch r.State {
	case "nothing to do":
		fmt.Fprintf(w, "nothing to do: %s of %s already on %s\n",
			count(uint64(r.Count)), plural(r.Count, "node"), ref)
		return
	case "planned":
		printMoves(w, r)
		printOwn(w, r.Own, true)
		return
	}
	fmt.Fprintln(w, "rollout", rolloutLine(r))
	printOwn(w, r.Own, false)
}

// rolloutLine is "1 done: 4 of 4 nodes on compute@2", or "2 undone: 4 nodes, compute@2".
func rolloutLine(r control.Rollout) string {
	line := fmt.Sprintf("%d %s", r.ID, rolloutState(r))
	if len(r.Rings) > 1 {
		line += fmt.Sprintf(", ring %d of %d", r.Ring, len(r.Rings))
	}
	nodes, ref := plural(r.Count, "node"), versionRef(r.Image, r.Version)
	if r.Shown != nil {
		line += fmt.Sprintf(": %s of %s on %s", count(uint64(*r.Shown)), nodes, ref)
	} else { // how many show the version is not known, or it no longer holds
		line += fmt.Sprintf(": %s, %s", nodes, ref)
	}
	if r.Reason != "" {
		line += "; " + safe(r.Reason)
	}
	return line
}

// rolloutState is the state for a person: a rollout that runs may only be waiting for boots.
func rolloutState(r control.Rollout) string {
	if r.State == "running" && r.When == "boot" && r.Phase == "switching" {
		return "waits for boots"
	}
	return r.State
}

// shownOf is "3/4"; "-" when it is not known how many nodes show a version.
func shownOf(shown *int, all int) string {
	if shown == nil {
		return "-"
	}
	return count(uint64(*shown)) + "/" + count(uint64(all))
}

// printMoves prints which nodes would move, and what that means for those that run.
func printMoves(w io.Writer, r control.Rollout) {
	row(w, "RING", "COUNT", "FROM", "TO", "PATHS", "NODES")
	for i, ring := range r.Rings {
		for _, m := range ring.Moves {
			row(w, i+1, count(uint64(m.Count)), m.From, m.To, count(uint64(m.Paths)), cutSet(m.Nodes))
		}
	}
	printed := map[string]bool{}
	for _, ring := range r.Rings {
		for _, m := range ring.Moves {
			if step := m.From + " to " + m.To; m.Verdict != nil && !printed[step] {
				printed[step] = true
				printMoveVerdict(w, step, *m.Verdict)
			}
		}
	}
}

// printMoveVerdict prints what the move from one version to another means for nodes that run.
func printMoveVerdict(w io.Writer, step string, v control.Verdict) {
	if v.Unknown == "" && v.Programs == 0 && len(v.Restart) == 0 && len(v.Reload) == 0 && !v.Init && !v.Reboot {
		fmt.Fprintf(w, "%s: takes effect at once; no service needs a restart\n", step)
		return
	}
	fmt.Fprintf(w, "%s, on nodes that run:\n", step)
	printVerdict(w, v)
}

func (a *app) rolloutLsCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the rollouts, the latest first",
		Example: "  dim rollout ls\n  dim rollout ls -o json | jq '.[0].state'",
		Args:    operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Rollouts(cmd.Context())
			if err != nil {
				return err
			}
			return showList(a, list, func(r control.Rollout) string { return strconv.Itoa(r.ID) },
				func(w io.Writer) { printRollouts(w, list, time.Now()) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

func printRollouts(w io.Writer, list []control.Rollout, now time.Time) {
	heading(w, len(list), "no rollouts",
		"ROLLOUT", "VERSION", "WHEN", "STATE", "AGE", "RING", "ON IT", "NODES", "REASON")
	for _, r := range list {
		row(w, r.ID, versionRef(r.Image, r.Version), r.When, rolloutState(r), ago(r.Started, now),
			fmt.Sprintf("%d/%d", r.Ring, len(r.Rings)), shownOf(r.Shown, r.Count), cutSet(r.Nodes), safe(r.Reason))
	}
}

func (a *app) rolloutStatusCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "status [ROLLOUT]",
		Short: "Show the progress of a rollout, by ring and by node",
		Long: `Shows the progress of a rollout; without a number, of the latest one. The last
column shows the verdict on each node: "current", or why it is not.`,
		Example: `  dim rollout status
  dim rollout status 7 -o json | jq '.nodes_now[] | .node + " " + .verdict'`,
		Args: operands(0, 1),
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
	state := rolloutState(r)
	if state == "running" {
		state += ", " + r.Phase
	}
	if r.Reason != "" {
		state += ": " + safe(r.Reason)
	}
	row(w, "rollout", r.ID)
	row(w, "version", fmt.Sprintf("%s, --when %s", versionRef(r.Image, r.Version), r.When))
	row(w, "state", state)
	row(w, "since", fmt.Sprintf("%s (begun %s ago)", clock(r.Since), ago(r.Started, now)))
	for i, ring := range r.Rings {
		mark := ""
		if i+1 == r.Ring && (r.State == "running" || r.State == "paused") {
			mark = " <"
		}
		nodes := plural(ring.Count, "node")
		if ring.Shown != nil {
			nodes = count(uint64(*ring.Shown)) + " of " + nodes
		}
		if ring.Without != "" {
			mark = ", without " + cutSet(ring.Without) + mark
		}
		row(w, fmt.Sprintf("ring %d", i+1), fmt.Sprintf("%s: %s%s", nodes, cutSet(ring.Nodes), mark))
	}
	if r.Skipped != "" {
		row(w, "not waited for", r.Skipped)
	}
	printOwn(w, r.Own, false)
	if len(r.Behind) > 0 {
		fmt.Fprintln(w)
		row(w, "SERVER", "BEHIND", "NODES", "WHY")
		for _, b := range r.Behind {
			row(w, b.Server, count(uint64(b.Count)), cutSet(b.Nodes), safe(b.Why))
		}
	}
	fmt.Fprintln(w)
	row(w, "NODE", "RING", "SHOWS", "STAGE", "VERDICT")
	unknown := false
	for _, n := range r.States {
		verdict := safe(n.Verdict)
		if !n.AsOf.IsZero() {
			verdict += " (as of " + clock(n.AsOf) + ")"
			unknown = true
		}
		if !n.Confirmed.IsZero() {
			verdict += " (confirmed " + clock(n.Confirmed) + ")"
		}
		row(w, n.Node, n.Ring, n.Shows, n.Stage, verdict)
	}
	if unknown {
		fmt.Fprintln(w, "\nWhat was done on a node since that time is not known. On the node,")
		fmt.Fprintln(w, "  systemctl show -p ExecMainStartTimestamp UNIT")
		fmt.Fprintln(w, "tells when a service was started. With push=\"on\", nodes report restarts themselves.")
		fmt.Fprintln(w, "When all is done on a node: dim node confirm NODE")
	}
}

func (a *app) rolloutPauseCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:   "pause [ROLLOUT]",
		Short: "Pause a rollout",
		Long: `Pauses a rollout; without a number, the latest one. A hook or check that is
running is stopped.`,
		Example: `  dim rollout pause
  dim rollout pause 7 --dry-run`,
	}, &control.RolloutChange{Do: "pause"})
}

func (a *app) rolloutResumeCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:   "resume [ROLLOUT]",
		Short: "Resume a paused rollout",
		Long: `Resumes a rollout that was paused by dim rollout pause or by a failure; without
a number, the latest one. The step that was interrupted begins again: the hook,
the soak time or the check.`,
		Example: "  dim rollout resume",
	}, &control.RolloutChange{Do: "resume"})
}

func (a *app) rolloutUndoCommand() *cobra.Command {
	change := &control.RolloutChange{Do: "undo"}
	cmd := a.rolloutChange(&cobra.Command{
		Use:   "undo [ROLLOUT]",
		Short: "Move all nodes of a rollout back",
		Long: `Lets every node that a rollout has moved follow again what it followed before;
without a number, of the latest rollout. The rollout may still be in progress.
Nodes that it moved at their boot change back at their next boot, unless --when
now is given. It is refused if one of the nodes has been moved since.`,
		Example: `  dim rollout undo --dry-run
  dim rollout undo
  dim rollout undo 7 --when boot`,
	}, change)
	cmd.Flags().StringVar(&change.When, "when", "",
		"`WHEN` nodes change back: now or boot (default: as in the rollout)")
	completeFlag(cmd, "when", "now", "boot")
	return cmd
}

func (a *app) rolloutStopCommand() *cobra.Command {
	return a.rolloutChange(&cobra.Command{
		Use:   "stop [ROLLOUT]",
		Short: "End a rollout where it is",
		Long: `Ends a rollout that is running or paused; without a number, the latest one. The
nodes that it has moved keep the version, the others keep theirs: nodes that
were to change at their next boot do not. Another rollout may move them
afterwards.`,
		Example: "  dim rollout stop",
	}, &control.RolloutChange{Do: "stop"})
}

// rolloutChange makes a command out of cmd that changes a rollout.
func (a *app) rolloutChange(cmd *cobra.Command, change *control.RolloutChange) *cobra.Command {
	cmd.Args = operands(0, 1)
	cmd.ValidArgsFunction = complete(1, a.rolloutNumbers)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := rolloutNumber(cmd, args)
		if err != nil {
			return err
		}
		return a.changeRollout(cmd.Context(), id, *change)
	}
	cmd.Flags().BoolVar(&change.DryRun, "dry-run", false, "only report what would change")
	return a.listing(cmd)
}

// changeRollout changes the rollout id; 0 is the latest one.
func (a *app) changeRollout(ctx context.Context, id int, change control.RolloutChange) error {
	if id == 0 {
		latest, err := a.client().RolloutStatus(ctx, 0)
		if err != nil {
			return err
		}
		id = latest.ID
	}
	r, err := a.client().ChangeRollout(ctx, id, change)
	if err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) { printRolloutChange(w, r, change.DryRun) })
}

func printRolloutChange(w io.Writer, r control.Rollout, dry bool) {
	if dry {
		fmt.Fprint(w, "dry run: ")
	}
	fmt.Fprintln(w, "rollout", rolloutLine(r))
	if dry && slices.ContainsFunc(r.Rings, func(ring control.RolloutRing) bool { return len(ring.Moves) > 0 }) {
		printMoves(w, r)
	}
	printOwn(w, r.Own, dry)
}

// rolloutNumber returns the number that args name, or 0.
func rolloutNumber(cmd *cobra.Command, args []string) (int, error) {
	if len(args) == 0 {
		return 0, nil
	}
	id, err := strconv.Atoi(args[0])
	if err != nil || id < 1 {
		return 0, &usageError{
			fmt.Errorf("%s: %q is not a rollout number", verb(cmd), args[0]), "dim rollout ls lists them",
		}
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
