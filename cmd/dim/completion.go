package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes commands and nodes in a shell",
		Example: `  dim completion bash > /etc/bash_completion.d/dim
  dim completion zsh > /usr/local/share/zsh/site-functions/_dim
  dim completion fish > ~/.config/fish/completions/dim.fish`,
		Args:      operands(1, 1),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			print := map[string]func(io.Writer) error{
				"bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
				"zsh":  root.GenZshCompletion,
				"fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
			}[args[0]]
			if print == nil {
				return &usageError{fmt.Errorf("completion: unknown shell %q", args[0]), "bash, zsh or fish"}
			}
			return print(a.out)
		},
	}
}

// completionTimeout limits how long a completion waits for the daemon.
const completionTimeout = time.Second

// complete returns a completion function. It offers what list returns for each of the first n operands, and nothing
// for later ones.
func complete(n int, list func(ctx context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
		defer cancel()
		return list(ctx), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag offers values for a flag.
func completeFlag(cmd *cobra.Command, name string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// nodeNames, imageNames and references ask the daemon. When no daemon answers they offer nothing.
func (a *app) nodeNames(ctx context.Context) (names []string) {
	nodes, _ := a.client().Nodes(ctx, "")
	for _, n := range nodes {
		names = append(names, cobra.CompletionWithDesc(n.Name, n.Stage))
	}
	return names
}

func (a *app) imageNames(ctx context.Context) (names []string) {
	images, _ := a.client().Images(ctx)
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names
}

func (a *app) nodesAndReferences(ctx context.Context) []string {
	return append(a.nodeNames(ctx), a.references(ctx)...)
}

func (a *app) references(ctx context.Context) (names []string) {
	images, _ := a.client().Images(ctx)
	for _, i := range images {
		versions, _ := a.client().Versions(ctx, i.Name)
		for _, v := range versions {
			names = append(names, cobra.CompletionWithDesc(versionRef(i.Name, v.Number), clock(v.Created)))
			for _, tag := range v.Tags {
				names = append(names, i.Name+"@"+tag)
			}
		}
	}
	return names
}
