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

It is refused (exit code 6, also of a dry run) when

  - the description is of a cluster of another name, unless --force is given
  - it gives nodes to a server that does not have their layers, unless
    --leave-layers is given: they would start without what they have written
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
	cmd.Flags().BoolVar(&r.LeaveLayers, "leave-layers", false,
		"let nodes start on their new server without their layers")
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
	err = a.show(done, func(w io.Writer) {
		printDescriptionChanges(w, done.Changes)
		printLeftLayers(w, done.Left)
		if r.DryRun {
			fmt.Fprintf(w, "dry run: %s was not applied; revision %d stays\n", file, done.Revision)
			return
		}
		fmt.Fprintf(w, "%s is applied, revision %d: %s\n", file, done.Revision, overview(c))
	})
	if err == nil && done.Refused != "" {
		return control.Errorf(control.Conflict, "%s", done.Refused).WithHint(done.Hint)
	}
	return err
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

// printLeftLayers says which nodes start without their layers, and what the person who lets them has to do.
func printLeftLayers(w io.Writer, list []control.LeftLayers) {
	for i := range list {
		l := &list[i]
		fmt.Fprintf(w, "warning: %s (%s) start on %s without their layers, which stay on %s\n",
			cutSet(l.Nodes), plural(l.Count, "node"), l.To, l.From)
		if l.Gone {
			fmt.Fprintf(w, "warning: %s is not in the description: make sure that it is off\n", l.From)
		}
	}
	if len(list) > 0 {
		fmt.Fprintln(w, "warning: nodes that run lose their root, so switch them off first; --leave-layers applies it")
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
