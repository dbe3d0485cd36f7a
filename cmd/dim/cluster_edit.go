package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/durable"
)

func (a *app) clusterEditCommand() *cobra.Command {
	var r control.ApplyRequest
	var name string
	cmd := a.listing(&cobra.Command{
		Use:   "edit",
		Short: "Edit the applied description, and apply it",
		Long: `Opens the applied description in an editor: that of VISUAL or EDITOR, or vi. When
the editor ends, the description is checked, and what would change is listed as
by dim cluster plan; on a terminal a question follows, then it is applied.

If there are problems, they are listed, and the editor can be opened again. If
the description is not applied in the end, the edited files are kept, and their
directory is named. If somebody else has applied a description meanwhile,
nothing is applied either.

The file that the description came from is not changed: dim cluster show --dir
gets the files of what is applied.`,
		Example: `  dim cluster edit
  dim cluster edit --file hosts.tmpl
  EDITOR='sed -i s/quiet/debug/' dim cluster edit --yes`,
		Args: operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.clusterEdit(cmd, name, r) },

		ValidArgsFunction: cobra.NoFileCompletions,
	})
	cmd.Flags().StringVar(&name, "file", "", "edit this `file` of the description instead of its XML file")
	renameFlag(cmd, &r)
	consentFlags(cmd, &r)
	return cmd
}

func (a *app) clusterEdit(cmd *cobra.Command, name string, r control.ApplyRequest) error {
	d, err := a.client().Description(cmd.Context(), 0)
	if err != nil {
		return err
	}
	if name == "" {
		name = d.Main
	}
	if _, ok := d.Files[name]; !ok {
		return control.Errorf(control.NotFound, "the description has no file %q", name).
			WithHint(fmt.Sprintf("it has %v", slices.Sorted(maps.Keys(d.Files))))
	}
	dir, err := os.MkdirTemp("", "dim-edit-")
	if err != nil {
		return err
	}
	err = a.writeAll(dir, &d)
	if err == nil {
		err = a.editUntilValid(cmd, edited{dir: dir, name: name, from: &d}, &r)
	}
	if err == nil || errors.Is(err, errNotEdited) {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
		return err
	}
	fmt.Fprintf(a.err, "dim: what you have written is kept in %s\n", dir)
	return err
}

// errNotEdited is the error of an editor that has changed nothing.
var errNotEdited = errors.New("nothing was changed")

// writeAll writes the files of d into a directory.
func (a *app) writeAll(dir string, d *control.Description) error {
	for file, data := range d.Files {
		if !filepath.IsLocal(file) {
			return fmt.Errorf("write %q: it leads out of the directory", file)
		}
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// edited is a copy of a description that a person edits.
type edited struct {
	dir  string // that the copy is in
	name string // of the file that is opened
	from *control.Description
}

// editUntilValid lets a person edit a copy of a description until it is valid, and applies it.
func (a *app) editUntilValid(cmd *cobra.Command, e edited, r *control.ApplyRequest) error {
	for {
		if err := a.runEditor(cmd, filepath.Join(e.dir, e.name)); err != nil {
			return err
		}
		c, err := a.load(cmd.Context(), filepath.Join(e.dir, e.from.Main), r)
		if err == nil {
			if same(r.Files, e.from.Files) {
				return errNotEdited
			}
			r.Revision, r.From = e.from.Revision, ""
			return a.applyEdited(cmd, c, r)
		}
		problems, bad := errors.AsType[*cluster.Problems](err)
		if !bad {
			return err
		}
		printProblems(a.err, problems.List)
		if again, asked := a.confirm(cmd, "The description has problems. Edit it again?"); !asked || !again {
			return errProblems
		}
	}
}

// same reports whether two descriptions have the same files.
func same(a, b map[string][]byte) bool {
	return maps.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}

// applyEdited shows what an edited description changes, asks on a terminal, and applies it.
func (a *app) applyEdited(cmd *cobra.Command, c *cluster.Cluster, r *control.ApplyRequest) error {
	if a.hasTerminal(cmd) && !r.Yes {
		sure, err := a.askToApply(cmd, r)
		if err != nil {
			return err
		}
		if !sure {
			return errNotApplied
		}
	}
	return a.apply(cmd, c, r)
}

// runEditor opens a file in the person's editor, which may be a command with arguments.
func (a *app) runEditor(cmd *cobra.Command, path string) error {
	editor := "vi"
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if text := os.Getenv(name); text != "" {
			editor = text
			break
		}
	}
	run := exec.CommandContext(cmd.Context(), "sh", "-c", editor+` "$1"`, "sh", path)
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), a.err, a.err
	if out, ok := a.out.(*os.File); ok && a.format != "json" {
		run.Stdout = out
	}
	if err := run.Run(); err != nil {
		return fmt.Errorf("run editor %s: %w", editor, err)
	}
	return nil
}
