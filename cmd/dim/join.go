package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/daemon"
	"dim/internal/membership"
	"dim/internal/pki"
)

func (a *app) tokenCommand() *cobra.Command {
	var r control.TokenRequest
	cmd := a.listing(&cobra.Command{
		Use:   "token",
		Short: "Make a token with which one machine can join the cluster",
		Long: `Makes a token on a head, and prints the command with which another machine
joins the cluster. A token can be used once, within an hour unless --valid says
otherwise. It holds the digest of the cluster's authority, by which the machine
knows the head, and a secret, by which the head knows the machine. The cluster
keeps only a digest of the secret.

The server must be in the description. Its roles there must be among --roles.`,
		Example: `  dim token --for is07
  dim token --for head2 --roles head,image --valid 10m
  ssh is07 "$(dim token --for is07)"`,
		Args: operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			made, err := a.client().NewToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.show(made, func(w io.Writer) { a.printToken(w, &made) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
	cmd.Flags().StringSliceVar(&r.Roles, "roles", nil, "`ROLES` that the server may have: head, image (default image)")
	cmd.Flags().StringVar(&r.For, "for", "", "the only `SERVER` that may join (default: any)")
	cmd.Flags().DurationVar(&r.Valid, "valid", time.Hour, "how long it can be used: `DURATION`, at most a week")
	completeFlag(cmd, "roles", string(cluster.RoleImage), string(cluster.RoleHead))
	_ = cmd.RegisterFlagCompletionFunc("for", complete(1, a.serverNames))
	return cmd
}

// printToken prints the command alone on standard output, so that a shell can use it.
func (a *app) printToken(w io.Writer, t *control.Token) {
	as := " --as SERVER"
	where := "the new server; SERVER is its name in the description"
	if t.For != "" {
		as, where = " --as "+t.For, t.For
	}
	fmt.Fprintf(a.err, "run this once, before %s, as root on %s:\n", clock(t.Expires), where)
	fmt.Fprintf(w, "dim join %s %s%s\n", t.URL, t.Token, as)
}

func (a *app) joinCommand() *cobra.Command {
	var as string
	var replace bool
	cmd := &cobra.Command{
		Use:   "join URL TOKEN",
		Short: "Make this machine a server of a cluster",
		Long: `Makes this machine a server of the cluster of the head at URL, with a token that
dim token printed there. It makes a key, which never leaves the machine, and a
data directory with the certificate, the authority and the description, so that
dim serve then needs neither --as nor --cluster.

A join that was interrupted can be repeated; if its token was used up, with a
new one. With --replace the machine takes the place of one that has joined under
that name, which all servers refuse from then on. A data directory that has an
identity gets a new one, and keeps its versions and the nodes' layers.`,
		Example: `  dim join https://10.0.0.1:7117 TOKEN --as is07
  dim serve`,
		Args: operands(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if as == "" {
				as = hostName()
			}
			j := membership.Join{
				Data: a.data, URL: args[0], Token: args[1], Name: cluster.ServerName(as),
			}
			if replace {
				j.Existing = pki.ReplaceIdentity
			}
			who, warning, err := daemon.Join(cmd.Context(), j)
			if errors.Is(err, pki.ErrInitialised) {
				return &hintError{err, "with --replace it gets a new identity, and keeps versions and layers"}
			}
			if err != nil {
				return err
			}
			if warning != "" {
				fmt.Fprintln(a.err, "warning:", warning)
			}
			var roles []string
			for _, r := range who.Roles {
				roles = append(roles, string(r))
			}
			fmt.Fprintf(a.out, "%s is ready; this machine is server %s (%s) of the cluster\n", a.data, who.Name,
				strings.Join(roles, ", "))
			fmt.Fprintln(a.err, "start it: systemctl enable --now dim, or dim serve")
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&as, "as", "", "name of this `SERVER` in the description (default: the host name)")
	cmd.Flags().BoolVar(&replace, "replace", false, "take the place of a machine, or of an identity, that has joined")
	return cmd
}
