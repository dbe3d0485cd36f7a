package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/cluster/changes"
	"dim/internal/control"
	"dim/internal/durable"
	"dim/internal/textdiff"
)

func (a *app) clusterLogCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "log",
		Short: "List the descriptions that were applied",
		Long: `Lists the descriptions that were applied, the latest first: when, by whom, what it
changed, and why (dim cluster apply -m). The first one is the applied one. The
last hundred before it are kept.`,
		Example: `  dim cluster log
  dim cluster diff 46 47`,
		Args: operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Descriptions(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				heading(w, len(list), "no descriptions", "REVISION", "APPLIED", "BY", "CHANGES", "MESSAGE")
				for _, d := range list {
					row(w, d.Revision, clock(d.Time), d.By, d.Summary, d.Message)
				}
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

func (a *app) clusterDiffCommand() *cobra.Command {
	var text bool
	cmd := a.listing(&cobra.Command{
		Use:   "diff A [B]",
		Short: "Compare two descriptions",
		Long: `Lists what differs between two descriptions. Each is a revision, as dim cluster
log lists them, or a file. Without B, A is compared with the applied one.

With --text the differences of the files are printed instead, as by diff -u.`,
		Example: `  dim cluster diff 46
  dim cluster diff 46 47 --text
  dim cluster diff 46 cluster.xml`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := a.descriptionOf(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			next, err := a.descriptionOf(cmd.Context(), append(args, "")[1])
			if err != nil {
				return err
			}
			if text {
				return a.showTextDiff(&old, &next)
			}
			return a.showDescriptionDiff(&old, &next)
		},
		ValidArgsFunction: complete(2, a.revisions),
	})
	cmd.Flags().BoolVar(&text, "text", false, "print the differences of the files")
	return cmd
}

// revisions returns the revisions that are kept, for completion.
func (a *app) revisions(ctx context.Context) (names []string) {
	list, _ := a.client().Descriptions(ctx) // without a daemon: nothing
	for _, d := range list {
		names = append(names, strconv.FormatInt(d.Revision, 10))
	}
	return names
}

// descriptionOf returns the description that an operand names: a revision, a file, or "" for the applied one.
func (a *app) descriptionOf(ctx context.Context, operand string) (control.Description, error) {
	if operand == "" {
		return a.client().Description(ctx, 0)
	}
	if revision, err := strconv.ParseInt(operand, 10, 64); err == nil && revision > 0 {
		return a.client().Description(ctx, revision)
	}
	c, err := cluster.Load(operand)
	if err != nil {
		return control.Description{}, err
	}
	return sources(c), nil
}

func (a *app) showDescriptionDiff(old, next *control.Description) error {
	x, err := parseApplied(old)
	if err != nil {
		return err
	}
	y, err := parseApplied(next)
	if err != nil {
		return err
	}
	list := changes.Compare(x, y, changes.Renames(x, y))
	return a.show(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "both declare the same")
			return
		}
		row(w, "WHAT", "CHANGE", "COUNT", "NAMES")
		for i := range list {
			c := &list[i]
			row(w, c.Subject, descriptionChange(c), count(uint64(c.Count)), cutSet(c.Names))
		}
	})
}

// fileDiff is a file of two descriptions that differs.
type fileDiff struct {
	File string `json:"file"`
	Diff string `json:"diff"` // as diff -u writes it
}

func (a *app) showTextDiff(old, next *control.Description) error {
	names := map[string]bool{}
	for name := range old.Files {
		names[name] = true
	}
	for name := range next.Files {
		names[name] = true
	}
	list := []fileDiff{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, after := old.Files[name], next.Files[name]
		switch { // the main file is the same one, whatever it is called
		case name == old.Main && name != next.Main:
			continue
		case name == next.Main:
			before = old.Files[old.Main]
		}
		if diff := textdiff.Unified("a/"+name, "b/"+name, before, after); diff != "" {
			list = append(list, fileDiff{name, diff})
		}
	}
	return a.show(list, func(w io.Writer) {
		for _, d := range list {
			fmt.Fprint(w, showable(d.Diff, nil))
		}
	})
}

func (a *app) clusterUndoCommand() *cobra.Command {
	var r control.ApplyRequest
	var to int64
	cmd := a.listing(&cobra.Command{
		Use:   "undo",
		Short: "Apply the description that was applied before",
		Long: `Applies the description that the applied one has replaced, as it was, or the one
of --to. It is a new entry of the history, so a second undo takes it back. The
file that the description came from is not changed: dim cluster show --dir gets
what is applied.

What it changes is listed, and asked and refused as by dim cluster apply.`,
		Example: `  dim cluster undo --dry-run
  dim cluster undo
  dim cluster undo --to 46`,
		Args: operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.clusterUndo(cmd, to, r) },

		ValidArgsFunction: cobra.NoFileCompletions,
	})
	cmd.Flags().Int64Var(&to, "to", 0, "apply the description with this `revision`")
	_ = cmd.RegisterFlagCompletionFunc("to", complete(1, a.revisions))
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what would change")
	consentFlags(cmd, &r)
	return cmd
}

func (a *app) clusterUndo(cmd *cobra.Command, to int64, r control.ApplyRequest) error {
	list, err := a.client().Descriptions(cmd.Context())
	if err != nil {
		return err
	}
	if to == 0 && len(list) < 2 {
		return control.Errorf(control.NotFound, "no earlier description is kept").
			WithHint("dim cluster log lists those that are")
	}
	if to == 0 {
		to = list[1].Revision
	}
	if r.Message == "" {
		r.Message = fmt.Sprintf("undo of %d: back to %d", list[0].Revision, to)
	}
	if r.Description, err = a.client().Description(cmd.Context(), to); err != nil {
		return err
	}
	c, err := parseApplied(&r.Description)
	if err != nil {
		return err
	}
	r.Revision, r.By, r.Learned = list[0].Revision, person(), true
	return a.apply(cmd, c, &r)
}

// textOptions ask for the text of a description.
type textOptions struct {
	text     bool
	dir      string
	revision int64
}

func (o *textOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.text, "text", false, "print the description as it was applied")
	cmd.Flags().StringVar(&o.dir, "dir", "", "write the files of the description into this `directory`")
	cmd.Flags().Int64Var(&o.revision, "revision", 0, "of the description with this `revision`")
	_ = cmd.MarkFlagDirname("dir")
}

func (o *textOptions) asked() bool { return o.text || o.dir != "" }

// clusterText prints or writes the files of an applied description.
func (a *app) clusterText(ctx context.Context, args []string, o textOptions) error {
	if len(args) > 0 {
		return &usageError{
			errors.New("cluster show: --text and --dir are about applied descriptions"), "leave FILE out",
		}
	}
	d, err := a.client().Description(ctx, o.revision)
	if err != nil {
		return err
	}
	if o.dir == "" {
		_, err := a.out.Write(d.Files[d.Main])
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.Files)) {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("write %q: it leads out of %s", name, o.dir)
		}
		if err := a.writeText(filepath.Join(o.dir, name), d.Files[name]); err != nil {
			return err
		}
	}
	return nil
}

// writeText writes a file of a description. It does not replace one with another content: that may be an edit that was
// not applied.
func (a *app) writeText(path string, data []byte) error {
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, data):
		return nil
	case err == nil:
		return control.Errorf(control.Conflict, "write %s: it exists, with another content", path).
			WithHint("choose another directory, or move the file away")
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	fmt.Fprintln(a.out, path)
	return nil
}
