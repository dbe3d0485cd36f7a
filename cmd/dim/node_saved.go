package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeSavedCommand() *cobra.Command {
	var q control.ForgetRequest
	var forget, all bool
	var older string
	cmd := a.listing(&cobra.Command{
		Use:   "saved NODE [PATH]",
		Short: "List what was set aside of a node's own, or forget it",
		Long: `Lists the node's own copies that a switch to another version, a reset or a restore has set aside: when, what did it, the path, what
it is and its size. An entry is a file or a directory of the node's; a removal, that the node had removed the master's;
opaque, that a directory of the node's hid the master's; attributes, that the node had changed a directory's owner or mode.

With --forget they are removed for good: those at or below PATH, of the stamps that begin with --from, older than --older, or --all.
What is older than the description's <saved days="…"/> (90 days without one) is removed by the server itself.`,
		Example: `  dim node saved n01
  dim node saved n01 /etc -o json
  dim node saved n01 --forget --older 30d --dry-run
  dim node saved n01 /etc/motd --forget`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Path = control.Path(strings.Join(args[1:], ""))
			if !forget && (q.DryRun || all || older != "") {
				return &usageError{fmt.Errorf("node saved: --dry-run, --all and --older go with --forget"), "without it everything is listed, and nothing removed"}
			}
			if !forget {
				return a.nodeSaved(cmd.Context(), args[0], q)
			}
			age, err := days(older)
			if err != nil {
				return &usageError{fmt.Errorf("node saved: --older %s: %w", older, err), "for example --older 30d or --older 12h"}
			}
			if age > 0 {
				q.Before = time.Now().Add(-age)
			}
			if q.Path == "" && q.From == "" && older == "" && !all {
				return &usageError{fmt.Errorf("node saved: --forget of what?"), "name a PATH, --from STAMP, --older AGE or --all"}
			}
			return a.nodeForget(cmd.Context(), args[0], q)
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
	f := cmd.Flags()
	f.BoolVar(&forget, "forget", false, "remove them for good")
	f.BoolVar(&all, "all", false, "with --forget: all of them")
	f.StringVar(&older, "older", "", "with --forget: those older than this `age`, such as 30d")
	f.StringVar(&q.From, "from", "", "only those whose `stamp` begins so")
	f.BoolVar(&q.DryRun, "dry-run", false, "with --forget: only tell what would go")
	return cmd
}

// days reads an age: a duration, or a number of days with "d" behind it. "" is 0.
func days(s string) (age time.Duration, err error) {
	unit := time.Duration(1)
	if n, ok := strings.CutSuffix(s, "d"); ok {
		s, unit = n+"h", 24
	}
	if s != "" {
		age, err = time.ParseDuration(s)
	}
	if age < 0 || age > math.MaxInt64/unit {
		return 0, errors.New("it is below 0, or too long")
	}
	return age * unit, err
}

func (a *app) nodeSaved(ctx context.Context, node string, q control.ForgetRequest) error {
	list, err := a.client().Saved(ctx, node)
	if err != nil {
		return err
	}
	kept := []control.SavedEntry{}
	for _, s := range list {
		if strings.HasPrefix(s.Stamp, q.From) && atOrBelow(string(s.Path), string(q.Path)) {
			kept = append(kept, s)
		}
	}
	return a.show(kept, func(w io.Writer) { printSaved(w, kept) })
}

func (a *app) nodeForget(ctx context.Context, node string, q control.ForgetRequest) error {
	list, err := a.client().Forget(ctx, node, q)
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		for _, s := range list {
			fmt.Fprintf(w, "%s%s %s, %s\n", would(q.DryRun, "forgotten: "), safe(string(s.Path)), s.Kind, s.Stamp)
		}
		if len(list) == 0 {
			fmt.Fprintln(w, "nothing to forget")
		}
	})
}

// would is the word before what was done, or would be.
func would(dry bool, done string) string {
	if dry {
		return "would be " + done
	}
	return done
}

