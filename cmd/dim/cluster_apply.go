package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/cluster/learned"
	"dim/internal/control"
)

func (a *app) clusterApplyCommand() *cobra.Command {
	var r control.ApplyRequest
	cmd := a.listing(&cobra.Command{
		Use:   "apply FILE",
		Short: "Apply a description",
		Long: `Checks a description and sends it to the daemon, together with the files that
it names. The daemon follows it from then on. The output lists what changes, as
dim cluster plan does.

On a terminal it shows this list and asks if something would be lost:

  - nodes are removed. Those that run lose their root. What they have written is
    kept until dim node rm
  - nodes get a server that does not have their layers, so that they start
    without what they have written (--leave-layers)
  - the file was not made from the description that is applied now, and takes
    back what somebody else has changed

Elsewhere it is refused (exit code 6, also of a dry run) without --yes. It is
also refused when

  - the description is of a cluster of another name, unless --force is given
  - the applied description does not have the revision of --revision
  - somebody applies another description at the same time

A node whose name changes keeps what it has written, and its version. It is known
by its MAC. If the description does not state that, because it was learned, or if
the MAC changes as well, --rename names the node.

What is applied is kept: dim cluster log lists it, dim cluster undo goes back.`,
		Example: `  dim cluster apply /etc/dim/cluster.xml --dry-run
  dim cluster apply /etc/dim/cluster.xml -m 'rack 3'
  dim cluster apply /etc/dim/cluster.xml --revision 46
  dim cluster apply /etc/dim/cluster.xml --rename n07=gpu1`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.clusterApply(cmd, args[0], r) },

		ValidArgsFunction: completeXML,
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what would change")
	cmd.Flags().Int64Var(&r.Revision, "revision", 0, "only if the applied description still has this `revision`")
	cmd.Flags().BoolVar(&r.Force, "force", false, "also if it is the description of another cluster")
	renameFlag(cmd, &r)
	consentFlags(cmd, &r)
	return cmd
}

// consentFlags adds the flags of all commands that apply a description.
func consentFlags(cmd *cobra.Command, r *control.ApplyRequest) {
	cmd.Flags().BoolVar(&r.LeaveLayers, "leave-layers", false,
		"let nodes start on their new server without their layers")
	cmd.Flags().BoolVarP(&r.Yes, "yes", "y", false, "remove nodes, and take back changes of others, without a question")
	cmd.Flags().StringVarP(&r.Message, "message", "m", "", "why, for dim cluster log")
}

// renameFlag adds the flag that names renamed nodes.
func renameFlag(cmd *cobra.Command, r *control.ApplyRequest) {
	cmd.Flags().Var(&renames{&r.Renames}, "rename", "the node OLD is called NEW in it; may be repeated")
}

// renames is the value of --rename.
type renames struct{ list *[]control.Rename }

// String implements pflag.Value.
func (v *renames) String() string { return "" }

// Type implements pflag.Value.
func (v *renames) Type() string { return "OLD=NEW" }

// Set implements pflag.Value.
func (v *renames) Set(text string) error {
	from, to, ok := strings.Cut(text, "=")
	if !ok || from == "" || to == "" || strings.ContainsAny(text, "[],@ ") {
		return errors.New("must be OLD=NEW, two names of nodes")
	}
	*v.list = append(*v.list, control.Rename{From: from, To: to})
	return nil
}

func (a *app) clusterApply(cmd *cobra.Command, file string, r control.ApplyRequest) error {
	c, err := a.load(cmd.Context(), file, &r)
	if err != nil {
		return err
	}
	return a.apply(cmd, c, &r)
}

// load loads the description in a file, and puts it into a request.
func (a *app) load(ctx context.Context, file string, r *control.ApplyRequest) (*cluster.Cluster, error) {
	c, err := cluster.Load(file)
	if err != nil {
		return nil, err
	}
	for _, p := range a.warnings(ctx, file, c, r.NewNames()) {
		fmt.Fprintln(a.err, p)
	}
	d := sources(c)
	d.Revision = r.Revision
	r.Description, r.By, r.From = d, person(), control.HostPath(file)
	return c, nil
}

// warnings returns the warnings of the description in a file. What the cluster has learned of its nodes needs none: it
// holds after an apply, also of nodes that are renamed. If the daemon does not answer, the request that follows reports
// that.
func (a *app) warnings(
	ctx context.Context, file string, c *cluster.Cluster, renamed map[string]string,
) []cluster.Problem {
	if len(c.Warnings()) == 0 {
		return nil
	}
	applied, err := a.client().Description(ctx, 0)
	list, lerr := learned.Renamed(applied.Files[learned.File], renamed)
	if err != nil || lerr != nil || len(list) == 0 {
		return c.Warnings()
	}
	d := sources(c)
	d.Files[file], d.Files[learned.File] = d.Files[d.Main], list
	d.Main = file // as warnings name it
	with, err := parseApplied(&d)
	if err != nil {
		return c.Warnings()
	}
	return with.Warnings()
}

// person returns who runs this program: with sudo, the user behind it.
func person() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// apply applies a description, after a question on a terminal if a person must consent, and prints what has changed.
func (a *app) apply(cmd *cobra.Command, c *cluster.Cluster, r *control.ApplyRequest) error {
	done, err := a.client().Apply(cmd.Context(), *r)
	if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.Held {
		sure, aerr := a.askToApply(cmd, r)
		if aerr != nil {
			return aerr
		}
		if !sure {
			return err
		}
		done, err = a.client().Apply(cmd.Context(), *r)
	}
	if err != nil {
		return err
	}
	err = a.show(done, func(w io.Writer) {
		printPlan(w, &done)
		if r.DryRun {
			fmt.Fprintf(w, "dry run: %s was not applied; revision %d stays\n", r.Main, done.Revision)
			return
		}
		fmt.Fprintf(w, "%s is applied, revision %d: %s\n", r.Main, done.Revision, overview(c))
	})
	if err == nil && done.Refused != "" {
		return control.Errorf(control.Conflict, "%s", done.Refused).WithHint(done.Hint)
	}
	return err
}

// errNotApplied is the error of a person who does not consent.
var errNotApplied = errors.New("nothing was applied")

// askToApply shows a plan on the terminal and asks whether it is to be applied. sure is false if nobody can be asked.
// What the person has seen is all that r applies then.
func (a *app) askToApply(cmd *cobra.Command, r *control.ApplyRequest) (sure bool, err error) {
	if !a.hasTerminal(cmd) {
		return false, nil
	}
	plan := *r
	plan.DryRun = true
	planned, err := a.client().Apply(cmd.Context(), plan)
	if err != nil {
		return false, err
	}
	w := tabwriter.NewWriter(a.err, 0, 0, 2, ' ', 0)
	printPlan(w, &planned)
	for _, text := range planned.Asks {
		fmt.Fprintln(w, "confirm:", text)
	}
	if err := w.Flush(); err != nil {
		return false, err
	}
	question := "Apply it?"
	if len(planned.Asks) > 0 {
		question = "Apply it nevertheless?"
	}
	if sure, _ = a.confirm(cmd, question); !sure {
		return false, errNotApplied
	}
	r.Yes, r.LeaveLayers, r.Revision = true, true, planned.Revision
	return true, nil
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
