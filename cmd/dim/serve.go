package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dim/internal/confine"
	"dim/internal/coord"
	"dim/internal/daemon"
	"dim/internal/follow"
)

// etcdHint says how an etcd is given.
const etcdHint = "use https, and give --etcd-ca, or --etcd-cert and --etcd-key, " +
	"or --etcd-user and --etcd-password-file"

// serveFlags are the flags of `dim serve`.
type serveFlags struct {
	cluster, as, level string
	etcd               coord.Remote
	loaders            string
}

func (a *app) serveCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Runs the roles that the description gives this server, until SIGTERM or ^C: it
serves DHCP, TFTP, HTTP and NFS on the addresses of the description. GET
/healthz on its HTTP port answers 200 when the server is ready, and 503 when it
cannot serve nodes. Logs go to standard error.

With --cluster it applies the description in FILE, if one of its files was
changed after the applied one was applied. If FILE cannot be used, the applied
one holds, and dim status shows the problem. Without --cluster the applied
description is used.

Whoever can change an etcd given by --etcd decides what all nodes run.
Therefore its URLs must be https, and one of --etcd-ca, --etcd-cert and
--etcd-user must be given. A unix socket needs none. On a loopback address,
which every user of the machine reaches, http is enough with --etcd-user.`,
		Example: `  dim serve --cluster /etc/dim/cluster.xml --as head
  dim serve --as head --etcd https://etcd1:2379,https://etcd2:2379 \
    --etcd-ca /etc/dim/etcd-ca.pem --etcd-user dim \
    --etcd-password-file /etc/dim/etcd-password`,
		Args: operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd, f) },

		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&f.cluster, "cluster", "", "cluster description to apply: `FILE`")
	cmd.Flags().StringVar(&f.as, "as", "",
		"name of this `SERVER` in the description (default: that of its certificate, or else the host name)")
	cmd.Flags().StringSliceVar(&f.etcd.Endpoints, "etcd", nil,
		"`URLS` of an existing etcd (default: an etcd in this process)")
	cmd.Flags().StringVar(&f.etcd.CA, "etcd-ca", "", "`FILE` with the authorities that sign etcd's certificates")
	cmd.Flags().StringVar(&f.etcd.Cert, "etcd-cert", "", "`FILE` with this server's certificate for etcd")
	cmd.Flags().StringVar(&f.etcd.Key, "etcd-key", "", "`FILE` with the key of that certificate")
	cmd.Flags().StringVar(&f.etcd.User, "etcd-user", "", "`USER` of etcd")
	cmd.Flags().StringVar(&f.etcd.PasswordFile, "etcd-password-file", "", "`FILE` with the password of that user")
	cmd.Flags().StringVar(&f.loaders, "loaders", "", "`directory` with the iPXE programs (default /usr/lib/ipxe)")
	cmd.Flags().StringVar(&f.level, "log-level", "info", "lowest `LEVEL` to log: debug, info, warn or error")
	_ = cmd.MarkFlagFilename("cluster", "xml")
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

// readerVerb is the command by which the server starts processes that read what masters consist of.
const readerVerb = "confined"

func (a *app) readerCommand() *cobra.Command {
	return &cobra.Command{
		Use: readerVerb, Short: "Read what masters consist of, for the server", Hidden: true, Args: operands(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if confine.Main(cmd.Context(), cmd.InOrStdin(), a.out, daemon.Tasks()) != exitOK {
				return errors.New("the server is gone")
			}
			return nil
		},
	}
}

func (a *app) serve(cmd *cobra.Command, f *serveFlags) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return &usageError{fmt.Errorf("serve: unknown log level %q", f.level), "debug, info, warn or error"}
	}
	if err := f.etcd.Check(); err != nil {
		return &usageError{fmt.Errorf("serve: etcd %w", err), etcdHint}
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	err := daemon.Run(cmd.Context(), daemon.Config{
		Data: a.data, ClusterFile: f.cluster, As: f.as, Host: hostName(), Etcd: f.etcd, Loaders: f.loaders,
		Program: version(), Reader: confine.Program{Argv: []string{"dim", readerVerb}}, Log: log,
	})
	if errors.Is(err, follow.ErrRestart) {
		log.Info("restarting", "reason", err)
		return restart()
	}
	return err
}

// restart replaces the program of this process by a new run of it. No service manager is needed, and the process id
// stays.
func restart() error {
	self, err := os.Executable()
	if err == nil {
		err = unix.Exec(self, os.Args, os.Environ())
	}
	return fmt.Errorf("serve: restart: %w", err)
}

// hostName returns the name of this machine without its domain.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}
