package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/cluster/learned"
	"dim/internal/cluster/summary"
	"dim/internal/control"
	"dim/internal/follow"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "The cluster description"}
	group(cmd)
	cmd.AddCommand(a.clusterCheckCommand(), a.clusterShowCommand(), a.clusterPlanCommand(), a.clusterApplyCommand(),
		a.clusterEditCommand(), a.clusterLogCommand(), a.clusterDiffCommand(), a.clusterUndoCommand(),
		a.clusterInitCommand(), a.clusterExportCommand(), a.clusterImportCommand())
	return cmd
}

func (a *app) clusterCheckCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "check FILE",
		Short: "Report every problem of a description",
		Long: `Reads a description and the files that it names, and reports every problem in
them, one a line, with file, line and column. It needs no daemon. The exit
code is 3 when there are problems. Warnings are about what is valid, but
probably not meant; they leave the exit code 0.`,
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
		warnings := append([]cluster.Problem{}, c.Warnings()...)
		return a.show(warnings, func(w io.Writer) {
			printProblems(w, warnings)
			fmt.Fprintf(w, "%s: %s%s\n", file, overview(c), warned(len(warnings)))
		})
	}
	err = a.show(problems.List, func(w io.Writer) { printProblems(w, problems.List) })
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "dim: cluster check %s: %s\n", file, plural(len(problems.List)+problems.More, "problem"))
	return errProblems
}

func printProblems(w io.Writer, list []cluster.Problem) {
	for _, p := range list {
		fmt.Fprintln(w, p)
	}
}

// warned is ", 2 warnings", or "" for none.
func warned(n int) string {
	if n == 0 {
		return ""
	}
	return ", " + plural(n, "warning")
}

// overview summarises a description in one line.
func overview(c *cluster.Cluster) string {
	return fmt.Sprintf("cluster %s, %s, %s, %s",
		c.Name, plural(len(c.Servers), "server"), plural(len(c.Images), "image"), plural(len(c.Nodes), "node"))
}

func (a *app) clusterShowCommand() *cobra.Command {
	var set nodeSet
	var text textOptions
	cmd := a.listing(&cobra.Command{
		Use:   "show [FILE]",
		Short: "Print the servers, images, groups and nodes of a description",
		Long: `Prints the servers, images, groups and nodes of a description, with every
expression evaluated. With FILE it needs no daemon. Without FILE it prints the
applied description, or with --revision an earlier one.

With --text it prints the description itself, as it was applied, and with --dir
it writes all files of it into a directory.`,
		Example: `  dim cluster show
  dim cluster show --dir cluster           get the files of what is applied
  dim cluster show examples/small.xml --nodes n[01-02]
  dim cluster show cluster.xml -o json | jq -r '.node_list[].interfaces[].mac'`,
		Args: operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if text.asked() {
				return a.clusterText(cmd.Context(), args, text)
			}
			return a.clusterShow(cmd.Context(), args, string(set), text.revision)
		},

		ValidArgsFunction: completeXML,
	})
	text.flags(cmd)
	cmd.Flags().Var(&set, "nodes", "only these nodes: a node `set` such as n[01-04],@cell")
	return cmd
}

func (a *app) clusterShow(ctx context.Context, args []string, set string, revision int64) error {
	c, revision, err := a.description(ctx, args, revision)
	if err != nil {
		return err
	}
	nodes := c.Nodes
	if set != "" {
		if nodes, err = follow.Select(c, set); err != nil {
			return err
		}
	}
	s := summary.Of(c, nodes)
	s.Revision = revision
	return a.show(s, func(w io.Writer) { printCluster(w, c, s) })
}

// description loads the file that args name; without one, the description with a revision, 0 for the applied one.
func (a *app) description(
	ctx context.Context, args []string, at int64,
) (c *cluster.Cluster, revision int64, err error) {
	if len(args) > 0 {
		c, err = cluster.Load(args[0])
		return c, 0, err
	}
	d, err := a.client().Description(ctx, at)
	if err != nil {
		return nil, 0, err
	}
	c, err = parseApplied(&d)
	return c, d.Revision, err
}

// parseApplied parses the applied description.
func parseApplied(d *control.Description) (*cluster.Cluster, error) {
	return cluster.Parse(cluster.Source{
		Name: d.Main, XML: d.Files[d.Main], Learned: d.Files[learned.File],
		Open: func(name string) ([]byte, error) {
			if b, ok := d.Files[name]; ok {
				return b, nil
			}
			return nil, fmt.Errorf("%s was not applied with %s", name, d.Main)
		},
	})
}

func printCluster(w io.Writer, c *cluster.Cluster, s summary.Cluster) {
	text := overview(c)
	if s.Revision > 0 {
		text += fmt.Sprintf(", revision %d", s.Revision)
	}
	fmt.Fprintln(w, text)
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
		row(w, v.Name, join(c.Servers[i].Roles), strings.Join(addresses, " "), count(uint64(v.Nodes)))
	}
	fmt.Fprintln(w)
	row(w, "IMAGE", "ARCH", "MASTER", "NODES")
	for _, im := range s.Images {
		row(w, im.Name, im.Arch, im.Master, cutSet(im.Nodes))
	}
	if len(s.Groups) > 0 {
		fmt.Fprintln(w)
		row(w, "GROUP", "NODES", "IMAGE")
		for _, g := range s.Groups {
			row(w, g.Name, cutSet(g.Nodes), g.Image)
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

// completeXML offers XML files for the first operand.
func completeXML(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"xml"}, cobra.ShellCompDirectiveFilterFileExt
}
