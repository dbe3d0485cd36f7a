package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/backup"
	"dim/internal/backup/stopped"
	"dim/internal/control"
	"dim/internal/pki"
)

// backupFlags are the flags of `dim backup`.
type backupFlags struct {
	noLayers, noStore, dry bool
	keep                   int
}

func (a *app) backupCommand() *cobra.Command {
	f := &backupFlags{}
	cmd := a.listing(&cobra.Command{
		Use:   "backup DIR|-",
		Short: "Back up this server while it runs",
		Long: `Writes all that this server has to a new directory in DIR, or as one tar archive
to standard output: the declared state, the keys with the certificate authority,
the nodes' layers with what was set aside, and the store. Each layer is as it
was at one moment, and has all that its node had been told is written. The
server goes on serving. If none runs, its data directory is read, and no server
starts on it meanwhile.

DIR has a directory for each backup, named after its time, with plain files as
in the data directory. What is as in the backup before is a hard link to it: a
second backup costs what has changed. DIR needs a file system with devices and
trusted extended attributes; on any other one make a file of the stream.

A backup that lacks something says so, and the exit code is 3. It has private
keys: whoever can read it can act as this server.`,
		Example: `  dim backup /mnt/backup/head
  dim backup /mnt/backup/head --keep 14
  dim backup /mnt/backup/head --dry-run
  dim backup - | age -r age1… > head.tar.age
  dim backup - --no-store | ssh other 'cat > head.tar'`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), args[0], f) },

		ValidArgsFunction: completeDirs,
	})
	cmd.Flags().BoolVar(&f.noLayers, "no-layers", false, "leave out what nodes have written")
	cmd.Flags().BoolVar(&f.noStore, "no-store", false, "leave out the content of images")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "only report how many bytes it would have")
	cmd.Flags().IntVar(&f.keep, "keep", 0, "keep the latest `N` complete backups in DIR (0: all)")
	cmd.AddCommand(a.backupVerifyCommand(), a.backupListCommand())
	return cmd
}

// completeDirs offers directories.
func completeDirs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func (a *app) backup(ctx context.Context, dir string, f *backupFlags) error {
	stream := dir == "-"
	if stream && (f.keep > 0 || a.format == "json" && !f.dry) {
		return &usageError{
			errors.New("backup: standard output has the archive; --keep and -o json need a directory"),
			"name a directory",
		}
	}
	if stream && !f.dry && terminalWidth(a.out) > 0 {
		return &usageError{errors.New("backup: the archive would go to the terminal"), "dim backup - > FILE"}
	}
	o := backup.Options{Data: a.data, NoLayers: f.noLayers, NoStore: f.noStore, Program: version()}
	if f.dry {
		return a.backupPlan(ctx, dir, o)
	}
	source, release, err := a.backupSource(ctx)
	if err != nil {
		return err
	}
	defer release()
	p := newProgress(a.err)
	o.Source, o.Progress = source, p.show
	began := time.Now()
	made := backupMade{Path: "-"}
	if stream {
		made.Info, err = backup.Stream(ctx, a.out, o)
	} else {
		made.Path, made.Info, err = backup.Make(ctx, dir, o)
	}
	p.end()
	if err != nil {
		return err
	}
	made.Seconds = time.Since(began).Seconds()
	if f.keep > 0 && made.Complete {
		if made.Removed, err = backup.Prune(dir, f.keep); err != nil {
			return fmt.Errorf("remove older backups in %s: %w", dir, err)
		}
	}
	return a.showBackup(&made, stream)
}

// backupSource returns the running daemon, or the data directory if none runs.
func (a *app) backupSource(ctx context.Context) (s backup.Source, release func(), err error) {
	c := a.client()
	_, err = c.BackupState(ctx)
	if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.Unavailable {
		at, serr := stopped.Open(a.data)
		if errors.Is(serr, pki.ErrNotInitialised) {
			return nil, nil, serr
		}
		if serr != nil { // it starts, or another backup is being made
			return nil, nil, control.Errorf(control.Unavailable, "%v; %v", err, serr).WithHint(e.Hint)
		}
		return at, func() { _ = at.Close() }, nil
	}
	return c, func() {}, err
}

// backupMade is a backup that was made, as -o json prints it.
type backupMade struct {
	*backup.Info
	Path    string   `json:"path"` // "-": standard output
	Seconds float64  `json:"seconds"`
	Removed []string `json:"removed,omitempty"`
}

func (a *app) showBackup(m *backupMade, stream bool) error {
	text := func(w io.Writer) {
		fmt.Fprintf(w, "backed up: %s in %s; %s written in %s\n", backupHas(m.Info), m.Path, size(m.Written),
			span(time.Duration(m.Seconds*float64(time.Second))))
		if m.Secrets {
			fmt.Fprintln(w, "it has private keys: only root may read it, so keep it that way")
		}
		for _, name := range m.Removed {
			fmt.Fprintln(w, "removed:", name)
		}
		for _, p := range m.Problems {
			fmt.Fprintln(w, "problem:", safe(p))
		}
		if !m.Complete {
			fmt.Fprintln(w, "the backup is INCOMPLETE: it lacks what the problems name")
		}
	}
	if stream {
		text(a.err)
	} else if err := a.show(m, text); err != nil {
		return err
	}
	if !m.Complete {
		return errProblems
	}
	return nil
}

