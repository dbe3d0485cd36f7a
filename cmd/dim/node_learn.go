package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/cluster/inventory"
	"dim/internal/control"
)

// learnOptions choose the machines of dim node learn.
type learnOptions struct {
	macs    []string
	inOrder bool
	within  time.Duration
	undo    bool
	yes     bool
}

func (a *app) nodeLearnCommand() *cobra.Command {
	var r control.LearnRequest
	var o learnOptions
	cmd := a.listing(&cobra.Command{
		Use:   "learn [NODES…]",
		Short: "Make nodes of machines that ask for a boot",
		Long: `Binds an unknown machine (dim node unknown) to the next node that has no MAC, in
the order of the description, or to the next such node of NODES. It must ask on
the network from which the node boots. At its next request it boots as that node.
A client on InfiniBand, which is known by the GUID of its port, becomes the next
InfiniBand card on its network that has no MAC.

If several machines ask, --mac chooses one; it may be repeated, and its order
counts. --in-order takes all of them, in the order in which they asked first:
switch the machines of a rack on one after the other, then

    dim node learn rack2 --in-order

It lists what it will bind, and asks on a terminal; elsewhere it needs --yes.
With --dry-run it only lists. --undo takes back what was learned of NODES; so
does dim cluster undo, if it was the last change.

What was learned is kept beside the description, for all servers, and later
descriptions do not change it. If one states another MAC for such a card,
dim cluster apply asks, and what the description states holds.`,
		Example: `  dim node learn --dry-run
  dim node learn n07 --mac 52:54:00:4d:00:07
  dim node learn rack2 --in-order --within 1h
  dim node learn rack2 --undo`,
		Args: operands(0, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Mode, r.Nodes = control.LearnFree, joined(args)
			return a.nodeLearn(cmd, r, &o)
		},
		ValidArgsFunction: complete(anyNumber, a.nodeNames),
	})
	f := cmd.Flags()
	f.StringArrayVar(&o.macs, "mac", nil, "the machine with this `MAC`")
	_ = cmd.RegisterFlagCompletionFunc("mac", complete(anyNumber, a.machineNames))
	f.BoolVar(&o.inOrder, "in-order", false, "all machines that ask, in the order of their first requests")
	f.DurationVar(&o.within, "within", 0, "only machines that have asked first within this `time`")
	f.BoolVar(&o.undo, "undo", false, "take back what was learned of NODES")
	learnFlags(cmd, &r, &o)
	cmd.MarkFlagsMutuallyExclusive("mac", "in-order", "undo")
	cmd.MarkFlagsMutuallyExclusive("mac", "within")
	return cmd
}

func (a *app) nodeRebindCommand() *cobra.Command {
	var r control.LearnRequest
	var o learnOptions
	cmd := a.listing(&cobra.Command{
		Use:   "rebind NODE [MAC]",
		Short: "Let another machine be a node, after its hardware was replaced",
		Long: `Gives the boot card of NODE another MAC. The node keeps its name, its addresses,
its version and all that it has written. Without MAC it is the machine that asks
for a boot and is not in the description, if there is only one on the network of
the node. A MAC of eight bytes is the GUID of an InfiniBand port: the InfiniBand
card of NODE gets it.

The old MAC is no longer a node's. It lists what it changes, and asks on a
terminal; elsewhere it needs --yes. dim node learn NODE --undo gives the node the
MAC of the description again.`,
		Example: `  dim node rebind n07
  dim node rebind n07 52:54:00:4d:00:17 --yes`,
		Args: operands(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Mode, r.Nodes, o.macs = control.LearnRebind, args[0], args[1:]
			return a.nodeLearn(cmd, r, &o)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return complete(2, a.machineNames)(cmd, args, to)
			}
			return complete(1, a.nodeNames)(cmd, args, to)
		},
	})
	learnFlags(cmd, &r, &o)
	return cmd
}

func learnFlags(cmd *cobra.Command, r *control.LearnRequest, o *learnOptions) {
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only list what would be bound")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "bind without a question")
	cmd.Flags().StringVarP(&r.Message, "message", "m", "", "why, for dim cluster log")
}

// machineNames returns the MACs of the unknown machines, for completion.
func (a *app) machineNames(ctx context.Context) (names []string) {
	list, _ := a.client().Machines(ctx) // without a daemon: nothing
	for _, m := range list {
		names = append(names, m.MAC)
	}
	return names
}

// nodeLearn lists what a request binds, asks, and binds just that.
func (a *app) nodeLearn(cmd *cobra.Command, r control.LearnRequest, o *learnOptions) (err error) {
	switch {
	case o.undo && r.Nodes == "":
		return &usageError{errors.New("node learn: NODES are missing"), "--undo '@*' takes back all that was learned"}
	case o.undo:
		r.Mode = control.LearnUndo
	default:
		if r.Machines, err = a.machines(cmd.Context(), &r, o); err != nil {
			return err
		}
	}
	if r.By = person(); r.Message == "" {
		r.Message = cmd.CommandPath()
	}
	if !r.DryRun && !o.yes {
		if r.Revision, err = a.askToBind(cmd, r); err != nil {
			return err
		}
	}
	done, err := a.client().Learn(cmd.Context(), r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { printBound(w, &done) })
}

