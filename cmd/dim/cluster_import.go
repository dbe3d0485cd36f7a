package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/durable"
	"dim/internal/migrate"
	"dim/internal/migrate/describe"
)

// importFlags are the flags of cluster import.
type importFlags struct {
	file, name, arch, server, only string

	networks []string
}

// importReport is what cluster import prints with -o json.
type importReport struct {
	Nodes int             `json:"node_count"`
	Ruled int             `json:"nodes_by_rule"` // nodes in <nodes> elements
	Files []string        `json:"written"`       // that were written
	Notes []describe.Note `json:"not_carried_over"`
}

func (a *app) clusterImportCommand() *cobra.Command {
	var flags importFlags
	cmd := a.listing(&cobra.Command{
		Use:   "import FORMAT PATH…",
		Short: "Make a description of another program's files",
		Long: `Reads the files in which another program describes a cluster, and writes a
description. Names and addresses that follow a rule become expressions. The
formats are:

` + importFormats() + `
Without --file the description is printed. With --file FILE it is written into
FILE, which must not exist. Hardware addresses that follow no rule are then
written into FILE-macs.csv (without .xml); without --file they are in the
description, node by node.

A PATH may be a directory, for the files in it. With --only SET, only the nodes
of a set are carried over, such as n[01-32] or the group @rack1.

Whatever is not carried over, and whatever the description needs that is not in
the input, is reported on standard error with its file and line, or with --file
on standard output. The description always passes dim cluster check.`,
		Example: `  dim cluster import warewulf /etc/warewulf/*.conf --file cluster.xml
  dim cluster import hosts+ethers /etc/hosts /etc/ethers --server head=10.0.0.1
  dim cluster import isc-dhcp /etc/dhcp/dhcpd.conf --file cluster.xml -o json
  dim cluster import xcat /tmp/xcat --only @rack1 --file rack1.xml
  dim cluster import ansible /etc/ansible /etc/hosts --file cluster.xml`,
		Args: operands(2, anyNumber),
		RunE: func(_ *cobra.Command, args []string) error { return a.clusterImport(args[0], args[1:], &flags) },

		ValidArgsFunction: completeImport,
	})
	f := cmd.Flags()
	f.StringVar(&flags.file, "file", "", "write the description into this `file`")
	f.StringVar(&flags.name, "name", "", "the cluster's `name` (default: cluster)")
	f.StringVar(&flags.arch, "arch", "amd64", "the `architecture` of the nodes: amd64, arm64 or ppc64le")
	f.StringVar(&flags.server, "server", "", "the head, which serves the nodes: `NAME[=ADDRESS]`")
	f.StringArrayVar(&flags.networks, "network", nil, "a network: `NAME=SUBNET`; can be given several times")
	f.StringVar(&flags.only, "only", "", "carry over only the nodes of this `SET`")
	completeFlag(cmd, "arch", "amd64", "arm64", "ppc64le")
	return cmd
}

// importFormats is a table of the formats.
func importFormats() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, f := range migrate.Formats() {
		fmt.Fprintf(w, "  %s\t%s\n", f.Name, f.About)
	}
	w.Flush()
	return b.String()
}