// backupHas says in a line what a backup has.
func backupHas(i *backup.Info) string {
	text := fmt.Sprintf("%s, %s of images, %s of %s", plural(len(i.Layers), "layer"),
		plural(len(i.Versions), "version"), plural(int(i.Files), "file"), size(i.Bytes))
	if len(i.LeftOut) > 0 {
		text += ", without " + strings.Join(i.LeftOut, " and ")
	}
	return text
}

func (a *app) backupPlan(ctx context.Context, dir string, o backup.Options) error {
	if dir == "-" {
		dir = ""
	}
	parts, err := backup.Plan(ctx, dir, o)
	if err != nil {
		return err
	}
	return a.show(parts, func(w io.Writer) {
		row(w, "PART", "FILES", "SIZE", "TO WRITE")
		for _, p := range parts {
			row(w, p.Name, count(p.Files), size(p.Bytes), size(p.New))
		}
	})
}

func (a *app) backupVerifyCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "verify DIR|-",
		Short: "Prove that a backup is what it was",
		Long: `Reads all of a backup, which is DIR or the latest in DIR, or an archive from
standard input, and compares contents, names, owners, modes, times, extended
attributes and hard links with its manifest. The exit code is 3 if the backup
is one that lacks something, and 1 if it is damaged.`,
		Example: `  dim backup verify /mnt/backup/head
  dim backup verify - < head.tar`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := newProgress(a.err)
			info, err := reading(args[0], cmd.InOrStdin(), p).Verify(cmd.Context())
			p.end()
			if err != nil {
				return err
			}
			return a.showInfo(info)
		},
		ValidArgsFunction: completeDirs,
	})
}

// reading returns a backup that is read: "-" is standard input.
func reading(from string, stdin io.Reader, p *progress) backup.Restoration {
	r := backup.Restoration{From: from, Progress: p.show}
	if from == "-" {
		r.Stream = stdin
	}
	return r
}

// showInfo prints what a backup has. The error is errProblems if it lacks something.
func (a *app) showInfo(i *backup.Info) error {
	err := a.show(i, func(w io.Writer) {
		row(w, "cluster", i.Cluster)
		row(w, "server", i.Server)
		if len(i.Heads) > 0 {
			row(w, "heads", "also "+safe(strings.Join(i.Heads, ", ")))
		}
		row(w, "made", i.Ended.Local().Format(time.DateTime)+" by dim "+i.Program)
		row(w, "has", backupHas(i))
		row(w, "images", strings.Join(i.Versions, " "))
		row(w, "complete", map[bool]string{true: "yes", false: "NO"}[i.Complete])
		for _, p := range i.Problems {
			row(w, "problem", safe(p))
		}
		if len(i.Layers) == 0 {
			return
		}
		fmt.Fprintln(w)
		row(w, "NODE", "IMAGE", "VERSION", "AS OF", "ENTRIES", "SIZE")
		for _, l := range i.Layers {
			row(w, safe(l.Node), safe(l.Image), l.Version, l.Moment.Local().Format(time.DateTime), count(l.Entries),
				size(l.Bytes))
		}
	})
	if err == nil && !i.Complete {
		err = errProblems
	}
	return err
}

// listedBackup is a backup in a directory, as -o json prints it.
type listedBackup struct {
	Name string `json:"name"`
	*backup.Info
}

func (a *app) backupListCommand() *cobra.Command {
	return a.names(&cobra.Command{
		Use:               "ls DIR",
		Short:             "List the backups in a directory",
		Long:              `Lists the backups in DIR, the latest first.`,
		Example:           `  dim backup ls /mnt/backup/head`,
		Args:              operands(1, 1),
		RunE:              func(_ *cobra.Command, args []string) error { return a.backupList(args[0]) },
		ValidArgsFunction: completeDirs,
	})
}

func (a *app) backupList(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	names, err := backup.List(dir)
	if err != nil {
		return err
	}
	list := []listedBackup{}
	for _, name := range names {
		s, err := backup.OpenStored(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		list = append(list, listedBackup{name, s.Info})
		s.Close()
	}
	return showList(a, list, func(b listedBackup) string { return b.Name }, func(w io.Writer) {
		heading(w, len(list), "no backups",
			"NAME", "SERVER", "LAYERS", "VERSIONS", "FILES", "SIZE", "WRITTEN", "COMPLETE")
		for _, b := range list {
			row(w, b.Name, b.Server, len(b.Layers), len(b.Versions), count(b.Files), size(b.Bytes), size(b.Written),
				map[bool]string{true: "yes", false: "NO"}[b.Complete])
		}
	})
}
