package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/boot/dhcpconf"
	"dim/internal/cluster"
	"dim/internal/cluster/export"
	"dim/internal/cluster/summary"
	"dim/internal/control"
	"dim/internal/durable"
)

func (a *app) clusterExportCommand() *cobra.Command {
	var format, dir string
	cmd := &cobra.Command{
		Use:   "export --format FORMAT [FILE]",
		Short: "Write the cluster in a format of another program",
		Long: `Writes names, addresses and groups of a description in the format of a file of
another program, or the configuration of another DHCP server, with the boot
files of the nodes. With FILE it needs no daemon. Without FILE it exports the
applied description. The formats are:

` + exportFormats() + `
A format of one file is printed, or written into the directory of --dir. Zones
are several files and need --dir; their serial number is the time of the last
change of the description. Files that have not changed are left as they are,
and those that have are listed.`,
		Example: `  dim cluster export --format hosts
  dim cluster export --format slurm cluster.xml > /etc/slurm/nodes.conf
  dim cluster export --format bind --dir /etc/bind/dim
  dim cluster export --format kea > /etc/kea/kea-dhcp4.conf`,
		Args: operands(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.clusterExport(cmd.Context(), args, format, dir)
		},

		ValidArgsFunction: completeXML,
	}
	cmd.Flags().StringVar(&format, "format", "", "the `format`")
	cmd.Flags().StringVar(&dir, "dir", "", "write the files into this `directory`")
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.RegisterFlagCompletionFunc("format",
		func(*cobra.Command, []string, string) (list []string, _ cobra.ShellCompDirective) {
			for _, f := range allFormats() {
				list = append(list, f.Name+"\t"+f.About)
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		})
	return cmd
}

// allFormats returns the formats of all packages, by name.
func allFormats() []export.Format {
	list := append(export.Formats(), dhcpconf.Formats()...)
	list = append(list, export.Format{
		Name: "json", About: "all of it, as dim cluster show -o json", Files: exportJSON,
	})
	slices.SortFunc(list, func(a, b export.Format) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// exportJSON writes the expanded cluster. docs/reference/output.md lists its keys.
func exportJSON(c *cluster.Cluster, _ uint32) ([]export.File, error) {
	b, err := json.MarshalIndent(summary.Of(c, c.Nodes), "", "  ")
	return []export.File{{Name: "cluster.json", Data: append(b, '\n')}}, err
}

// exportFormats is a table of the formats.
func exportFormats() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, f := range allFormats() {
		fmt.Fprintf(w, "  %s\t%s\n", f.Name, f.About)
	}
	w.Flush()
	return b.String()
}

func (a *app) clusterExport(ctx context.Context, args []string, format, dir string) error {
	formats := allFormats()
	i := slices.IndexFunc(formats, func(f export.Format) bool { return f.Name == format })
	if i < 0 {
		var names []string
		for _, f := range formats {
			names = append(names, f.Name)
		}
		hint := "formats are " + strings.Join(names, ", ")
		if format == "" {
			return &usageError{errors.New("cluster export: --format is missing"), hint}
		}
		return &usageError{fmt.Errorf("cluster export: there is no format %q", format), hint}
	}
	c, changed, err := a.dated(ctx, args)
	if err != nil {
		return err
	}
	files, err := formats[i].Files(c, uint32(changed.Unix()))
	switch {
	case err != nil:
		return control.Errorf(control.Invalid, "%v", err)
	case dir != "":
		return a.writeExport(dir, files)
	case len(files) > 1:
		return &usageError{fmt.Errorf("--format %s makes %d files", format, len(files)), "--dir DIRECTORY gets them"}
	}
	_, err = a.out.Write(files[0].Data)
	return err
}

// dated is description, and when the description was changed last.
func (a *app) dated(ctx context.Context, args []string) (c *cluster.Cluster, changed time.Time, err error) {
	if len(args) == 0 {
		d, err := a.client().Description(ctx, 0)
		if err != nil {
			return nil, changed, err
		}
		c, err = parseApplied(&d)
		return c, d.Applied, err
	}
	if c, err = cluster.Load(args[0]); err != nil {
		return nil, changed, err
	}
	for i, f := range c.Sources() {
		path := args[0]
		if i > 0 {
			path = filepath.Join(filepath.Dir(path), filepath.FromSlash(f.Name))
		}
		st, err := os.Stat(path)
		if err != nil {
			return nil, changed, err
		}
		if st.ModTime().After(changed) {
			changed = st.ModTime()
		}
	}
	return c, changed, nil
}

// writeExport writes the files that have changed.
func (a *app) writeExport(dir string, files []export.File) error {
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		old, err := os.ReadFile(path)
		if err == nil && bytes.Equal(old, f.Data) {
			continue
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := durable.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(a.out, path)
	}
	return nil
}
