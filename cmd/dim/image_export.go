package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"dim/internal/checkout"
	"dim/internal/image"
	"dim/internal/store"
)

func (a *app) imageExportCommand() *cobra.Command {
	var dry bool
	format := string(checkout.TarFormat)
	formats := []string{string(checkout.TarFormat), string(checkout.DirFormat), string(checkout.EROFSFormat)}
	cmd := &cobra.Command{
		Use:   "export NAME[@VERSION] DEST",
		Short: "Write a version as a tar archive, a directory or an EROFS image",
		Long: `Writes a version to DEST, which must not exist: contents, owners, modes, times,
hard links, devices, holes, and xattrs with ACLs and capabilities. DEST appears
when it is complete.

A tar archive has the pax format; extract it with
tar --xattrs --xattrs-include='*' -xpf. The DEST - is standard output. An EROFS
image needs mkfs.erofs and does not preserve holes.

The command reads the store directly, so it must run as root on the server.`,
		Example: `  dim image export compute@12 compute-12.tar
  dim image export compute@12 - | zstd > compute-12.tar.zst
  dim image export compute@12 /srv/compute-12 --format dir --dry-run
  dim image export compute@12 /srv/compute-12 --format dir`,
		Args: operands(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "-" && format != string(checkout.TarFormat) {
				return &usageError{
					fmt.Errorf("image export: only a tar archive can go to standard output, not %s", format),
					"name a path; ./- is a file called -",
				}
			}
			if args[1] != "-" {
				if err := needDirectory("image export: write into", filepath.Dir(args[1])); err != nil {
					return err
				}
			}
			if dry {
				return a.imageExportPlan(cmd.Context(), args[0], checkout.Format(format), args[1])
			}
			return a.imageExport(cmd.Context(), args[0], checkout.Format(format), args[1])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return complete(1, a.references)(cmd, args, part)
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only report what would be written")
	cmd.Flags().StringVar(&format, "format", format, "output `format`: tar, dir or erofs")
	completeFlag(cmd, "format", formats...)
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if slices.Contains(formats, format) {
			return check(cmd, args)
		}
		return &usageError{fmt.Errorf("%s: unknown format %q", verb(cmd), format), "--format tar, dir or erofs"}
	}
	return cmd
}

func (a *app) imageExport(ctx context.Context, ref string, format checkout.Format, dest string) error {
	v, err := a.client().Version(ctx, ref)
	if err != nil {
		return err
	}
	return a.withStore(func(s *store.Store) error {
		root, err := rootOf(s, v.Digest)
		if err != nil {
			return err
		}
		if dest == "-" && format == checkout.TarFormat {
			return checkout.Tar(ctx, s, root, a.out)
		}
		err = checkout.Export(ctx, s, root, format, dest)
		if err == nil {
			fmt.Fprintf(a.out, "%s is in %s\n", versionRef(v.Image, v.Number), dest)
		}
		return exportHint(err)
	})
}

// exportHint adds what to do about an error of an export.
func exportHint(err error) error {
	if errors.Is(err, checkout.ErrNoTool) {
		return &hintError{err, "apt-get install erofs-utils, or the like"}
	}
	return err
}

// imageExportPlan reports what an export would write, or why it would fail.
func (a *app) imageExportPlan(ctx context.Context, ref string, format checkout.Format, dest string) error {
	v, err := a.client().Version(ctx, ref)
	if err != nil {
		return err
	}
	if dest != "-" {
		if err := checkout.CheckFree(dest); err != nil {
			return fmt.Errorf("export to %s: %w", dest, err)
		}
	}
	_, err = fmt.Fprintf(a.out, "would be written: %s, %s of %s, as %s to %s\n",
		versionRef(v.Image, v.Number), plural(int(v.Files), "file"), size(v.Bytes), format, dest)
	return err
}

// withStore calls use with the store of the data directory. Nothing is removed from the store meanwhile.
func (a *app) withStore(use func(*store.Store) error) error {
	s, release, err := store.OpenHeld(filepath.Join(a.data, "store"))
	if err != nil {
		return err
	}
	defer release()
	return use(s)
}

// rootOf returns the root of the version with the given digest.
func rootOf(s *store.Store, digest string) (image.Entry, error) {
	d, err := image.ParseDigest(digest)
	if err != nil {
		return image.Entry{}, err
	}
	return s.Root(d)
}
