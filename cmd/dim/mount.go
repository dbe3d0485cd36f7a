package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/control/client"
)

func (a *app) mountCommand() *cobra.Command {
	var r client.MountRequest
	cmd := a.listing(&cobra.Command{
		Use:   "mount [NODE|NAME@VERSION DIR]",
		Short: "Show a replica or a version as a local directory",
		Long: `Mounts the replica of a node, or a version (read-only), at DIR until ^C or
dim umount DIR. Writes to a node's replica have the same effect as writes of
the node. The daemon serves the mount, which ends with the daemon.

Only the user who mounts (root) can use the mount. With --allow-other all
users can, within the permissions of the files: what is open to all users of
the node is then open to all users of this machine.

Without operands it lists the mounts.`,
		Example: "  dim mount n01 /mnt\n  dim mount compute@12 /mnt",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return operands(2, 2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.mounts(cmd.Context())
			}
			r.What = args[0]
			return a.mount(cmd.Context(), r, args[1])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return complete(1, a.nodesAndReferences)(cmd, args, part)
		},
	})
	cmd.Flags().BoolVar(&r.AllowOther, "allow-other", false, "let all users of this machine use the mount")
	return cmd
}

func (a *app) mount(ctx context.Context, r client.MountRequest, dir string) error {
	var err error
	if r.Dir, err = realPath(dir); err != nil {
		return err
	}
	if names, err := os.ReadDir(r.Dir); err == nil && len(names) > 0 {
		fmt.Fprintf(a.err, "warning: %s is not empty (%s): what is in it is hidden until the mount ends\n",
			safe(dir), plural(len(names), "name"))
	}
	return a.client().Mount(ctx, r, func(m control.Mount) {
		fmt.Fprintf(a.out, "%s is at %s until ^C or dim umount %s\n", m.What, m.Dir, dir)
	})
}

func (a *app) mounts(ctx context.Context) error {
	mounts, err := a.client().Mounts(ctx)
	if err != nil {
		return err
	}
	return a.show(mounts, func(w io.Writer) {
		heading(w, len(mounts), "no mounts", "MOUNTED", "AT", "AGE")
		for _, m := range mounts {
			row(w, m.What, safe(m.Dir), ago(m.Started, time.Now()))
		}
	})
}

func (a *app) umountCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "umount DIR",
		Short:   "End a mount",
		Example: "  dim umount /mnt",
		Args:    operands(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := realPath(args[0])
			if err == nil {
				err = client.Unmount(path)
			}
			if err != nil {
				return fmt.Errorf("umount %s: %w", args[0], err)
			}
			return nil
		},
	}
}

// realPath returns the path under which the kernel lists a mount on dir. It accesses the parent of dir only, because
// dir itself may be a mount whose server does not answer.
func realPath(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil || path == "/" {
		return path, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}
