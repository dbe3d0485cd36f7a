package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/durable"
	"dim/internal/migrate/chroots"
	"dim/internal/textdiff"
)

// imageImportFlags are the flags of image import.
type imageImportFlags struct {
	file  string
	lists []string
	dry   bool
}

// importedImage is a root that image import has found, as -o json prints it.
type importedImage struct {
	Name    string         `json:"name"`
	Arch    string         `json:"arch"`
	Master  string         `json:"master"`
	Exclude []string       `json:"exclude"`
	Notes   []chroots.Note `json:"not_carried_over"`
}

func (a *app) imageImportCommand() *cobra.Command {
	var flags imageImportFlags
	cmd := a.listing(&cobra.Command{
		Use:   "import PROGRAM [PATH…]",
		Short: "Take the roots of Warewulf or xCAT as masters",
		Long: `Finds the roots that another program keeps for its nodes, and prints an <image>
element for each: the root is the master, where it is. Nothing is copied, and
nothing in a root is changed. The programs, and where their roots are looked for
without a PATH, are:

` + importPrograms() + `
What the program leaves out of its own images becomes <exclude> elements, but
for the kernel; so does what it has put into a root for itself. Warewulf has
such a list in the root, /etc/warewulf/excludes. xCAT's .exlist is looked for
where packimage does, or named by --exlist.

With --file FILE the elements are added to a description. An image there that
has one of the roots as its master gets the <exclude> elements that it lacks.
The new description passes dim cluster check, or nothing is written.`,
		Example: `  dim image import warewulf
  dim image import xcat --file cluster.xml --dry-run
  dim image import xcat /install/netboot/rocky9.4 --file cluster.xml`,
		Args: operands(1, anyNumber),
		RunE: func(_ *cobra.Command, args []string) error { return a.imageImport(args[0], args[1:], &flags) },

		ValidArgsFunction: completeImageImport,
	})
	cmd.Flags().StringVar(&flags.file, "file", "", "add the images to the description in this `file`")
	cmd.Flags().StringArrayVar(&flags.lists, "exlist", nil, "a `file` of exclusions of xCAT; may be repeated")
	cmd.Flags().BoolVar(&flags.dry, "dry-run", false, "with --file, only print what would change in it")
	return cmd
}

// importPrograms is a table of the programs whose roots are found.
func importPrograms() string {
	var b strings.Builder
	for _, p := range chroots.Programs() {
		fmt.Fprintf(&b, "  %-10s%s\n", p.Name, strings.Join(p.Paths, ", "))
	}
	return b.String()
}

func completeImageImport(_ *cobra.Command, args []string, _ string) (list []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	for _, p := range chroots.Programs() {
		list = append(list, p.Name+"\t"+p.About)
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) imageImport(program string, paths []string, flags *imageImportFlags) error {
	programs := chroots.Programs()
	i := slices.IndexFunc(programs, func(p chroots.Program) bool { return p.Name == program })
	if i < 0 {
		var names []string
		for _, p := range programs {
			names = append(names, p.Name)
		}
		return &usageError{
			fmt.Errorf("image import: there is no program %q", program), "programs are " + strings.Join(names, ", "),
		}
	}
	if flags.dry && flags.file == "" {
		return &usageError{errors.New("image import: without --file nothing is written"), "leave --dry-run out"}
	}
	lists := flags.lists
	if program == "xcat" && len(lists) == 0 {
		lists = []string{"/install/custom/netboot", "/opt/xcat/share/xcat/netboot"}
	}
	if len(paths) == 0 {
		paths = slices.DeleteFunc(slices.Clone(programs[i].Paths), func(p string) bool { return !exists(p) })
		if len(paths) == 0 {
			return control.Errorf(control.NotFound, "there is no root of %s in %s", program,
				strings.Join(programs[i].Paths, ", ")).WithHint("name the directory that they are in")
		}
	}
	roots, err := programs[i].Find(paths, lists)
	if err != nil {
		return control.Errorf(control.Invalid, "%v", err)
	}
	if flags.file != "" {
		if err := a.addImages(roots, flags); err != nil || flags.dry {
			return err
		}
	}
	return a.showImported(roots, flags.file)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// showImported prints the roots: as elements, or with a file what has become of them.
func (a *app) showImported(roots []chroots.Root, file string) error {
	var list []importedImage
	for _, r := range roots {
		im := importedImage{Name: r.Name, Arch: r.Arch, Master: "dir:" + r.Path, Exclude: []string{}}
		im.Exclude, im.Notes = append(im.Exclude, r.Excludes...), append([]chroots.Note{}, r.Notes...)
		list = append(list, im)
	}
	if a.format != "json" {
		for _, r := range roots {
			for _, n := range r.Notes {
				fmt.Fprintln(a.err, safe(n.String()))
			}
		}
	}
	return a.show(list, func(w io.Writer) {
		for _, r := range roots {
			if file == "" {
				fmt.Fprint(w, r.XML())
				continue
			}
			fmt.Fprintf(w, "%s: image %s, master dir:%s, %s\n", file, r.Name, safe(r.Path),
				plural(len(r.Excludes), "exclude rule"))
		}
	})
}

// addImages adds the roots to a description, which is checked before it is written.
func (a *app) addImages(roots []chroots.Root, flags *imageImportFlags) error {
	before, err := os.ReadFile(flags.file)
	if err != nil {
		return err
	}
	after, err := chroots.Insert(before, roots)
	if err != nil {
		return control.Errorf(control.Invalid, "add images to %s: %v", flags.file, err)
	}
	dir := os.DirFS(filepath.Dir(flags.file))
	_, err = cluster.Parse(cluster.Source{Name: flags.file, XML: after, Open: func(name string) ([]byte, error) {
		f, err := dir.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, 64<<20))
	}})
	if err != nil {
		return control.Errorf(control.Invalid, "add images to %s: %v", flags.file, err)
	}
	if flags.dry {
		_, err = io.WriteString(a.out, textdiff.Unified(flags.file, flags.file+" (new)", before, after))
		return err
	}
	info, err := os.Stat(flags.file)
	if err != nil {
		return err
	}
	return durable.WriteFile(flags.file, after, info.Mode().Perm())
}
