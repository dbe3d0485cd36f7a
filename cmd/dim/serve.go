package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dim/internal/daemon"
)

// serveFlags are what `dim serve` can be told.
type serveFlags struct {
	cluster, as, level string
	etcd               []string
	loaders            string
}

func (a *app) serveCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the roles that the description gives a server",
		Long: `Serves until it is told to stop (SIGTERM, ^C): DHCP, TFTP, HTTP and NFS on the addresses that the description
gives the server. GET /healthz on its HTTP port answers 200 when it is ready. Logs go to standard error.

With --cluster the description in FILE is applied first, if it differs from the one that was applied before. Without,
that one holds.`,
		Example: `  dim serve --cluster /etc/dim/cluster.xml --as head
  dim serve --as head --etcd https://etcd1:2379,https://etcd2:2379`,
		Args: operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd, f) },

		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&f.cluster, "cluster", "", "cluster description to apply: `FILE`")
	cmd.Flags().StringVar(&f.as, "as", "", "name of this `SERVER` in the description (default: the host's name)")
	cmd.Flags().StringSliceVar(&f.etcd, "etcd", nil, "`URLS` of an existing etcd; without, the state is kept by an etcd in this process")
	cmd.Flags().StringVar(&f.loaders, "loaders", "", "`directory` of the iPXE programs (default /usr/lib/ipxe)")
	cmd.Flags().StringVar(&f.level, "log-level", "info", "`LEVEL` of what is logged: debug, info, warn or error")
	_ = cmd.MarkFlagFilename("cluster", "xml")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) serve(cmd *cobra.Command, f *serveFlags) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return &usageError{fmt.Errorf("serve: there is no log level %q", f.level), "debug, info, warn or error"}
	}
	if f.as == "" {
		f.as = hostName()
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	err := daemon.Run(cmd.Context(), daemon.Config{
		Data: a.data, ClusterFile: f.cluster, As: f.as, Endpoints: f.etcd, Loaders: f.loaders, Program: version(), Log: log,
	})
	if errors.Is(err, daemon.ErrRestart) {
		log.Info("starting anew", "why", err)
		return startAnew()
	}
	return err
}

// startAnew makes this process run the program from its beginning: nobody need be there to restart it, and its id stays.
func startAnew() error {
	self, err := os.Executable()
	if err == nil {
		err = unix.Exec(self, os.Args, os.Environ())
	}
	return fmt.Errorf("serve: start anew: %w", err)
}

// hostName is this machine's name without its domain.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}
