package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) clusterPlanCommand() *cobra.Command {
	var r control.ApplyRequest
	var exitCode bool
	cmd := a.listing(&cobra.Command{
		Use:   "plan FILE",
		Short: "List what applying a description would change",
		Long: `Checks a description and lists what dim cluster apply would change: nodes, images,
servers, networks and groups that are added, removed, renamed or changed, and
the files of the description that differ. Nothing is changed.

The last column tells when a change takes effect:

  at once            for nodes that run, too
  next boot          a node that runs goes on as before until it boots
  needs a boot       a node that runs loses its root until it boots
  next capture       with the next version of the image
  server restart     when the server is restarted

A node is renamed if a node of another name is gone that has the same hardware
address, or if --rename says so: what it has written follows it.

The exit code is 0, or with --exit-code 3 if something would change.`,
		Example: `  dim cluster plan /etc/dim/cluster.xml
  dim cluster plan cluster.xml --exit-code > /dev/null || echo 'not applied yet'`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.clusterPlan(cmd, args[0], r, exitCode) },

		ValidArgsFunction: completeXML,
	})
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 3 if something would change")
	renameFlag(cmd, &r)
	cmd.Flags().Int64Var(&r.Revision, "revision", 0, "only if the applied description still has this `revision`")
	return cmd
}

func (a *app) clusterPlan(cmd *cobra.Command, file string, r control.ApplyRequest, exitCode bool) error {
	r.DryRun = true
	if _, err := a.load(cmd.Context(), file, &r); err != nil {
		return err
	}
	planned, err := a.client().Apply(cmd.Context(), r)
	if err != nil {
		return err
	}
	err = a.show(planned, func(w io.Writer) {
		printPlan(w, &planned)
		printRefusal(w, &planned)
		if len(planned.Changes) > 0 {
			fmt.Fprintf(w, "to apply it: dim cluster apply %s --revision %d\n", file, planned.Revision)
		}
	})
	if err == nil && exitCode && len(planned.Changes) > 0 {
		return errProblems
	}
	return err
}

// printRefusal says why a description would be refused, or what a person would be asked.
func printRefusal(w io.Writer, p *control.ApplyResult) {
	for _, text := range p.Asks {
		fmt.Fprintln(w, "apply asks:", text)
	}
	if p.Refused != "" && len(p.Asks) == 0 {
		fmt.Fprintf(w, "apply refuses: %s\nhint: %s\n", p.Refused, p.Hint)
	}
}

// printPlan lists what a description changes, with what a person should know about it.
func printPlan(w io.Writer, p *control.ApplyResult) {
	printDescriptionChanges(w, p.Changes)
	printTakenBack(w, p)
	printLeftLayers(w, p.Left)
}

func printDescriptionChanges(w io.Writer, changes []control.DescriptionChange) {
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing changes")
		return
	}
	row(w, "WHAT", "CHANGE", "COUNT", "NAMES", "TAKES EFFECT")
	for i := range changes {
		c := &changes[i]
		row(w, c.Subject, descriptionChange(c), count(uint64(c.Count)), cutSet(c.Names), effect(c))
	}
	for _, c := range changes {
		if c.Note != "" {
			fmt.Fprintf(w, "warning: %s %s\n", c.To, c.Note)
		}
	}
}

// effect returns when a change takes effect, "" if it does nothing by itself.
func effect(c *control.DescriptionChange) string {
	text := map[control.Effect]string{
		control.EffectNow: "at once", control.EffectBoot: "next boot", control.EffectReboot: "needs a boot",
		control.EffectCapture: "next capture", control.EffectRestart: "server restart",
	}[c.Effect]
	switch {
	case c.Up == 1:
		text += " (1 runs)"
	case c.Up > 1:
		text += fmt.Sprintf(" (%s run)", count(uint64(c.Up)))
	}
	return text
}

// printTakenBack lists the changes of others that a description takes back.
func printTakenBack(w io.Writer, p *control.ApplyResult) {
	if len(p.TakenBack) == 0 {
		return
	}
	for _, d := range p.Since {
		fmt.Fprintf(w, "warning: the file was not made from revision %d, which %s applied at %s: %s\n",
			d.Revision, showable(orSomebody(d.By), nil), clock(d.Time), showable(d.Summary, nil))
	}
	for i := range p.TakenBack {
		c := &p.TakenBack[i]
		fmt.Fprintf(w, "warning: it takes back: %s %s: %s\n", c.Subject, cutSet(c.Names), descriptionChange(c))
	}
}

func orSomebody(name string) string {
	if name == "" {
		return "somebody"
	}
	return name
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

// descriptionChange is "added", "renamed from n[01-04]", "image compute → login" or "address".
func descriptionChange(c *control.DescriptionChange) string {
	switch {
	case c.Kind == control.Renamed:
		return "renamed from " + cutSet(c.From)
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
