package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/textdiff"
	"dim/internal/versionfs"
)

func (a *app) imageDiffCommand() *cobra.Command {
	summary, text := false, false
	cmd := a.listing(&cobra.Command{
		Use:   "diff FROM [TO]",
		Short: "List the differences between two versions",
		Long: `Lists every path that differs, after a letter: A added, D removed, M other
content, a only other attributes, which are then named. The packages that
differ follow, and what the change means for a node that runs FROM. Without TO,
it compares with the newest version of the same image. With --text, the lines
that differ follow each text file.

The JSON output is a list of paths. With --summary it is an object with the
counts, the packages and the meaning of the change.`,
		Example: `  dim image diff compute@11 compute@12
  dim image diff compute@stable --summary
  dim image diff compute@11 compute@12 --text`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from := args[0]
			to, _, _ := strings.Cut(from, "@")
			if len(args) > 1 {
				to = args[1]
			}
			switch {
			case summary:
				return a.imageCompare(cmd.Context(), from, to)
			case text && a.format != "json":
				return a.imageTextDiff(cmd.Context(), from, to)
			}
			return a.imageDiff(cmd.Context(), from, to)
		},
		ValidArgsFunction: complete(2, a.references),
	})
	cmd.Flags().BoolVar(&text, "text", false, "show the lines in which small text files differ")
	cmd.Flags().BoolVar(&summary, "summary", false, "show only counts, packages and the meaning of the change")
	return cmd
}

// imageDiff prints changes as they arrive: there may be as many as there are files.
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

// jsonList prints a JSON list element by element.
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

// mostText bounds the files whose lines are compared.
const mostText = 256 << 10

// imageTextDiff is imageDiff, with the lines that differ below each text file.
func (a *app) imageTextDiff(ctx context.Context, from, to string) error {
	old, err := a.client().Version(ctx, from)
	if err != nil {
		return err
	}
	new, err := a.client().Version(ctx, to)
	if err != nil {
		return err
	}
	return a.withStore(func(s *store.Store) error {
		before, err := rootOf(s, old.Digest)
		if err != nil {
			return err
		}
		after, err := rootOf(s, new.Digest)
		if err != nil {
			return err
		}
		was, is := versionfs.New(s, before), versionfs.New(s, after)
		var failed error
		whole, err := a.client().Diff(ctx, from, to, func(c control.Change) {
			printChange(a.out, c)
			if failed == nil {
				failed = printLines(a.out, was, is, c)
			}
		})
		if err = errors.Join(err, failed); err == nil {
			printComparison(a.out, whole)
		}
		return err
	})
}

// printLines prints the lines in which a file differs, if it is a small text file in both versions.
func printLines(w io.Writer, was, is *versionfs.FS, c control.Change) error {
	if c.Kind != control.Content || c.Type != image.Regular.String() || c.Size > mostText || c.Was > mostText {
		return nil
	}
	name := strings.TrimPrefix(c.Path, "/")
	if e, err := was.Entry(name); err != nil || e.Type != image.Regular {
		return err // it was not a regular file
	}
	a, err := was.ReadFile(name)
	if err != nil {
		return err
	}
	b, err := is.ReadFile(name)
	if err != nil || !textdiff.Text(a) || !textdiff.Text(b) {
		return err
	}
	for line := range strings.Lines(textdiff.Unified("a/"+name, "b/"+name, a, b)) {
		fmt.Fprintln(w, safe(strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "        ")))
	}
	return nil
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

func countsText(n map[control.ChangeKind]int) string {
	return fmt.Sprintf("%s added, %s modified, %s removed, %s metadata only",
		count(uint64(n[control.Added])), count(uint64(n[control.Content])), count(uint64(n[control.Removed])),
		count(uint64(n[control.Attributes])))
}

func printComparison(w io.Writer, c control.Comparison) {
	printPackages(w, c.Packages)
	printVerdict(w, c.Verdict)
	for _, text := range c.Warnings {
		fmt.Fprintf(w, "warning: %s\n", safe(text))
	}
}

// printPackages prints one package a line, such as "openssl 3.0.16 → 3.0.17" or "telnet 1.0 removed".
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

// printVerdict prints what a change means for nodes that run. It prints nothing when all of it takes effect at once.
func printVerdict(w io.Writer, v control.Verdict) {
	if v.Unknown != "" {
		fmt.Fprintf(w, "warning: packages, and services that run replaced code, are not known: %s\n", safe(v.Unknown))
	}
	if v.Programs > 0 {
		fmt.Fprintf(w, "at the next start: %s of programs and libraries\n", plural(v.Programs, "path"))
	}
	for _, s := range v.Restart {
		fmt.Fprintf(w, "until a restart, the old code runs in %s (%s)\n",
			safe(s.Unit), safe(strings.Join(s.Because, ", ")))
	}
	for _, r := range v.Reload {
		fmt.Fprintf(w, "until %s, the old configuration holds: %s\n", r.Command, plural(r.Paths, "path"))
	}
	if v.Init {
		fmt.Fprintln(w, "until a reboot or systemctl daemon-reexec, the old code runs in the init process")
	}
	if v.Reboot {
		fmt.Fprintf(w, "at the next boot: %s of the kernel, its modules and its initramfs\n", plural(v.Boot, "path"))
	}
}
