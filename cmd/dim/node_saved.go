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

// savedFlags are the flags of `dim node saved`.
type savedFlags struct {
	from, older         string
	forget, all, dryRun bool
}

func (a *app) nodeSavedCommand() *cobra.Command {
	var f savedFlags
	cmd := a.listing(&cobra.Command{
		Use:   "saved NODE [PATH]",
		Short: "List or forget the set-aside files of a node",
		Long: `Lists the files of the node that a switch to another version, a reset or a
restore has set aside: when, what did it, the kind, the size and the path. The
kinds are:

  entry       a file or directory of the node
  removal     the node had removed an entry of the master
  opaque      a directory of the node hid that of the master
  attributes  the node had changed the owner or mode of a directory
  merged      the node still has the file, merged with that of the master: this
              is the one before; conflicts of the merge are listed at the end

With --forget they are removed for good: those at or below PATH, those whose
stamp begins with --from, those older than --older, or --all. The server removes
by itself what is older than <saved days="…"/> of the description (default: 90
days).`,
		Example: `  dim node saved n01
  dim node saved n01 /etc -o json
  dim node saved n01 --forget --older 30d --dry-run
  dim node saved n01 /etc/motd --forget`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := control.Path(strings.Join(args[1:], ""))
			if !f.forget {
				return a.nodeSaved(cmd.Context(), args[0], path, f)
			}
			r, err := f.forgetRequest(path, time.Now())
			if err != nil {
				return err
			}
			return a.nodeForget(cmd.Context(), args[0], r)
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
	flags := cmd.Flags()
	flags.BoolVar(&f.forget, "forget", false, "remove them for good")
	flags.BoolVar(&f.all, "all", false, "with --forget: all of them")
	flags.StringVar(&f.older, "older", "", "with --forget: those older than this `age`, such as 30d")
	flags.StringVar(&f.from, "from", "", "only those whose stamp begins with `STAMP`")
	flags.BoolVar(&f.dryRun, "dry-run", false, "with --forget: only list what would be removed")
	return cmd
}

// forgetRequest makes a request of the flags.
func (f *savedFlags) forgetRequest(path control.Path, now time.Time) (control.ForgetRequest, error) {
	r := control.ForgetRequest{Path: path, From: f.from, DryRun: f.dryRun}
	age, err := days(f.older)
	if err != nil {
		return r, &usageError{
			fmt.Errorf("node saved: --older %s: %w", f.older, err), "for example --older 30d or --older 12h",
		}
	}
	if age > 0 {
		r.Before = now.Add(-age)
	}
	if path == "" && f.from == "" && f.older == "" && !f.all {
		return r, &usageError{
			errors.New("node saved: --forget needs a selection"), "name a PATH, --from STAMP, --older AGE or --all",
		}
	}
	return r, nil
}

// days parses an age: a duration, or a number of days followed by "d". "" is 0.
func days(s string) (age time.Duration, err error) {
	unit := time.Duration(1)
	if n, ok := strings.CutSuffix(s, "d"); ok {
		s, unit = n+"h", 24
	}
	if s != "" {
		age, err = time.ParseDuration(s)
	}
	if age < 0 || age > math.MaxInt64/unit {
		return 0, errors.New("negative or too long")
	}
	return age * unit, err
}

func (a *app) nodeSaved(ctx context.Context, node string, path control.Path, f savedFlags) error {
	if f.dryRun || f.all || f.older != "" {
		return &usageError{
			errors.New("node saved: --dry-run, --all and --older need --forget"),
			"without --forget, entries are only listed",
		}
	}
	list, err := a.client().Saved(ctx, node)
	if err != nil {
		return err
	}
	shown := []control.SavedEntry{}
	for _, s := range list {
		if strings.HasPrefix(s.Stamp, f.from) && atOrBelow(string(s.Path), string(path)) {
			shown = append(shown, s)
		}
	}
	return a.show(shown, func(w io.Writer) { printSaved(w, shown) })
}

func (a *app) nodeForget(ctx context.Context, node string, r control.ForgetRequest) error {
	list, err := a.client().Forget(ctx, node, r)
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		for _, s := range list {
			fmt.Fprintf(w, "%s%s %s, %s\n", would(r.DryRun, "forgotten: "), safe(string(s.Path)), s.Kind, s.Stamp)
		}
		if len(list) == 0 {
			fmt.Fprintln(w, "nothing to forget")
		}
	})
}

// would puts "would be" before what a dry run reports.
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
	heading(w, len(list), "nothing is set aside", "STAMP", "BY", "KIND", "TYPE", "SIZE", "PATH")
	for _, s := range list {
		row(w, s.Stamp, whyText(s.Why), s.Kind, s.Type, savedSize(s), safe(string(s.Path)))
	}
	for _, s := range list {
		for _, c := range s.Conflicts {
			fmt.Fprintf(w, "conflict in %s, %s: %s\n", safe(string(s.Path)), s.Stamp, safe(c.String()))
		}
	}
	if first := firstExpiry(list); !first.IsZero() {
		fmt.Fprintln(w, "the first are removed at", clock(first))
	}
}

// firstExpiry returns when the server removes the first entries of a list.
func firstExpiry(list []control.SavedEntry) (first time.Time) {
	for _, s := range list {
		if first.IsZero() || s.Expires.Before(first) {
			first = s.Expires
		}
	}
	return first
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