// askToBind shows what a request binds, and asks. It returns the revision of the description for which that holds.
func (a *app) askToBind(cmd *cobra.Command, r control.LearnRequest) (revision int64, err error) {
	r.DryRun = true
	planned, err := a.client().Learn(cmd.Context(), r)
	if err != nil {
		return 0, err
	}
	w := tabwriter.NewWriter(a.err, 0, 0, 2, ' ', 0)
	printBound(w, &planned)
	if err := w.Flush(); err != nil {
		return 0, err
	}
	sure, asked := a.confirm(cmd, "Bind them?")
	if !asked {
		return 0, &usageError{fmt.Errorf("node %s: nobody can be asked", cmd.Name()), "add --yes to bind them"}
	}
	if !sure {
		return 0, fmt.Errorf("node %s: nothing was bound", cmd.Name())
	}
	return planned.Revision, nil
}

// machines returns the machines that a request is to bind, in their order.
func (a *app) machines(
	ctx context.Context, r *control.LearnRequest, o *learnOptions,
) (list []control.Machine, err error) {
	asking, err := a.client().Machines(ctx)
	if err != nil {
		return nil, err
	}
	if len(o.macs) > 0 {
		return chosenMachines(asking, o.macs)
	}
	if r.Mode == control.LearnRebind {
		if asking, err = a.onNetworkOf(ctx, r.Nodes, asking); err != nil {
			return nil, err
		}
	}
	for _, m := range asking {
		if o.within == 0 || time.Since(m.First) <= o.within {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(x, y control.Machine) int { return x.First.Compare(y.First) })
	switch {
	case len(list) == 0:
		return nil, control.Errorf(control.NotFound, "no unknown machine asks for a boot").
			WithHint("switch it on, and let it boot from the network; dim node unknown lists it then")
	case len(list) > 1 && !o.inOrder:
		w := tabwriter.NewWriter(a.err, 0, 0, 2, ' ', 0)
		printMachines(w, list, time.Now())
		if err := w.Flush(); err != nil {
			return nil, err
		}
		return nil, control.Errorf(control.Invalid, "%d unknown machines ask for a boot", len(list)).
			WithHint(chooseHint(r.Mode))
	}
	return list, nil
}

func chooseHint(mode control.LearnMode) string {
	if mode == control.LearnRebind {
		return "dim node rebind NODE MAC chooses one"
	}
	return "--mac MAC chooses one; --in-order takes all, in the order in which they asked first"
}

// chosenMachines returns the machines with the given MACs. Those that have not asked are taken, too: their MACs may be
// known from a label.
func chosenMachines(asking []control.Machine, macs []string) (list []control.Machine, err error) {
	for _, text := range macs {
		mac, err := parseMAC(text)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(asking, func(m control.Machine) bool { return m.MAC == mac })
		if i < 0 {
			list = append(list, control.Machine{MAC: mac})
			continue
		}
		list = append(list, asking[i])
	}
	return list, nil
}

// onNetworkOf returns the machines that may be on the network from which a node boots.
func (a *app) onNetworkOf(ctx context.Context, node string, all []control.Machine) (list []control.Machine, err error) {
	n, err := a.client().Node(ctx, node)
	if err != nil {
		return nil, err
	}
	if n.Details == nil || len(n.Details.Interfaces) == 0 {
		return all, nil
	}
	for _, m := range all {
		cards := n.Details.Interfaces[:1]
		if mac, err := net.ParseMAC(m.MAC); err == nil && len(mac) == 8 { // of InfiniBand
			cards = n.Details.Interfaces[1:]
		}
		on := func(card control.Interface) bool { return m.Network == "" || m.Network == card.Network }
		if slices.ContainsFunc(cards, on) {
			list = append(list, m)
		}
	}
	return list, nil
}

func printBound(w io.Writer, r *control.LearnResult) {
	row(w, "NODE", "INTERFACE", "MAC", "BEFORE")
	for _, b := range r.Bound {
		row(w, b.Node, b.Interface, b.MAC, b.Was)
	}
	for _, mac := range r.Left {
		fmt.Fprintf(w, "no node is left for %s\n", mac)
	}
	if r.DryRun {
		fmt.Fprintln(w, "nothing is bound yet")
	}
}

// parseMAC returns a MAC as the API writes it.
func parseMAC(text string) (string, error) {
	mac, ok := inventory.ParseMAC(text)
	if guid, err := net.ParseMAC(text); !ok && err == nil && len(guid) == 8 {
		mac, ok = guid, true
	}
	if !ok {
		return "", &usageError{
			fmt.Errorf("%q is not a MAC", text),
			"write six bytes, such as 52:54:00:4d:00:01, or the eight of the GUID of an InfiniBand port",
		}
	}
	return mac.String(), nil
}
