package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/image"
)

// keepVersions is the default of --keep.
const keepVersions = 10

func (a *app) imageRmCommand() *cobra.Command {
	var r control.RemoveRequest
	cmd := a.listing(&cobra.Command{
		Use:   "rm NAME@VERSION",
		Short: "Remove a version",
		Long: `Removes a version and the content that only this version has. Its number is
never used again. Versions in use are refused: the current version of an image,
a version with a tag, one that a node is to run, and one that a replica shows or
showed recently, because a running program may still read from it.`,
		Example: `  dim image rm compute@3
  dim image rm compute@3 --dry-run        show how much that would free`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := a.client().RemoveVersion(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return a.show(done, func(w io.Writer) { printPruned(w, done) })
		},
		ValidArgsFunction: complete(1, a.references),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what would be removed")
	return cmd
}

func (a *app) imagePruneCommand() *cobra.Command {
	r := control.PruneRequest{}
	cmd := a.listing(&cobra.Command{
		Use:   "prune [NAME]",
		Short: "Remove the versions that nothing needs",
		Long: `Removes the versions of one image, or of all, that nothing needs. Then it
removes the content of the store that no version has. Kept, and listed with the
reason, are the newest versions, versions with a tag, versions that nodes are to
run, and versions that replicas show or showed recently.

While a capture runs, content cannot be removed from the store. The next prune
removes it then.`,
		Example: `  dim image prune --dry-run
  dim image prune compute --keep 3`,
		Args: operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				r.Image = args[0]
			}
			done, err := a.client().Prune(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.show(done, func(w io.Writer) { printPruned(w, done) })
		},
		ValidArgsFunction: complete(1, a.imageNames),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what would be removed, and what stays")
	cmd.Flags().IntVar(&r.Keep, "keep", keepVersions, "keep the newest `N` versions of each image")
	return cmd
}

func printPruned(w io.Writer, p control.PruneResult) {
	removed, freed := "removed", "freed"
	if p.DryRun {
		removed, freed = "would be removed", "would be freed"
	}
	for _, k := range p.Kept {
		fmt.Fprintf(w, "%s\tstays: %s\n", k.Version, safe(k.Why))
	}
	for _, v := range p.Versions {
		fmt.Fprintf(w, "%s\t%s\n", v, removed)
	}
	fmt.Fprintf(w, "%s, %s %s\n", plural(len(p.Versions), "version"), size(p.Bytes), freed)
}

func (a *app) imageVerifyCommand() *cobra.Command {
	var all bool
	cmd := a.listing(&cobra.Command{
		Use:   "verify [NAME[@VERSION]]",
		Short: "Check every byte of a version, or of the store",
		Long: `Reads the content of a version, or of the whole store, and compares it with its
digests. A record of a version that is damaged or missing is written anew if
the shared state has it. What is damaged is fetched again from another server
and replaced. If no other server has it, dim image capture NAME --reread puts
it right from the master. The exit code is 3 when there are problems left.

With --all every server that has the version, or has nodes that follow it, reads
its own copy, and what the nodes show is compared with it, by digest.`,
		Example: `  dim image verify compute@12
  dim image verify compute@12 --all
  dim image verify        the whole store`,
		Args: operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := ""
			if len(args) > 0 {
				ref = args[0]
			}
			if all && ref == "" {
				return &usageError{errors.New("verify: --all needs a version"), "dim image ls lists the images"}
			}
			if all {
				return a.imageVerifyAll(cmd.Context(), ref)
			}
			return a.imageVerify(cmd.Context(), ref)
		},
		ValidArgsFunction: complete(1, a.references),
	})
	cmd.Flags().BoolVar(&all, "all", false, "on all servers, and what all nodes show")
	return cmd
}

func (a *app) imageVerifyAll(ctx context.Context, ref string) error {
	p := newProgress(a.err)
	done, err := a.client().VerifyAll(ctx, ref, p.show)
	p.end()
	if err != nil {
		return err
	}
	wrong := len(done.Differ) > 0
	err = a.show(done, func(w io.Writer) {
		for _, s := range done.Servers {
			fmt.Fprintf(w, "%s: %s objects, %s read: %s\n", s.Server, count(s.Objects), size(s.Bytes),
				plural(len(s.Problems), "problem"))
			for _, text := range s.Problems {
				fmt.Fprintf(w, "  %s\n", safe(text))
			}
			for _, text := range s.Replaced {
				fmt.Fprintf(w, "  replaced: %s\n", safe(text))
			}
		}
		fmt.Fprintf(w, "%s, digest %s: %s of %s show it\n", done.Ref, done.Digest, count(uint64(done.Equal)),
			plural(done.Equal+len(done.Differ), "node"))
		for _, n := range done.Differ {
			fmt.Fprintf(w, "  %s: %s\n", n.Node, safe(n.Text))
		}
	})
	for _, s := range done.Servers {
		wrong = wrong || len(s.Problems) > 0
	}
	if err == nil && wrong {
		err = errProblems
	}
	return err
}

func (a *app) imageVerify(ctx context.Context, ref string) error {
	p := newProgress(a.err)
	done, err := a.client().Verify(ctx, ref, p.show)
	p.end()
	if err != nil {
		return err
	}
	err = a.show(done, func(w io.Writer) {
		for _, text := range done.Problems {
			fmt.Fprintln(w, safe(text))
		}
		for _, text := range done.Replaced {
			fmt.Fprintf(w, "replaced: %s\n", safe(text))
		}
		fmt.Fprintf(w, "%s objects, %s read: %s (%.1f s)\n",
			count(done.Objects), size(done.Bytes), plural(len(done.Problems), "problem"), done.Seconds)
	})
	if err == nil && len(done.Problems) > 0 {
		err = errProblems
	}
	return err
}

func (a *app) imageTagCommand() *cobra.Command {
	var remove, dry bool
	cmd := a.listing(&cobra.Command{
		Use:   "tag NAME[@VERSION] TAG",
		Short: "Give a version a name",
		Long: `Makes NAME@TAG a name of a version. If the tag exists, it is moved. A version
with a tag is not removed by dim image prune. With --delete the only operand is
NAME@TAG, and the tag is removed.`,
		Example: `  dim image tag compute@12 stable --dry-run
  dim image tag compute@12 stable
  dim image tag --delete compute@stable`,
		Args: func(cmd *cobra.Command, args []string) error {
			if remove {
				return operands(1, 1)(cmd, args)
			}
			return operands(2, 2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if remove {
				return a.imageUntag(cmd.Context(), args[0], dry)
			}
			return a.imageTag(cmd.Context(), args[0], args[1], dry)
		},
		ValidArgsFunction: complete(1, a.references),
	})
	cmd.Flags().BoolVarP(&remove, "delete", "d", false, "remove the tag")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only report which version it would name")
	return cmd
}

func (a *app) imageTag(ctx context.Context, ref, tag string, dry bool) error {
	if !image.ValidName(tag) {
		return &usageError{
			fmt.Errorf("image tag: %q is not a valid name", tag), "a letter, then letters, digits and -_., at most 64",
		}
	}
	do := func() (control.Version, error) { return a.client().Tag(ctx, ref, tag) }
	if dry {
		do = func() (control.Version, error) { return a.client().Version(ctx, ref) }
	}
	v, err := do()
	if err != nil {
		return err
	}
	return a.show(v, func(w io.Writer) {
		is := "is"
		if dry {
			is = "would be"
		}
		fmt.Fprintf(w, "%s@%s %s %s\n", v.Image, tag, is, versionRef(v.Image, v.Number))
	})
}

func (a *app) imageUntag(ctx context.Context, ref string, dry bool) error {
	if r, err := image.ParseRef(ref); err != nil || r.Tag == "" {
		return &usageError{fmt.Errorf("image tag --delete: %q names no tag", ref), "NAME@TAG, such as compute@stable"}
	}
	do := a.client().Untag
	if dry {
		do = a.client().Version
	}
	v, err := do(ctx, ref)
	if err != nil {
		return err
	}
	return a.show(v, func(w io.Writer) {
		fmt.Fprintf(w, "tag %s %s (was %s)\n", ref, would(dry, "removed"), versionRef(v.Image, v.Number))
	})
}
