package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/daemon"
)

func (a *app) serverCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "server", Short: "The servers of the cluster"}
	group(cmd)
	cmd.AddCommand(a.serverLsCommand(), a.serverShowCommand(), a.serverRecoverCommand(),
		a.serverChangeCommand("rm", "remove", &cobra.Command{
			Short: "Remove a server: its certificate is refused from now on",
			Long: `Ends the identity of a server that has joined. All servers refuse it within
seconds, and close the connections that it has open. It cannot join again
without a new token. The description is not changed.`,
			Example: `  dim server rm is07 --dry-run
  dim server rm is07`,
		}),
		a.serverChangeCommand("drain", "drain", &cobra.Command{
			Short: "Let a server boot no more nodes",
			Long: `Lets a server answer no more boots, so that it can be serviced. Its nodes that
run are served on. dim server undrain ends it.`,
			Example: `  dim server drain is07`,
		}),
		a.serverChangeCommand("undrain", "undrain", &cobra.Command{
			Short:   "Let a server boot nodes again",
			Example: `  dim server undrain is07`,
		}),
		a.serverChangeCommand("accept-older", "accept-older", &cobra.Command{
			Short: "Let a server go on with an older disk",
			Long: `An image server whose disk is older than the one that the cluster knows, such as
one that was restored from a backup, serves no nodes: they would lose what they
have written since. dim status tells that. This command lets it go on with the
disk that it has; what the disk lacks is lost then. If there is a newer disk, put
that one in instead.`,
			Example: `  dim server accept-older is07 --dry-run
  dim server accept-older is07`,
		}))
	return cmd
}

func (a *app) serverLsCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:   "ls",
		Short: "List the servers",
		Long: `Lists the servers of the description: which of them have joined, and what they
reported. Servers report to heads: an image server does not know how the others
are, and names the heads that do.`,
		Example: `  dim server ls`,
		Args:    operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Servers(cmd.Context())
			if err != nil {
				return err
			}
			return showList(a, list, func(s control.Server) string { return s.Name }, func(w io.Writer) {
				heading(w, len(list), "no servers",
					"SERVER", "ROLES", "ADDRESS", "NODES", "STATE", "REPORTED", "OBSERVED")
				for i := range list {
					s := &list[i]
					row(w, s.Name, strings.Join(s.Roles, " "), s.Address, count(uint64(s.Nodes)), serverState(s),
						ago(s.Reported, time.Now()), serverUp(s))
				}
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

// serverState is "not joined", "joined" or "drained", of a head with its part in the shared state: "joined, leads".
func serverState(s *control.Server) string {
	state := "joined"
	switch {
	case s.ID == "":
		return "not joined"
	case !s.Drained.IsZero():
		state = "drained"
	}
	if s.Member != "" {
		state += ", " + s.Member
	}
	return state
}

func (a *app) serverShowCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:     "show SERVER",
		Short:   "Show one server",
		Example: `  dim server show is07`,
		Args:    operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.client().Servers(cmd.Context())
			if err != nil {
				return err
			}
			i := slices.IndexFunc(list, func(s control.Server) bool { return s.Name == args[0] })
			if i < 0 {
				return control.Errorf(control.NotFound, "no such server: %s", args[0]).
					WithHint("dim server ls lists them")
			}
			s := &list[i]
			return a.show(s, func(w io.Writer) {
				row(w, "server", s.Name)
				row(w, "roles", strings.Join(s.Roles, " "))
				row(w, "address", s.Address)
				row(w, "nodes", count(uint64(s.Nodes)))
				row(w, "state", serverState(s))
				row(w, "identity", s.ID)
				row(w, "joined", clock(s.Joined))
				row(w, "drained", clock(s.Drained))
				row(w, "reported", clock(s.Reported))
				printObserved(w, s, time.Now())
			})
		},
		ValidArgsFunction: complete(1, a.serverNames),
	})
}

func (a *app) serverRecoverCommand() *cobra.Command {
	var yes bool
	cmd := a.listing(&cobra.Command{
		Use:   "recover",
		Short: "Let this head go on without the others, which are lost for ever",
		Long: `If most of the heads are lost, nothing can be declared any more. This command
makes the head on this machine, whose server must not run, the only one. Without
--yes it shows what it would do.

The identities of the other heads end: all servers refuse them, and they have to
join again with --replace. The shared state is made anew from what this head has
kept of it. A change that was made in the last moments, and that only the lost
heads have seen, is lost, and so are tokens. Captured versions that only they
have are lost, too.

If another head has a later revision, run it there.`,
		Example: `  systemctl stop dim
  dim server recover
  dim server recover --yes
  systemctl start dim`,
		Args: operands(0, 0),
		RunE: func(*cobra.Command, []string) error {
			done, err := daemon.Recover(a.data, func(control.Recovery) bool { return yes })
			if err != nil {
				return err
			}
			return a.show(done, func(w io.Writer) { printRecovery(w, &done) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func printRecovery(w io.Writer, r *control.Recovery) {
	only, are, last := "would be the only one", "would be", "nothing was changed; with --yes it is done"
	if r.Done {
		only, are, last = "is the only one now", "are", "start it: systemctl start dim, or dim serve"
	}
	fmt.Fprintf(w, "head %s %s, from revision %d of the declared state, kept at %s\n", r.Server, only, r.Revision,
		clock(r.Kept))
	fmt.Fprintf(w, "heads that %s refused, and have to join again with --replace: %s\n", are,
		cmp.Or(strings.Join(r.Heads, ", "), "none"))
	fmt.Fprintln(w, last)
}

// serverChangeCommand completes a command that changes a server.
func (a *app) serverChangeCommand(name, do string, cmd *cobra.Command) *cobra.Command {
	r := control.ServerChange{Do: do}
	cmd.Use, cmd.Args, cmd.ValidArgsFunction = name+" SERVER", operands(1, 1), complete(1, a.serverNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		done, err := a.client().ChangeServer(cmd.Context(), args[0], r)
		if err != nil {
			return err
		}
		return a.show(done, func(w io.Writer) {
			past := map[string]string{
				"remove": "removed", "drain": "drained", "undrain": "undrained", "accept-older": "accepted",
			}[do]
			what := "server "
			if do == "accept-older" {
				what = "the disk of server "
			}
			fmt.Fprintln(w, would(done.DryRun, past+": ")+what+done.Server.Name)
			if done.Note != "" {
				fmt.Fprintln(w, done.Note)
			}
		})
	}
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only show what would be done")
	return a.listing(cmd)
}

func (a *app) serverNames(ctx context.Context) (names []string) {
	list, _ := a.client().Servers(ctx)
	for i := range list {
		names = append(names, cobra.CompletionWithDesc(list[i].Name, serverState(&list[i])))
	}
	return names
}
