package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Images and their versions"}
	group(cmd)
	cmd.AddCommand(a.imageCaptureCommand(), a.imageLsCommand(), a.imageLogCommand(), a.imageShowCommand(),
		a.imagePackagesCommand(), a.imageDiffCommand(), a.imageTagCommand(), a.imageRmCommand(),
		a.imagePruneCommand(), a.imageVerifyCommand(), a.imageExportCommand(), a.imageImportCommand(),
		a.imageWatchCommand())
	return cmd
}

func (a *app) imageCaptureCommand() *cobra.Command {
	var r control.CaptureRequest
	var rollout control.RolloutRequest
	var verbose bool
	cmd := a.listing(&cobra.Command{
		Use:   "capture NAME",
		Short: "Make a new version of an image from its master",
		Long: `Reads the master of an image and makes a new version of it. The first capture
reads every file, later ones read those that changed. If nothing changed, no
version is made. The master is never modified.

The output lists the paths and the packages that changed. It
also says what the change means for nodes that run: which services run replaced
programs or libraries until they are restarted, and whether a part takes effect
at the next boot.

Nodes follow the first version of an image at once. A later version moves no
node, unless --rollout is given: it starts a rollout to all nodes of the image,
as dim rollout does.

A capture is held if a directory looks as if a file system had been mounted or
unmounted by accident: nodes would lose what is in it. --accept PATH takes the
master as it is at and below PATH.

What dim image verify finds damaged is put right from the master: a capture
compares all that it reads with what the store has, and replaces it there if it
is damaged. --reread reads all files, not only those that changed.

^C stops the capture. The next one does not read again what was stored.`,
		Example: `  dim image capture compute
  dim image capture compute --rollout now    also move all nodes of the image
  dim image capture compute --dry-run        list what would be in the version`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Image = args[0]
			if r.Show < 0 {
				return &usageError{errors.New("image capture: --show must not be negative"), "--show 0 lists no path"}
			}
			if verbose {
				r.Show = math.MaxInt
			}
			if rollout.When != "" {
				r.Rollout = &rollout
			} else if rollout != (control.RolloutRequest{}) {
				return &usageError{
					errors.New("image capture: --rings, --soak, --check, --hook and --on-conflict need --rollout"),
					"--rollout now or --rollout boot",
				}
			}
			return a.imageCapture(cmd.Context(), r)
		},
		ValidArgsFunction: complete(1, a.imageNames),
	})
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what changed, make no version")
	cmd.Flags().IntVar(&r.Show, "show", 20, "list at most `N` changed paths")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every changed path")
	cmd.Flags().StringArrayVar(&r.Accept, "accept", nil, "take the directory `PATH` as it is, even if it is held")
	cmd.Flags().BoolVar(&r.Reread, "reread", false, "read all files, and put right what is damaged in the store")
	rolloutFlags(cmd, &rollout, "rollout")
	return cmd
}

func (a *app) imageCapture(ctx context.Context, r control.CaptureRequest) error {
	p := newProgress(a.err)
	done, err := a.client().Capture(ctx, r, p.show)
	p.end()
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { printCaptured(w, r.Image, done) })
}

func printCaptured(w io.Writer, image string, c control.CaptureResult) {
	v := c.Version
	changes := countsText(c.Counts)
	took := fmt.Sprintf("%.1f s", c.Seconds)
	if c.Server != "" {
		fmt.Fprintf(w, "captured on %s, which has the master\n", c.Server)
	}
	switch {
	case c.Unchanged && v.Number == 0:
		fmt.Fprintf(w, "%s: nothing to capture (%s)\n", image, took)
	case c.Unchanged:
		fmt.Fprintf(w, "%s: unchanged (%s)\n", versionRef(image, v.Number), took)
	case c.DryRun:
		fmt.Fprintf(w, "%s: would be a new version: %s (%s)\n", image, changes, took)
	default:
		fmt.Fprintf(w, "%s: %s, %s: %s (%s)\n",
			versionRef(image, v.Number), plural(int(v.Files), "file"), size(v.Bytes), changes, took)
	}
	printCapturedChanges(w, c)
	printPackages(w, c.Packages)
	if c.Verdict != nil {
		printVerdict(w, *c.Verdict)
	}
	printWarnings(w, c.Warnings)
	switch {
	case c.Rollout != nil:
		printRollout(w, *c.Rollout)
	case !c.DryRun && c.Current != v.Number:
		fmt.Fprintf(w, "no node was moved; to move them: dim rollout '@*' %s --when now\n", versionRef(image, v.Number))
	}
}

// printWarnings prints the section of a capture's warnings.
func printWarnings(w io.Writer, list []control.Warning) {
	if len(list) > 0 {
		fmt.Fprintln(w, "Warnings")
	}
	for _, x := range list {
		text := x.Text
		if x.Path != "" {
			text = x.Path + ": " + text
		}
		fmt.Fprintf(w, "  %s\n", safe(text))
		if x.Hint != "" {
			fmt.Fprintf(w, "    hint: %s\n", safe(x.Hint))
		}
	}
}

// printCapturedChanges prints the changes that a capture lists, and how many more there are.
func printCapturedChanges(w io.Writer, c control.CaptureResult) {
	more := -len(c.Changes)
	for _, n := range c.Counts {
		more += n
	}
	for _, change := range c.Changes {
		printChange(w, change)
	}
	if more > 0 && len(c.Changes) > 0 {
		fmt.Fprintf(w, "  and %s more\n", count(uint64(more)))
	}
}

