package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dim/internal/control/client"
)

const defaultData = "/var/lib/dim"

// app is one run of the program: the global flags, and where output goes.
type app struct {
	data   string
	format string // of output: "table", "json", and in some listings "name"
	out    io.Writer
	err    io.Writer
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "dim",
		Short: "Diskless machines that run an ordinary Linux over the network",
		Long: `Dim captures an ordinary Linux installation as an image and serves it to
diskless machines, each with a root of its own. A change in the installation
reaches every machine within seconds, without a reboot.`,
		Example: `  dim cluster check /etc/dim/cluster.xml
  dim init                                 make /var/lib/dim
  dim serve --cluster /etc/dim/cluster.xml --as head
  dim image capture compute --rollout now  capture the master, move every node
  dim status                               show the state of everything`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	data := os.Getenv("DIM_DATA")
	if data == "" {
		data = defaultData
	}
	root.PersistentFlags().StringVar(&a.data, "data", data, "data `directory` of the server (or DIM_DATA)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{about(cmd, plainFlagError(err)), flagHint(cmd, err)}
	})
	root.Version = version()
	root.SetVersionTemplate(versionLine() + "\n")
	// Cobra's own template has lines of any length.
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped 80 "))
	group(root)
	root.AddCommand(
		a.tokenCommand(), a.joinCommand(), a.serverCommand(),
		a.initCommand(), a.serveCommand(), a.clusterCommand(), a.imageCommand(), a.rolloutCommand(), a.nodeCommand(),
		a.mountCommand(), a.umountCommand(), a.statusCommand(), a.benchCommand(), a.backupCommand(), a.restoreCommand(),
		a.completionCommand(), a.versionCommand(), a.readerCommand(),
		&cobra.Command{Use: "exit-codes", Short: "Meaning of the exit codes", Long: exitCodes},
	)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.RunE = helpFor
	}
	return root
}

// helpFor prints the help for a command. Cobra's own takes any words for a command.
func helpFor(cmd *cobra.Command, args []string) error {
	named, rest, err := cmd.Root().Find(args)
	if err != nil {
		return &usageError{err, cmd.Root().CommandPath() + " --help lists the commands"}
	}
	if len(rest) > 0 {
		return unknownCommand(named, rest)
	}
	return named.Help()
}

// unknownCommand returns the error of operands of cmd that begin with a command which there is not.
func unknownCommand(cmd *cobra.Command, args []string) error {
	e := &usageError{
		about(cmd, fmt.Errorf("unknown command %q", args[0])), cmd.CommandPath() + " --help lists the commands",
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		e.hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return e
}

// group makes cmd a command that only has subcommands.
func group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args)
	}
}

// verb is a command's name without the program's.
func verb(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "dim ") }

// plainFlagError leaves the words of Go's parsers out of an error about a flag.
func plainFlagError(err error) error {
	text := err.Error()
	text = regexp.MustCompile(`strconv\.\w+: parsing ".*": invalid syntax`).ReplaceAllString(text, "not a number")
	text = regexp.MustCompile(`strconv\.\w+: parsing ".*": `).ReplaceAllString(text, "")
	text = regexp.MustCompile(`time: (missing unit in|invalid|unknown unit .* in) duration ".*"`).
		ReplaceAllString(text, "not a duration such as 30s, 10m or 2h")
	return errors.New(text)
}

// flagHint tells what to write instead of a flag that does not exist. Other tools leave nodes out by -n03.
func flagHint(cmd *cobra.Command, err error) string {
	if regexp.MustCompile(`^unknown shorthand flag: .* in -\S*[0-9\]]$`).MatchString(err.Error()) {
		return "a node set without some nodes is written with an exclamation mark: 'n[01-04]!n03'"
	}
	return cmd.CommandPath() + " --help lists the flags"
}

// about adds the command to an error of its command line.
func about(cmd *cobra.Command, err error) error {
	if !cmd.HasParent() {
		return err
	}
	return fmt.Errorf("%s: %w", verb(cmd), err)
}

// anyNumber is the most operands of a command whose operands are a node set: a shell makes several of n0*, and
// people name several nodes.
const anyNumber = math.MaxInt

