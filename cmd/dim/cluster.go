package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/cluster/summary"
	"dim/internal/control"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "The cluster description"}
	group(cmd)
	cmd.AddCommand(a.clusterCheckCommand(), a.clusterShowCommand(), a.clusterApplyCommand())
	return cmd
}

func (a *app) clusterCheckCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "check FILE",
		Short: "Report every problem of a description",
		Long: `Reads a description and the files that it names, and reports every problem in
them, one a line, with file, line and column. It needs no daemon. The exit
code is 3 when there are problems.`,
		Example: "  dim cluster check /etc/dim/cluster.xml",
		Args:    operands(1, 1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.clusterCheck(args[0]) },

		ValidArgsFunction: completeXML,
	})
}

func (a *app) clusterCheck(file string) error {
	c, err := cluster.Load(file)
	problems, bad := errors.AsType[*cluster.Problems](err)
	if err != nil && !bad {
		return err
	}
	if !bad {
		return a.show([]cluster.Problem{}, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", file, overview(c)) })
	}
	err = a.show(problems.List, func(w io.Writer) {
		for _, p := range problems.List {
			fmt.Fprintln(w, p)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "dim: cluster check %s: %s\n", file, plural(len(problems.List)+problems.More, "problem"))
	return errProblems
}

// overview summarises a description in one line.
func overview(c *cluster.Cluster) string {
	return fmt.Sprintf("cluster %s, %s, %s, %s",
		c.Name, plural(len(c.Servers), "server"), plural(len(c.Images), "image"), plural(len(c.Nodes), "node"))
}

func (a *app) clusterShowCommand() *cobra.Command {
	var set nodeSet
	cmd := a.listing(&cobra.Command{
		Use:   "show [FILE]",
		Short: "Print the servers, images, groups and nodes of a description",
		Long: `Prints the servers, images, groups and nodes of a description, with every
expression evaluated. With FILE it needs no daemon. Without FILE it prints the
applied description.`,
		Example: `  dim cluster show
  dim cluster show examples/small.xml --nodes n[01-02]
  dim cluster show cluster.xml -o json | jq -r '.nodes[].interfaces[].mac'`,
		Args: operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.clusterShow(cmd.Context(), args, string(set)) },

		ValidArgsFunction: completeXML,
	})
	cmd.Flags().Var(&set, "nodes", "only these nodes: a node `set` such as n[01-04],@cell")
	return cmd
}

func (a *app) clusterShow(ctx context.Context, args []string, set string) error {
	c, err := a.description(ctx, args)
	if err != nil {
		return err
	}
	nodes := c.Nodes
	if set != "" {
		if nodes, err = c.Select(set); err != nil {
			return &usageError{fmt.Errorf("cluster show: %w", err), ""}
		}
	}
	s := summary.Of(c, nodes)
	return a.show(s, func(w io.Writer) { printCluster(w, c, s) })
}

// description loads the file that args name; without one, the applied description.
func (a *app) description(ctx context.Context, args []string) (*cluster.Cluster, error) {
	if len(args) > 0 {
		return cluster.Load(args[0])
	}
	d, err := a.client().Description(ctx)
	if err != nil {
		return nil, err
	}
	return cluster.Parse(cluster.Source{
		Name: d.Main, XML: d.Files[d.Main],
		Open: func(name string) ([]byte, error) {
			if b, ok := d.Files[name]; ok {
				return b, nil
			}
			return nil, fmt.Errorf("%s was not applied with %s", name, d.Main)
		},
	})
}

func printCluster(w io.Writer, c *cluster.Cluster, s summary.Cluster) {
	fmt.Fprintln(w, overview(c))
	fmt.Fprintln(w)
	row(w, "NETWORK", "SUBNET", "GATEWAY", "ADMIN")
	for _, n := range s.Networks {
		row(w, n.Name, n.Subnet, n.Gateway, yes(n.Admin))
	}
	fmt.Fprintln(w)
	row(w, "SERVER", "ROLES", "ADDRESSES", "NODES")
	for i, v := range s.Servers {
		var addresses []string
		for _, card := range v.Interfaces {
			addresses = append(addresses, card.Address)
		}
		row(w, v.Name, join(c.Servers[i].Roles), strings.Join(addresses, " "), v.Nodes)
	}
	fmt.Fprintln(w)
	row(w, "IMAGE", "ARCH", "MASTER", "NODES")
	for _, im := range s.Images {
		row(w, im.Name, im.Arch, im.Master, im.Nodes)
	}
	if len(s.Groups) > 0 {
		fmt.Fprintln(w)
		row(w, "GROUP", "NODES", "IMAGE")
		for _, g := range s.Groups {
			row(w, g.Name, g.Nodes, g.Image)
		}
	}
	fmt.Fprintln(w)
	row(w, "NODE", "IMAGE", "ADDRESS", "MAC", "SERVERS")
	for _, n := range s.Nodes {
		address, mac := "", ""
		if len(n.Interfaces) > 0 {
			address, mac = n.Interfaces[0].Address, n.Interfaces[0].MAC
		}
		row(w, n.Name, n.Image, address, mac, strings.Join(n.Servers, " "))
	}
}

func join[T ~string](list []T) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(s))
	}
	return b.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func (a *app) clusterApplyCommand() *cobra.Command {
	var dry bool
	var revision int64
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Apply a description",
		Long: `Checks a description and sends it to the daemon, together with the files that
it names. The daemon follows it from then on. With --revision it is refused
(exit code 6) if the applied description has another revision.`,
		Example: `  dim cluster apply /etc/dim/cluster.xml --dry-run
  dim cluster apply /etc/dim/cluster.xml`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.clusterApply(cmd.Context(), args[0], revision, dry)
		},

		ValidArgsFunction: completeXML,
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only list the files that differ from the applied ones")
	cmd.Flags().Int64Var(&revision, "revision", 0, "only if the applied description still has this `revision`")
	return cmd
}

func (a *app) clusterApply(ctx context.Context, file string, revision int64, dry bool) error {
	c, err := cluster.Load(file)
	if err != nil {
		return err
	}
	d := sources(c)
	d.Revision = revision
	if dry {
		return a.compareDescription(ctx, d)
	}
	now, err := a.client().Apply(ctx, d)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s is applied, revision %d: %s\n", file, now.Revision, overview(c))
	return nil
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

// compareDescription lists the files of d, and whether they differ from the applied ones.
func (a *app) compareDescription(ctx context.Context, d control.Description) error {
	old, err := a.client().Description(ctx)
	if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.NotFound {
		old, err = control.Description{}, nil
	}
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.Files)) {
		was, there := old.Files[name]
		switch {
		case !there:
			fmt.Fprintf(a.out, "new      %s\n", name)
		case string(was) != string(d.Files[name]):
			fmt.Fprintf(a.out, "changed  %s\n", name)
		default:
			fmt.Fprintf(a.out, "same     %s\n", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.Files)) {
		if _, there := d.Files[name]; !there {
			fmt.Fprintf(a.out, "gone     %s\n", name)
		}
	}
	return nil
}

// completeXML offers XML files for the first operand.
func completeXML(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"xml"}, cobra.ShellCompDirectiveFilterFileExt
}
