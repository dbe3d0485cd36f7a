package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"dim/internal/pki"
)

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make a data directory: keys, certificate authority, identity",
		Long: `Makes the data directory of the first server of a new cluster: the certificate
authority of the cluster, the identity of this server, and directories for the
store and the replicas. It never changes an existing data directory.`,
		Example: `  dim init
  dim init --data /srv/dim`,
		Args: operands(0, 0),
		RunE: func(*cobra.Command, []string) error {
			id, err := pki.Init(a.data)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is ready; this server is %s\n", a.data, id)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