// operands requires between least and most operands, none of them blank: what a shell makes of an unset variable must
// not be taken for "all". The names of the operands are in cmd.Use.
func operands(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		usage := "usage: " + cmd.UseLine()
		for i, arg := range args {
			if strings.TrimSpace(arg) != "" {
				continue
			}
			hint := usage
			if strings.Contains(cmd.Use, "[NODES…]") {
				hint = "leave it out, or write '@*' for all nodes"
			}
			return &usageError{fmt.Errorf("%s: operand %d is empty", verb(cmd), i+1), hint}
		}
		switch {
		case len(args) < least:
			return &usageError{fmt.Errorf("%s: %s is missing", verb(cmd), missing(cmd, len(args))), usage}
		case len(args) > most && most == 0:
			return &usageError{fmt.Errorf("%s takes no operand, and %q is one", verb(cmd), args[0]), usage}
		case len(args) > most:
			return &usageError{
				fmt.Errorf("%s takes %s, and %q is one more", verb(cmd), plural(most, "operand"), args[most]), usage,
			}
		}
		return nil
	}
}

// missing returns the name of the operand with an index, as cmd.Use has it.
func missing(cmd *cobra.Command, index int) string {
	var names []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if !strings.HasPrefix(word, "[") {
			names = append(names, word)
		}
	}
	if index < len(names) {
		return names[index]
	}
	return "an operand"
}

// joined returns the operands of a command as one node set; none is "", which is all nodes.
func joined(args []string) string { return strings.Join(args, ",") }

// nodeSet is a flag whose value is a node set. It may be left out, but not be blank.
type nodeSet string

func (s *nodeSet) String() string { return string(*s) }
func (s *nodeSet) Type() string   { return "set" }
func (s *nodeSet) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("the node set is empty: leave the flag out, or write '@*' for all nodes")
	}
	*s = nodeSet(text)
	return nil
}

// nonBlank is a flag that may be left out, but not be blank: a rollout without the check that an unset variable was to
// hold is not what was meant.
type nonBlank string

func (s *nonBlank) String() string { return string(*s) }
func (s *nonBlank) Type() string   { return "string" }
func (s *nonBlank) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("it is empty: leave the flag out, or give it a value")
	}
	*s = nonBlank(text)
	return nil
}

// listing adds the flag -o to cmd.
func (a *app) listing(cmd *cobra.Command) *cobra.Command { return a.formats(cmd, "table", "json") }

// names adds the flag -o to cmd, whose output can also be names, one a line: it prints with showList.
func (a *app) names(cmd *cobra.Command) *cobra.Command {
	return a.formats(cmd, "table", "json", "name")
}

func (a *app) formats(cmd *cobra.Command, formats ...string) *cobra.Command {
	last := len(formats) - 1
	cmd.Flags().StringVarP(&a.format, "output", "o", "table",
		"output `format`: "+strings.Join(formats[:last], ", ")+" or "+formats[last])
	completeFlag(cmd, "output", formats...)
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, a.format) {
			return &usageError{
				fmt.Errorf("%s: unknown output format %q", verb(cmd), a.format), "-o " + strings.Join(formats, ", -o "),
			}
		}
		return check(cmd, args)
	}
	return cmd
}

// showList prints a list in the format that -o selects: as JSON, as the names of its elements, or with table.
func showList[T any](a *app, list []T, name func(T) string, table func(w io.Writer)) error {
	if list == nil {
		list = []T{} // in JSON: []
	}
	if a.format != "name" {
		return a.show(list, table)
	}
	var b strings.Builder
	for _, v := range list {
		b.WriteString(name(v) + "\n")
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

// show prints v in the format that -o selects: as JSON, or with table.
func (a *app) show(v any, table func(w io.Writer)) error {
	if a.format == "json" {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	table(w)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(a.out, fit(b.String(), terminalWidth(a.out)))
	return err
}

// heading writes the first line of a table. Instead of one of an empty table it writes none.
func heading(w io.Writer, rows int, none string, cells ...any) {
	if rows == 0 {
		fmt.Fprintln(w, none)
		return
	}
	row(w, cells...)
}

// row writes one line of a table. Empty cells are shown as "-", and control characters escaped: what is shown may come
// from a node or another server.
func row(w io.Writer, cells ...any) {
	var line strings.Builder
	for i, c := range cells {
		if i > 0 {
			line.WriteByte('\t')
		}
		text := showable(fmt.Sprint(c), nil)
		if strings.ContainsAny(text, "\n\t") {
			text = strings.ReplaceAll(strings.ReplaceAll(text, "\n", `\n`), "\t", `\t`)
		}
		if text == "" {
			text = "-"
		}
		line.WriteString(text)
	}
	line.WriteByte('\n')
	_, _ = io.WriteString(w, line.String()) // a tabwriter keeps it, and reports errors when it is flushed
}

func (a *app) client() *client.Client { return client.New(a.data) }