// completeImport offers the formats, then files.
func completeImport(_ *cobra.Command, args []string, _ string) (list []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	for _, f := range migrate.Formats() {
		list = append(list, f.Name+"\t"+f.About)
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) clusterImport(format string, paths []string, flags *importFlags) error {
	formats := migrate.Formats()
	i := slices.IndexFunc(formats, func(f migrate.Format) bool { return f.Name == format })
	if i < 0 {
		var names []string
		for _, f := range formats {
			names = append(names, f.Name)
		}
		return &usageError{
			fmt.Errorf("cluster import: there is no format %q", format), "formats are " + strings.Join(names, ", "),
		}
	}
	if flags.file == "" && a.format == "json" {
		return &usageError{
			errors.New("cluster import: -o json is for the report, and without --file the description is printed"),
			"add --file FILE",
		}
	}
	if flags.file != "" {
		if err := needDirectory("cluster import: write into", filepath.Dir(flags.file)); err != nil {
			return err
		}
	}
	o, err := flags.options()
	if err != nil {
		return err
	}
	files, err := readInputs(paths, formats[i].Wants)
	if err != nil {
		return err
	}
	r, err := formats[i].Describe(files, o)
	if err != nil {
		printNotes(a.err, r.Notes)
		return control.Errorf(control.Invalid, "%v", err)
	}
	if flags.file == "" {
		printNotes(a.err, r.Notes)
		_, err = a.out.Write(r.XML)
		return err
	}
	return a.writeImport(r, flags.file, o.Inventory)
}

// options makes options of flags.
func (f *importFlags) options() (o migrate.Options, err error) {
	o = migrate.Options{Name: f.name, Arch: f.arch, Only: f.only}
	if !slices.Contains([]string{"amd64", "arm64", "ppc64le"}, f.arch) {
		return o, &usageError{
			fmt.Errorf("cluster import: unknown architecture %q", f.arch), "--arch amd64, --arch arm64, --arch ppc64le",
		}
	}
	name, address, given := strings.Cut(f.server, "=")
	o.Server.Name = name
	if given {
		if o.Server.Address, err = netip.ParseAddr(address); err != nil {
			return o, &usageError{
				fmt.Errorf("cluster import: --server %s: %q is not an address", f.server, address),
				"such as head=10.0.0.1",
			}
		}
	}
	for _, text := range f.networks {
		name, subnet, _ := strings.Cut(text, "=")
		p, err := netip.ParsePrefix(subnet)
		if err != nil || !p.Addr().Is4() {
			return o, &usageError{
				fmt.Errorf("cluster import: --network %s: it is not NAME=SUBNET", text), "such as boot=10.0.0.0/16",
			}
		}
		o.Networks = append(o.Networks, describe.Network{Name: name, Subnet: p})
	}
	if f.file != "" {
		o.Inventory = strings.TrimSuffix(filepath.Base(f.file), ".xml") + "-macs.csv"
	}
	return o, nil
}

// maxInputs bounds the number of files that are read: a directory with more is hardly one of descriptions of a cluster.
// maxInputBytes bounds what is read of all of them.
const (
	maxInputs     = 20_000
	maxInputBytes = 256 << 20
)

// readInputs reads the files, and those below directories that are wanted. The error names all that cannot be read.
func readInputs(paths []string, wants func(path string) bool) (files []migrate.File, err error) {
	var problems []error
	total := 0
	for _, root := range paths {
		walk := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				problems = append(problems, err)
				return nil
			case e.IsDir() && path != root && strings.HasPrefix(e.Name(), "."):
				return filepath.SkipDir
			case e.IsDir(), path != root && (!e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") || !wants(path)):
				return nil
			case len(files) == maxInputs:
				return fmt.Errorf("read %s: more than %d files: give those of the cluster", root, maxInputs)
			}
			data, err := readInput(path)
			if total += len(data); total > maxInputBytes {
				return fmt.Errorf("read %s: more than %d MiB: give the files of the cluster", root, maxInputBytes>>20)
			}
			if err != nil {
				problems = append(problems, err)
			}
			files = append(files, migrate.File{Name: path, Data: data})
			return nil
		})
		problems = append(problems, walk)
	}
	return files, errors.Join(problems...)
}

// readInput reads at most one byte more than is allowed: migrate reports a file that is too large.
func readInput(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, migrate.MaxFile+1))
}

// writeImport writes the files, the description last, and prints the report.
func (a *app) writeImport(r *describe.Result, file, inventory string) error {
	report := importReport{Nodes: r.Nodes, Ruled: r.Ruled, Files: []string{}}
	report.Notes = append([]describe.Note{}, r.Notes...)
	beside := filepath.Join(filepath.Dir(file), inventory)
	for _, path := range []string{file, beside} {
		if _, err := os.Lstat(path); err == nil {
			return control.Errorf(control.Conflict, "write %s: it exists already", path)
		}
	}
	if r.Inventory != nil {
		if err := durable.WriteFile(beside, r.Inventory, 0o644); err != nil {
			return err
		}
		report.Files = append(report.Files, beside)
	}
	if err := durable.WriteFile(file, r.XML, 0o644); err != nil {
		return err
	}
	report.Files = append(report.Files, file)
	return a.show(report, func(w io.Writer) {
		printNotes(w, r.Notes)
		fmt.Fprintf(w, "%s: %s, %s by rules in %s\n", strings.Join(report.Files, ", "), plural(r.Nodes, "node"),
			count(uint64(r.Ruled)), plural(r.Rules, "element"))
	})
}

func printNotes(w io.Writer, notes []describe.Note) {
	for _, n := range notes {
		fmt.Fprintln(w, safe(n.String()))
	}
}