// printChange prints one change after a letter: A, D and M as in git, and a for attributes.
func printChange(w io.Writer, c control.Change) {
	letter := map[control.ChangeKind]string{
		control.Added: "A", control.Removed: "D", control.Content: "M", control.Attributes: "a",
	}[c.Kind]
	path := safe(c.Path)
	if c.Type == "directory" && path != "/" {
		path += "/"
	}
	switch {
	case c.What != "":
		path += " (" + c.What + ")"
	case c.Kind == control.Content && c.Was != c.Size:
		path += " (" + size(c.Was) + " → " + size(c.Size) + ")"
	}
	fmt.Fprintf(w, "%s %s\n", letter, path)
}

func (a *app) imageLsCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images",
		Example: "  dim image ls -o json | jq -r '.[].image'",
		Args:    operands(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := a.client().Images(cmd.Context())
			if err != nil {
				return err
			}
			return showList(a, images, func(i control.Image) string { return i.Name },
				func(w io.Writer) { printImages(w, images, time.Now()) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

func printImages(w io.Writer, images []control.Image, now time.Time) {
	heading(w, len(images), "no images",
		"IMAGE", "NEWEST", "CURRENT", "AGE", "FILES", "SIZE", "VERSIONS", "NODES", "MASTER")
	for _, i := range images {
		newest, age, files, bytes := "", "", "", ""
		if v := i.Newest; v != nil {
			newest, age, files, bytes = fmt.Sprint(v.Number), ago(v.Created, now), count(v.Files), size(v.Bytes)
		}
		current := ""
		if i.Current > 0 {
			current = fmt.Sprint(i.Current)
		}
		row(w, i.Name, newest, current, age, files, bytes, i.Versions, count(uint64(i.Nodes)), i.Master)
	}
}

func (a *app) imageLogCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:     "log NAME",
		Short:   "List the versions of an image, newest first",
		Example: "  dim image log compute",
		Args:    operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			versions, err := a.client().Versions(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			slices.Reverse(versions)
			return showList(a, versions, func(v control.Version) string { return versionRef(v.Image, v.Number) },
				func(w io.Writer) { printVersions(w, versions) })
		},
		ValidArgsFunction: complete(1, a.imageNames),
	})
}

func printVersions(w io.Writer, versions []control.Version) {
	heading(w, len(versions), "no versions", "VERSION", "CREATED", "FILES", "SIZE", "DIGEST", "NODES", "TAGS")
	for _, v := range versions {
		row(w, versionRef(v.Image, v.Number), clock(v.Created), count(v.Files), size(v.Bytes),
			short(v.Digest), count(uint64(len(v.Nodes))), strings.Join(v.Tags, " "))
	}
}

func (a *app) imageShowCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "show NAME[@VERSION]",
		Short: "Show one version",
		Long: `Shows everything about a version. NAME is the newest version, NAME@12 is version
12, and NAME@stable is the version that has the tag stable.`,
		Example: "  dim image show compute\n  dim image show compute@12 -o json",
		Args:    operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := a.client().Version(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(v, func(w io.Writer) { printVersion(w, v) })
		},
		ValidArgsFunction: complete(1, a.references),
	})
}

func (a *app) imagePackagesCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:   "packages NAME[@VERSION]",
		Short: "List the packages that are installed in a version",
		Long: `Lists the packages that are installed in a version, with their versions and
architectures. They are read from the databases of dpkg, rpm (SQLite, ndb and
Berkeley DB), apk and pacman in the version itself: nothing needs to run there.

A database that cannot be read is named in a warning. With -o json the list of
such databases is "unread".`,
		Example: `  dim image packages compute
  dim image packages compute@12 -o json
  dim image packages compute -o name         only the names`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := a.client().Installed(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, text := range found.Unread {
				fmt.Fprintf(a.err, "warning: package database is not read: %s\n", safe(text))
			}
			if a.format == "json" {
				return a.show(found, nil)
			}
			return showList(a, found.Packages, func(p control.InstalledPackage) string { return safe(p.Name) },
				func(w io.Writer) { printInstalled(w, found.Packages) })
		},
		ValidArgsFunction: complete(1, a.references),
	})
}

func printInstalled(w io.Writer, list []control.InstalledPackage) {
	heading(w, len(list), "no packages", "PACKAGE", "VERSION", "ARCH")
	for _, p := range list {
		row(w, p.Name, p.Version, p.Arch)
	}
}

func printVersion(w io.Writer, v control.Version) {
	row(w, "version", versionRef(v.Image, v.Number))
	row(w, "digest", v.Digest)
	row(w, "created", clock(v.Created))
	row(w, "master", v.Master)
	if v.Parent > 0 {
		row(w, "parent", versionRef(v.Image, v.Parent))
	}
	row(w, "files", count(v.Files))
	row(w, "size", size(v.Bytes))
	row(w, "tags", strings.Join(v.Tags, " "))
	kernel := v.Kernel
	if len(v.OtherKernels) > 0 {
		kernel += " (there is also " + strings.Join(v.OtherKernels, ", ") + ")"
	}
	row(w, "kernel", kernel)
	row(w, "durability", v.Durable)
	if v.Watch != nil {
		row(w, "watch", watchText(v.Watch, time.Now()))
	}
	row(w, "nodes", countedSet(v.Nodes))
	if v.Problem != "" {
		row(w, "problem", v.Problem)
	}
}
