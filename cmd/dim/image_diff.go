package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) imageDiffCommand() *cobra.Command {
	summary := false
	cmd := a.listing(&cobra.Command{
		Use:   "diff FROM [TO]",
		Short: "List what differs between two versions",
		Long: `Lists every path that differs: A added, D removed, M other content, a only other attributes (which ones stands behind).
Then the packages that differ, and what the change means for a node that runs FROM. Without TO it is the newest version of the same image.

As JSON it is a list of paths; with --summary an object with the counts, the packages and what the change means.`,
		Example: "  dim image diff compute@11 compute@12\n  dim image diff compute@stable --summary",
		Args:    operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from := args[0]
			to, _, _ := strings.Cut(from, "@")
			if len(args) > 1 {
				to = args[1]
			}
			if summary {
				return a.imageCompare(cmd.Context(), from, to)
			}
			return a.imageDiff(cmd.Context(), from, to)
		},
		ValidArgsFunction: complete(2, a.references),
	})
	cmd.Flags().BoolVar(&summary, "summary", false, "only counts, packages and what the change means")
	return cmd
}

// imageDiff prints changes as they come: there may be as many as there are files.
func (a *app) imageDiff(ctx context.Context, from, to string) error {
	if a.format != "json" {
		whole, err := a.client().Diff(ctx, from, to, func(c control.Change) { printChange(a.out, c) })
		if err == nil {
			printComparison(a.out, whole)
		}
		return err
	}
	list := jsonList{w: a.out}
	_, err := a.client().Diff(ctx, from, to, func(c control.Change) { list.add(c) })
	if err != nil {
		return err
	}
	return list.end()
}

// jsonList prints a JSON list one by one.
type jsonList struct {
	w   io.Writer
	any bool
	err error
}

func (l *jsonList) add(v any) {
	b, err := json.Marshal(v)
	sep := ",\n  "
	if !l.any {
		sep, l.any = "[\n  ", true
	}
	if err == nil && l.err == nil {
		_, err = fmt.Fprintf(l.w, "%s%s", sep, b)
	}
	if l.err == nil {
		l.err = err
	}
}

func (l *jsonList) end() error {
	if l.err != nil {
		return l.err
	}
	end := "\n]\n"
	if !l.any {
		end = "[]\n"
	}
	_, err := io.WriteString(l.w, end)
	return err
}

func (a *app) imageCompare(ctx context.Context, from, to string) error {
	whole, err := a.client().Diff(ctx, from, to, func(control.Change) {})
	if err != nil {
		return err
	}
	return a.show(whole, func(w io.Writer) {
		fmt.Fprintf(w, "%s → %s: %s\n", whole.From, whole.To, countsText(whole.Counts))
		printComparison(w, whole)
	})
}

func countsText(n map[control.Kind]int) string {
	return fmt.Sprintf("%d added, %d changed, %d removed, %d with other attributes",
		n[control.Added], n[control.Content], n[control.Removed], n[control.Attributes])
}

func printComparison(w io.Writer, c control.Comparison) {
	printPackages(w, c.Packages)
	printVerdict(w, c.Verdict)
	for _, text := range c.Warnings {
		fmt.Fprintf(w, "warning: %s\n", safe(text))
	}
}

// printPackages prints "openssl 3.0.16 → 3.0.17", one a line. One that was added or removed has a sign.
func printPackages(w io.Writer, list []control.PackageChange) {
	for _, p := range list {
		text := fmt.Sprintf("%s %s → %s", p.Name, p.From, p.To)
		switch {
		case p.From == "":
			text = fmt.Sprintf("%s %s added", p.Name, p.To)
		case p.To == "":
			text = fmt.Sprintf("%s %s removed", p.Name, p.From)
		}
		fmt.Fprintf(w, "package %s\n", safe(text))
	}
}

// printVerdict prints in a line each what a change means; nothing when all of it is in effect at once.
func printVerdict(w io.Writer, v control.Verdict) {
	if v.Programs > 0 {
		fmt.Fprintf(w, "at the next start: %s of programs and libraries\n", plural(v.Programs, "path"))
	}
	for _, s := range v.Restart {
		fmt.Fprintf(w, "until a restart, the old code runs in %s (%s)\n", safe(s.Unit), safe(strings.Join(s.Because, ", ")))
	}
	if v.Init {
		fmt.Fprintln(w, "until a reboot or systemctl daemon-reexec, the old code runs in the init process")
	}
	if v.Reboot {
		fmt.Fprintf(w, "at the next boot: %s of the kernel, its modules and its initramfs\n", plural(v.Boot, "path"))
	}
}
