package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) nodeRenderCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "render NODE [PATH]",
		Short: "Show the files that are rendered for a node",
		Long: `Lists the node files of a node: those that the server renders for it, from
templates of the description or by itself. With a PATH the content of that file
is printed.

A file is hidden if the node has written or removed a file at the same path. The
node sees its own one then; dim node reset NODE PATH sets that aside.`,
		Example: `  dim node render n01
  dim node render n01 /etc/hostname
  dim node render n01 -o json | jq -r '.[] | select(.is_hidden) | .path'`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.client().NodeFiles(cmd.Context(), args[0], append(args, "")[1])
			if err != nil {
				return err
			}
			if len(args) == 2 && a.format == "table" {
				_, err := io.WriteString(a.out, list[0].Content)
				return err
			}
			return a.show(list, func(w io.Writer) { printNodeFiles(w, list) })
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return complete(1, a.nodeNames)(cmd, args, word)
			}
			paths := func(ctx context.Context) []string { return a.renderedPaths(ctx, args[0]) }
			return complete(2, paths)(cmd, args, word)
		},
	})
}

// renderedPaths returns the paths of the node files of a node, for completion.
func (a *app) renderedPaths(ctx context.Context, node string) (paths []string) {
	list, _ := a.client().NodeFiles(ctx, node, "") // without a daemon: nothing
	for i := range list {
		paths = append(paths, list[i].Path)
	}
	return paths
}

func printNodeFiles(w io.Writer, list []control.NodeFile) {
	heading(w, len(list), "no files are rendered", "PATH", "SIZE", "MODE", "OWNER", "REMARK")
	for i := range list {
		f := &list[i]
		remark := ""
		if f.Hidden {
			remark = "hidden by the node's own"
		}
		row(w, f.Path, size(f.Size), f.Mode, fmt.Sprintf("%d:%d", f.UID, f.GID), remark)
	}
}
