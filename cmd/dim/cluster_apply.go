package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/control"
)

func (a *app) clusterApplyCommand() *cobra.Command {
	var r control.ApplyRequest
	cmd := a.listing(&cobra.Command{
		Use:   "apply FILE",
		Short: "Apply a description",
		Long: `Checks a description and sends it to the daemon, together with the files that
it names. The daemon follows it from then on. The output lists what changes:
nodes, images, servers, networks and groups that are added, removed or changed,
and the files of the description that differ.

It is refused (exit code 6) when

  - the description is of a cluster of another name, unless --force is given
  - the applied description does not have the revision of --revision
  - somebody applies another description at the same time

dim status and dim cluster show print the revision of the applied description.`,
		Example: `  dim cluster apply /etc/dim/cluster.xml --dry-run
  dim cluster apply /etc/dim/cluster.xml
  dim cluster apply /etc/dim/cluster.xml --revision 46`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.clusterApply(cmd.Context(), args[0], r) },

		ValidArgsFunction: completeXML,
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what would change")
	cmd.Flags().Int64Var(&r.Revision, "revision", 0, "only if the applied description still has this `revision`")
	cmd.Flags().BoolVar(&r.Force, "force", false, "also if it is the description of another cluster")
	return cmd
}

func (a *app) clusterApply(ctx context.Context, file string, r control.ApplyRequest) error {
	c, err := cluster.Load(file)
	if err != nil {
		return err
	}
	for _, p := range c.Warnings() {
		fmt.Fprintln(a.err, p)
	}
	d := sources(c)
	d.Revision = r.Revision
	r.Description = d
	done, err := a.client().Apply(ctx, r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) {
		printDescriptionChanges(w, done.Changes)
		if r.DryRun {
			fmt.Fprintf(w, "dry run: %s was not applied; revision %d is\n", file, done.Revision)
			return
		}
		fmt.Fprintf(w, "%s is applied, revision %d: %s\n", file, done.Revision, overview(c))
	})
}

func printDescriptionChanges(w io.Writer, changes []control.DescriptionChange) {
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing changes")
		return
	}
	row(w, "WHAT", "CHANGE", "COUNT", "NAMES")
	for _, c := range changes {
		row(w, c.Subject, descriptionChange(c), count(uint64(c.Count)), cutSet(c.Names))
	}
	for _, c := range changes {
		if c.Note != "" {
			fmt.Fprintf(w, "warning: %s %s\n", c.To, c.Note)
		}
	}
}

// descriptionChange is "added", "image compute → login" or "address".
func descriptionChange(c control.DescriptionChange) string {
	switch {
	case c.Attribute == "":
		return string(c.Kind)
	case c.From == "" && c.To == "":
		return c.Attribute
	}
	return fmt.Sprintf("%s %s → %s", c.Attribute, cutText(quoted(c.From)), cutText(quoted(c.To)))
}

// quoted returns a value for a terminal: "nothing" for an attribute that has no value.
func quoted(value string) string {
	if value == "" {
		return "nothing"
	}
	return safe(value)
}

// sources returns the files that c was loaded from, as the API wants them.
func sources(c *cluster.Cluster) control.Description {
	d := control.Description{Files: map[string][]byte{}}
	for i, f := range c.Sources() {
		name := f.Name
		if i == 0 {
			name = filepath.Base(name)
			d.Main = name
		}
		d.Files[name] = f.Data
	}
	return d
}
