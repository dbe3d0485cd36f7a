package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"dim/internal/cluster/draft"
	"dim/internal/control"
	"dim/internal/durable"
)

// draftFlags are the flags of dim cluster init, as texts.
type draftFlags struct {
	name, server, address, gateway, nodes, first, card, image, arch, master, macs string
}

func (a *app) clusterInitCommand() *cobra.Command {
	var f draftFlags
	cmd := &cobra.Command{
		Use:   "init FILE",
		Short: "Write a first description",
		Long: `Writes a first description: this machine as head and image server, one image, and
nodes whose names and addresses count up together. On a terminal it shows the
addresses of this machine's cards and asks for what no flag has. Existing files
are not replaced. The result is checked as by dim cluster check.

--macs names a file with the hardware addresses of the nodes: one a line, in the
order of the nodes, or each after the name of its node. They are written into
` + draft.InventoryName + ` beside FILE. Without them no node can boot: add them there later.`,
		Example: `  dim cluster init /etc/dim/cluster.xml
  dim cluster init cluster.xml --nodes 'n[01-16]' --address 10.77.0.1/24 \
      --first 10.77.0.11 --macs macs.txt`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.clusterInit(cmd, args[0], f) },

		ValidArgsFunction: completeXML,
	}
	host, _ := os.Hostname()
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "`address` of this server with the length of the prefix: 10.77.0.1/24")
	flags.StringVar(&f.nodes, "nodes", "", "names of the nodes, one `range`: n[01-16]")
	flags.StringVar(&f.first, "first", "", "`address` of the first node (default: ten after the server's)")
	flags.StringVar(&f.gateway, "gateway", "", "`address` of the nodes' gateway")
	flags.StringVar(&f.macs, "macs", "", "`file` with the nodes' hardware addresses")
	flags.StringVar(&f.card, "card", "eth0", "`name` of the nodes' boot card")
	flags.StringVar(&f.name, "name", "cluster", "`name` of the cluster")
	flags.StringVar(&f.server, "server", "", "host `name` of this server (default: that of this machine)")
	flags.StringVar(&f.image, "image", "compute", "`name` of the image")
	flags.StringVar(&f.arch, "arch", runtime.GOARCH, "`architecture` of the image")
	flags.StringVar(&f.master, "master", "", "the image's `master` (default: dir:/srv/dim/masters/IMAGE)")
	cmd.PreRun = func(*cobra.Command, []string) {
		if f.server == "" {
			f.server, _, _ = strings.Cut(host, ".")
		}
		if f.master == "" {
			f.master = "dir:/srv/dim/masters/" + f.image
		}
	}
	return cmd
}

func (a *app) clusterInit(cmd *cobra.Command, file string, f draftFlags) error {
	if err := a.askForFacts(cmd, &f); err != nil {
		return err
	}
	facts, err := f.facts()
	if err != nil {
		return &usageError{about(cmd, err), ""}
	}
	d, err := draft.New(facts)
	if err != nil {
		return &usageError{about(cmd, err), ""}
	}
	files := []struct {
		path string
		data []byte
	}{{filepath.Join(filepath.Dir(file), draft.InventoryName), d.Inventory}, {file, d.XML}}
	for _, x := range files {
		if _, err := os.Lstat(x.path); x.data != nil && !errors.Is(err, fs.ErrNotExist) {
			return control.Errorf(control.Conflict, "write %s: it exists", x.path).
				WithHint("move it away, or write another file")
		}
	}
	for _, x := range files {
		if x.data == nil {
			continue
		}
		if err := durable.WriteFile(x.path, x.data, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(a.out, "written:", x.path)
	}
	a.format = "table"
	return a.clusterCheck(file)
}

// askForFacts asks for what no flag has, on a terminal. Elsewhere a flag that is missing is an error.
func (a *app) askForFacts(cmd *cobra.Command, f *draftFlags) error {
	cards := localCards()
	in := bufio.NewReader(cmd.InOrStdin())
	ask := func(question string, value *string, suggested string) error {
		if *value != "" {
			return nil
		}
		if !a.hasTerminal(cmd) {
			return &usageError{
				fmt.Errorf("cluster init: %s is not given", question), cmd.CommandPath() + " --help lists the flags",
			}
		}
		fmt.Fprintf(a.err, "%s [%s] ", question, suggested)
		answer, err := in.ReadString('\n')
		if err != nil {
			fmt.Fprintln(a.err)
			return errNotWritten
		}
		if *value = strings.TrimSpace(answer); *value == "" {
			*value = suggested
		}
		return nil
	}
	suggested := ""
	if f.address == "" {
		for _, c := range cards {
			fmt.Fprintf(a.err, "this machine has card %s with %s\n", c.name, c.address)
			suggested = c.address.String()
		}
	}
	err := ask("--address, this server's address with the length of its prefix", &f.address, suggested)
	if errors.Is(err, errNotWritten) {
		return err
	}
	return errors.Join(err, ask("--nodes, the names of the nodes", &f.nodes, "n[01-16]"))
}

var errNotWritten = errors.New("nothing was written")

// localCard is an address of a card of this machine.
type localCard struct {
	name    string
	address netip.Prefix
}

// localCards returns the IPv4 addresses of this machine by which others could reach it.
func localCards() (list []localCard) {
	cards, _ := net.Interfaces() // without an answer there is nothing to suggest
	for _, card := range cards {
		if card.Flags&net.FlagLoopback != 0 || card.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, _ := card.Addrs()
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				list = append(list, localCard{card.Name, p})
			}
		}
	}
	return list
}

// facts parses the flags. The error has all that is wrong.
func (f *draftFlags) facts() (out draft.Facts, err error) {
	var errs []error
	out = draft.Facts{
		Name: f.name, Server: f.server, Nodes: f.nodes, Card: f.card, Image: f.image, Arch: f.arch, Master: f.master,
	}
	out.Network, err = netip.ParsePrefix(f.address)
	if err != nil {
		errs = append(errs, fmt.Errorf(
			"--address %q: not an address with the length of its prefix, such as 10.77.0.1/24", f.address))
	}
	out.Address = out.Network.Addr()
	out.First = out.Address
	for range 10 {
		out.First = out.First.Next()
	}
	for _, x := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"--first", f.first, &out.First}, {"--gateway", f.gateway, &out.Gateway}} {
		if x.text == "" {
			continue
		}
		if *x.to, err = netip.ParseAddr(x.text); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: not an address", x.flag, x.text))
		}
	}
	if f.macs != "" {
		if out.MACs, err = os.ReadFile(f.macs); err != nil {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}
