package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/cluster/nodeset"
	"dim/internal/control"
)

// nodeFilter selects and orders nodes of a listing.
type nodeFilter struct {
	stages  []string
	version string // a version that they show, IMAGE@V, or any of an image
	problem bool   // only nodes with a problem
	sort    string
	fold    bool // equal nodes are one line
}

// nodeOrders returns the values of --sort. Nodes that changed last come first by "since", and those that have made no
// call for longest by "last-call".
func nodeOrders() map[string]func(a, b control.Node) int {
	return map[string]func(a, b control.Node) int{
		"name":      func(control.Node, control.Node) int { return 0 }, // the order of the answer
		"stage":     func(a, b control.Node) int { return strings.Compare(a.Stage, b.Stage) },
		"since":     func(a, b control.Node) int { return b.Since.Compare(a.Since) },
		"last-call": func(a, b control.Node) int { return a.LastCall.Compare(b.LastCall) },
		"version": func(a, b control.Node) int {
			return cmp.Or(strings.Compare(a.Image, b.Image), cmp.Compare(a.Version, b.Version))
		},
	}
}

// nodeStages returns the stages that a node can be in: those of packages boot and liveness, and "unknown".
func nodeStages() []string {
	return []string{
		"off", "dhcp", "loader", "script", "kernel", "initramfs", "link", "address", "mount", "handover", "running",
		"silent", "unknown",
	}
}

func (a *app) nodeLsCommand() *cobra.Command {
	var f nodeFilter
	cmd := a.names(&cobra.Command{
		Use:     "ls [NODES…]",
		Aliases: []string{"list"},
		Short:   "List nodes with their stage and version",
		Long: `Lists the nodes of a node set, or all nodes: the stage of each and how long it
has been in it, the version that its replica shows, and the time since its last
NFS call. With --fold, nodes with the same stage, version and remark are one
line.`,
		Example: `  dim node ls
  dim node ls 'n[01-04],@cell'
  dim node ls --fold
  dim node ls --stage silent,off --problem -o name
  dim node ls --version compute@12 --sort last-call
  dim node ls @cell -o name > hosts
  dim node ls -o json | jq -r '.[] | select(.stage != "running") | .node'`,
		Args: operands(0, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, stage := range f.stages {
				if !slices.Contains(nodeStages(), stage) {
					return &usageError{fmt.Errorf("node ls: there is no stage %q", stage),
						"stages: " + strings.Join(nodeStages(), ", ")}
				}
			}
			if nodeOrders()[f.sort] == nil {
				return &usageError{fmt.Errorf("node ls: --sort %s is not known", f.sort),
					"orders: name, stage, since, last-call, version"}
			}
			nodes, err := a.client().Nodes(cmd.Context(), joined(args))
			if err != nil {
				return err
			}
			nodes = f.choose(nodes)
			return showList(a, nodes, func(n control.Node) string { return n.Name }, func(w io.Writer) {
				if f.fold {
					printFolded(w, nodes)
				} else {
					printNodes(w, nodes, time.Now())
				}
			})
		},
		ValidArgsFunction: complete(anyNumber, a.nodeNames),
	})
	flags := cmd.Flags()
	flags.StringSliceVar(&f.stages, "stage", nil, "only nodes in one of these `stages`")
	flags.StringVar(&f.version, "version", "", "only nodes that show this `version` (IMAGE@V), or one of IMAGE")
	flags.BoolVar(&f.problem, "problem", false, "only nodes with a problem")
	flags.StringVar(&f.sort, "sort", "name", "`order`: name, stage, since, last-call or version")
	flags.BoolVar(&f.fold, "fold", false, "one line for nodes that are alike")
	completeFlag(cmd, "stage", nodeStages()...)
	completeFlag(cmd, "sort", slices.Sorted(maps.Keys(nodeOrders()))...)
	_ = cmd.RegisterFlagCompletionFunc("version", complete(1, a.references))
	return cmd
}

// choose returns the nodes that the filter selects, in its order.
func (f *nodeFilter) choose(nodes []control.Node) []control.Node {
	nodes = slices.DeleteFunc(nodes, func(n control.Node) bool {
		switch {
		case len(f.stages) > 0 && !slices.Contains(f.stages, n.Stage):
			return true
		case f.problem && n.Problem == "":
			return true
		}
		of := f.version == "" || f.version == n.Image || n.Version > 0 && f.version == versionRef(n.Image, n.Version)
		return !of
	})
	slices.SortStableFunc(nodes, nodeOrders()[f.sort])
	return nodes
}

func printNodes(w io.Writer, nodes []control.Node, now time.Time) {
	heading(w, len(nodes), "no nodes", "NODE", "STAGE", "SINCE", "VERSION", "ADDRESS", "LAST CALL", "REMARK")
	for _, n := range nodes {
		row(w, n.Name, n.Stage, ago(n.Since, now), shownVersion(n), n.Address, ago(n.LastCall, now), remark(n))
	}
}

// remark returns the problem of a node, or else its last message.
func remark(n control.Node) string { return safe(cmp.Or(n.Problem, n.Text)) }

// alike is what nodes of one line have in common.
type alike struct{ stage, version, remark string }

// printFolded prints a line for nodes that are alike, in the order of the first of each.
func printFolded(w io.Writer, nodes []control.Node) {
	heading(w, len(nodes), "no nodes", "NODES", "COUNT", "STAGE", "VERSION", "REMARK")
	var order []alike
	names := make(map[alike][]string)
	for _, n := range nodes {
		k := alike{n.Stage, shownVersion(n), remark(n)}
		if names[k] == nil {
			order = append(order, k)
		}
		names[k] = append(names[k], n.Name)
	}
	for _, k := range order {
		row(w, cutSet(nodeset.Fold(names[k])), count(uint64(len(names[k]))), k.stage, k.version, k.remark)
	}
}
