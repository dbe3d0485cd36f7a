package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/backup"
	"dim/internal/control"
)

// fromBackupFlags are the flags of `dim restore`.
type fromBackupFlags struct {
	node       string
	dry, force bool
}

func (a *app) restoreCommand() *cobra.Command {
	f := &fromBackupFlags{}
	cmd := a.listing(&cobra.Command{
		Use:   "restore DIR|-",
		Short: "Make a data directory, or a node's layer, from a backup",
		Long: `Makes the data directory, which must not exist or be empty, from a backup: DIR,
or the latest in DIR, or an archive from standard input. The backup is verified
on its way, and the data directory can be served only if all of it was right.
After that dim serve goes on as the server that was backed up: nodes keep their
files, and those that run keep their open files. If the cluster has other heads,
the output names them and says what to do with them.

The server that was backed up must not run any more: two servers must not serve
the same nodes.

With --node only the layer of one node is restored, while this server runs. What
the node has now is kept as a snapshot, and what the layer replaces is set
aside, as by dim node restore.`,
		Example: `  dim restore /mnt/backup/head --dry-run
  dim restore /mnt/backup/head
  dim restore /mnt/backup/head/20260102T150405.000000000Z --data /srv/dim
  age -d -i key.txt head.tar.age | dim restore -
  dim restore /mnt/backup/head --node n07`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.node != "" {
				return a.restoreNode(cmd.Context(), args[0], f)
			}
			return a.restore(cmd.Context(), args[0], cmd.InOrStdin(), f)
		},
		ValidArgsFunction: completeDirs,
	})
	cmd.Flags().StringVar(&f.node, "node", "", "restore only the layer of this `NODE`, on the running server")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "only report what the backup has, or what would change on the node")
	cmd.Flags().BoolVar(&f.force, "force", false, "with --node: also if the node may be running")
	_ = cmd.RegisterFlagCompletionFunc("node", complete(anyNumber, a.nodeNames))
	return cmd
}

func (a *app) restore(ctx context.Context, from string, stdin io.Reader, f *fromBackupFlags) error {
	if f.dry && from != "-" {
		s, err := backup.OpenStored(from)
		if err != nil {
			return err
		}
		defer s.Close()
		return a.showRestorable(s.Info)
	}
	p := newProgress(a.err)
	r := reading(from, stdin, p)
	if f.dry {
		info, err := r.Verify(ctx)
		p.end()
		if err != nil {
			return err
		}
		return a.showRestorable(info)
	}
	info, err := r.Restore(ctx, a.data)
	p.end()
	if err != nil {
		return err
	}
	if err := a.showInfo(info); err != nil && !errors.Is(err, errProblems) {
		return err
	}
	printRestoredData(a.notes(), a.data, orHost(info.Server), info.Heads)
	if !info.Complete {
		return errProblems
	}
	return nil
}

// showRestorable prints what a backup has, and whether it is to be restored if there are other heads.
func (a *app) showRestorable(info *backup.Info) error {
	err := a.showInfo(info)
	if len(info.Heads) == 0 || err != nil && !errors.Is(err, errProblems) {
		return err
	}
	fmt.Fprintf(a.notes(), `
the cluster has other heads: %s
if one of them runs or can be started: do not restore, but join it
  there:  dim token --for %s --roles head    (head,image if it is an image server too)
  here:   the line that it prints, with --replace
if all of them are lost for ever: restore; the output says what to do then
`, safe(strings.Join(info.Heads, ", ")), safe(orHost(info.Server)))
	return err
}

// notes returns where notes for a person are printed: not among what a program reads.
func (a *app) notes() io.Writer {
	if a.format == "json" {
		return a.err
	}
	return a.out
}

// printRestoredData tells what is to be done with a data directory that was restored.
func printRestoredData(w io.Writer, data, server string, others []string) {
	if len(others) == 0 {
		fmt.Fprintf(w, "\n%s is restored; start it with: dim serve --data %[1]s --as %s\n", data, server)
		return
	}
	fmt.Fprintf(w, `
%s is restored; its cluster has other heads: %s
if one of them runs or can be started: remove %[1]s, and join that head
  there:  dim token --for %[3]s --roles head    (head,image if it is an image server too)
  here:   the line that it prints, with --replace
if all of them are lost for ever: let this one go on alone, and the others join it again
  here:   dim server recover --yes --data %[1]s
          dim serve --data %[1]s --as %[3]s
          dim token --for %[4]s --roles head
  there:  the line that it prints, with --replace
`, data, safe(strings.Join(others, ", ")), safe(server), safe(others[0]))
}

func orHost(server string) string {
	if server == "" {
		return "NAME"
	}
	return server
}

// restoreNode restores the layer of one node.
func (a *app) restoreNode(ctx context.Context, from string, f *fromBackupFlags) error {
	if from == "-" {
		return &usageError{
			errors.New("restore: --node needs a backup in a directory"),
			"extract it: tar --xattrs --xattrs-include='*' -xpf FILE -C DIR",
		}
	}
	n, err := a.client().Node(ctx, f.node)
	if err != nil {
		return err
	}
	s, err := backup.OpenStored(from)
	if err != nil {
		return err
	}
	defer s.Close()
	layer, err := s.ImportLayer(ctx, a.data, f.node, n.Image)
	if errors.Is(err, backup.ErrNoLayer) {
		return control.Errorf(control.NotFound, "%v", err).
			WithHint("dim restore " + from + " --dry-run lists its layers")
	}
	if err != nil {
		return err
	}
	done, err := a.client().RestoreSnapshot(ctx, f.node, control.RestoreSnapshotRequest{
		To: layer.Stamp, DryRun: f.dry, Force: f.force,
	})
	if err != nil || f.dry {
		err = errors.Join(err, layer.Remove())
	}
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { printRestoredSnapshot(w, f.node, &done, f.dry) })
}