func atOrBelow(path, dir string) bool {
	dir = "/" + strings.Trim(dir, "/")
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

func printSaved(w io.Writer, list []control.SavedEntry) {
	row(w, "STAMP", "BY", "KIND", "TYPE", "SIZE", "PATH")
	for _, s := range list {
		row(w, s.Stamp, whyText(s.Why), s.Kind, s.Type, savedSize(s), safe(string(s.Path)))
	}
}

// whyText is "compute@1 → compute@2" for a switch.
func whyText(why string) string {
	if rest, ok := strings.CutPrefix(why, "switch "); ok {
		return strings.Replace(rest, " ", " → ", 1)
	}
	return why
}

func savedSize(s control.SavedEntry) string {
	switch {
	case s.Type == "directory" && s.Kind == "entry":
		return fmt.Sprintf("%s in %s", size(s.Size), plural(s.Entries, "name"))
	case s.Type == "file":
		return size(s.Size)
	}
	return ""
}

func (a *app) nodeRestoreCommand() *cobra.Command {
	var q control.RestoreRequest
	var to string
	var force bool
	cmd := a.listing(&cobra.Command{
		Use:   "restore NODE (PATH | --to VERSION|TIME|STAMP)",
		Short: "Bring back what was set aside, or all that the node had at a time",
		Long: `With a PATH it moves the set-aside copies at or below PATH back into the node's root, of each path the latest, or those of the stamp that
--from begins. For the node it is as if it had written them itself: a running one sees them within its cache time, and who has one of the copies
open goes on using it. What the node has at such a path now is set aside in its turn (dim node saved shows it).

With --to DIR they are put into that directory of the node instead.

Without a PATH all that the node has of its own becomes what it was at a snapshot (dim node snapshots lists them): the last one of a VERSION of
the image, 12 or compute@12, the last one at or before a TIME such as 2026-01-02T15:04:05Z, or that of a STAMP. What it has now is kept in a snapshot
first, so that this can be undone, and set aside. If the node has another version by now, the rules of a switch hold: what the master has
changed since is held back, and stays in the snapshot. A node that may be running is refused without --force. Files that it has open stay open.`,
		Example: `  dim node restore n01 --to compute@12 --dry-run
  dim node restore n01 --to 2026-01-02T15:04:05Z
  dim node restore n01 /etc/motd --dry-run
  dim node restore n01 /etc/motd
  dim node restore n01 / --from 20260102T1504
  dim node restore n01 /etc/motd --to /root/old`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.nodeRestoreSnapshot(cmd.Context(), args[0], control.RestoreSnapshotRequest{To: to, DryRun: q.DryRun, Force: force})
			}
			q.Path, q.To = control.Path(args[1]), control.Path(to)
			list, err := a.client().Restore(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printRestored(w, list, q.DryRun) })
		},
		ValidArgsFunction: completeSaved(a),
	})
	f := cmd.Flags()
	f.StringVar(&q.From, "from", "", "of the `stamp` that begins so")
	f.StringVar(&to, "to", "", "without a PATH: a version, a time or a stamp; with one: the directory of the node to put the copies into")
	f.BoolVar(&force, "force", false, "without a PATH: also when the node may be running")
	f.BoolVar(&q.DryRun, "dry-run", false, "only tell what would be done")
	return cmd
}

func printRestored(w io.Writer, list []control.RestoredEntry, dry bool) {
	for _, b := range list {
		text := would(dry, "restored: ") + safe(string(b.Path))
		switch b.Saved.Kind {
		case "removal":
			text += ", which the node had removed"
		case "opaque":
			text += ", to hide the master's"
		case "attributes":
			text += ", owner and mode"
		}
		if b.Displaced {
			text += ", in place of what is set aside now"
		}
		fmt.Fprintln(w, text)
	}
}

// completeSaved offers nodes, then what is set aside of the node.
func completeSaved(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return complete(1, a.nodeNames)(cmd, args, part)
		}
		return complete(2, func(ctx context.Context) []string {
			var paths []string
			list, _ := a.client().Saved(ctx, args[0]) // without an answer it offers nothing
			for _, s := range list {
				paths = append(paths, string(s.Path))
			}
			return paths
		})(cmd, args, part)
	}
}

// holdingText is "1.2 MiB of 1.0 GiB, 12 files of 1,000".
func holdingText(u control.QuotaUsage) string {
	text := size(u.Bytes)
	if u.BytesMax > 0 {
		text += " of " + size(u.BytesMax)
	}
	text += ", " + plural(int(u.Files), "file")
	if u.FilesMax > 0 {
		text += " of " + count(u.FilesMax)
	}
	return text
}
