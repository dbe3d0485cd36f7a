package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/dhcp"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/layers"
	"dim/internal/layers/pkgread"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/quantity"
	"dim/internal/replica"
	"dim/internal/serving"
	"dim/internal/versionfs"
)

// Nodes implements control.Backend.
func (api *API) Nodes(_ context.Context, set string) ([]control.Node, error) {
	now := api.Follow.Now()
	nodes := now.Cluster.Nodes
	if set != "" {
		var err error
		if nodes, err = now.Select(set); err != nil {
			return nil, err
		}
	}
	list := make([]control.Node, 0, len(nodes))
	for _, n := range nodes {
		list = append(list, api.node(now, n))
	}
	return list, nil
}

// Node implements control.Backend.
func (api *API) Node(_ context.Context, name string) (control.Node, error) {
	now := api.Follow.Now()
	n, ok := now.Cluster.Node(cluster.NodeName(name))
	if !ok {
		return control.Node{}, noSuchNode(name)
	}
	out := api.node(now, n)
	out.Details = api.details(n)
	served, ok := api.Serving.Node(n.Name)
	if !ok {
		return out, nil
	}
	return out, api.addState(out.Details, name, &served)
}

func noSuchNode(name string) error {
	return control.Errorf(control.NotFound, "no such node: %s", name).
		WithHint("dim node ls lists the nodes")
}

// addPackages adds the packages that a node has changed.
func (api *API) addPackages(out *control.NodeDetails, node string, r *replica.Replica) error {
	out.Packages = []control.PackageChange{}
	found, err := api.packagesOf(node, r)
	out.PackagesUnread = found.Unread
	for _, p := range found.Own {
		out.Packages = append(out.Packages,
			control.PackageChange{Name: p.Name, Arch: p.Arch, From: p.Old, To: p.Node})
	}
	return err
}

// packagesOf returns the packages that a node has made different from its version.
func (api *API) packagesOf(node string, r *replica.Replica) (none layers.PackageConflicts, err error) {
	v := r.Version()
	state, err := layers.PackageState(api.Set, node, v.Image)
	if state == "" || err != nil {
		return none, err
	}
	version := pkgread.Version{Digest: v.Digest, Files: versionfs.New(api.Store, v.Root)}
	return layers.Of(r).PackageConflicts(layers.PackageComparison{
		Reader: api.Packages, Pair: pkgread.Pair{Old: version, Next: version},
	})
}

// addState adds what a node has of its own.
func (api *API) addState(out *control.NodeDetails, name string, served *serving.Node) error {
	saved, err := layers.Of(served.Replica).Saved()
	if err != nil {
		return err
	}
	out.Saved = len(saved)
	if err := api.addPackages(out, name, served.Replica); err != nil {
		return err
	}
	if out.Usage, err = usage(served); err != nil {
		return err
	}
	quota, err := served.Replica.QuotaUse()
	if err != nil {
		return err
	}
	out.Quota = control.QuotaUsage(quota)
	snapshots, err := layers.Snapshots(api.Set, name)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		sum := &out.Snapshots
		sum.Count, sum.Bytes, sum.Copied = sum.Count+1, sum.Bytes+s.Bytes, sum.Copied+s.Copied
	}
	return nil
}

// usage returns what a node has cost.
func usage(served *serving.Node) (*control.NodeUsage, error) {
	use, err := layers.Of(served.Replica).Usage()
	if err != nil {
		return nil, err
	}
	m := served.Meter
	return &control.NodeUsage{
		Files: use.Files, Layer: use.Bytes,
		Calls: m.Calls.Load(), Errors: m.Errors.Load(), Received: m.BytesIn.Load(), Sent: m.BytesOut.Load(),
	}, nil
}

// node returns what the API shows of every node.
func (api *API) node(now *follow.Declared, n *cluster.Node) control.Node {
	card := n.Boot()
	wanted, next := now.Follows(n)
	out := control.Node{
		Name: string(n.Name), Index: n.Index, Image: string(n.Image.Name), Wanted: wanted.String(),
		Address: card.Address.String(), MAC: card.MAC.String(), Problem: api.Problems.Text(problems.Node(n.Name)),
	}
	if !next.IsZero() {
		out.Next = next.String()
	}
	if why, hint := now.Stranded(n); why != "" {
		out.Problem, out.Hint = why, hint
	}
	if n.Server().Name != api.Server {
		api.addReport(&out, n)
		api.addForeign(&out, n)
		return out
	}
	if v, ok := api.Serving.Shows(n.Name); ok {
		out.Version, out.Digest = v.Number, v.Digest.String()
	}
	s := api.Liveness.State(n.Name)
	out.Stage, out.Since, out.Text, out.LastCall = string(s.Stage), s.Since, s.Detail, s.LastCall
	switch {
	case s.Error != "":
		out.Problem = s.Error
	case s.Trouble.Text != "":
		out.Problem, out.Hint = s.Trouble.Text, s.Trouble.Hint
	case out.Problem == "":
		out.Problem, out.Hint = api.minorProblem(n, &s)
	}
	return out
}

// addReport adds what the server that serves n reported last.
func (api *API) addReport(out *control.Node, n *cluster.Node) {
	said, at, ok := api.Fleet.LastNode(n)
	if !ok {
		out.Stage = stageUnknown
		return
	}
	out.Version, out.Stage, out.Since, out.Text = said.Shows.Number, said.Stage, said.Since, said.Text
	if !fleet.Fresh(at) {
		out.Text = fmt.Sprintf("as of %s; its server, %s, is silent since", at.Local().Format(time.TimeOnly),
			n.Server().Name)
	}
	if !said.Digest.IsZero() {
		out.Digest = said.Digest.String()
	}
	out.LastCall = said.LastCall
	if out.Problem == "" {
		out.Problem, out.Hint = said.Problem, said.Hint
	}
}

// addForeign adds that a node of another server asks this one, and that it seems to have a reason.
func (api *API) addForeign(out *control.Node, n *cluster.Node) {
	if s := api.Liveness.State(n.Name); out.Problem == "" && asksInVain(&s, time.Now()) {
		out.Hint = "start that server; dim node show has how often the node asked here"
		out.Problem = fmt.Sprintf("it asks this server for its boot, so %s, which serves it, seems not to answer; "+
			"this one does not stand in for it, because it does not have the node's layer", n.Server().Name)
	}
}

// stageUnknown is the stage of a node whose server has not reported it.
const stageUnknown = "unknown"

// minorProblem returns what is wrong with a node whose boot and root are in order, and what to do; "" if nothing is.
func (api *API) minorProblem(n *cluster.Node, s *liveness.State) (text, hint string) {
	if s.Running {
		if text = api.usedUp(n); text != "" {
			return text, "remove files on the node, or raise its quota in the description"
		}
	}
	switch {
	case s.Ahead != 0:
		return clockText(s.Ahead), clockHint
	case refusedNow(s, time.Now()):
		return s.Refusal.Text, refusalHint
	}
	return "", ""
}

// vainly is how many requests in a row a node makes before its own server can be said not to answer. A node that takes
// an offer shows it with the next message.
const vainly = 3

// asksInVain reports whether a node that another server serves asks here again and again, and takes no offer. The
// requests are counted: not every client tells for how long it has been trying.
func asksInVain(s *liveness.State, now time.Time) bool {
	r := &s.Refusal
	return r.NotMine && r.Count >= vainly && now.Sub(r.Last) < refusalAge
}

const (
	// refusalAge is how long a message that was not answered is a problem: machines that want to boot repeat theirs.
	refusalAge  = 10 * time.Minute
	refusalHint = "dim node show has the last message; correct the description, or what sends it"
)

// usedUp says that a node's quota is used up, but for a part too small for most writes; "" if it is not.
func (api *API) usedUp(n *cluster.Node) string {
	served, ok := api.Serving.Node(n.Name)
	if !ok || served.Replica == nil {
		return ""
	}
	if rules := served.Replica.Rules(); rules.QuotaBytes == 0 && rules.QuotaFiles == 0 {
		return ""
	}
	use, err := served.Replica.QuotaUse()
	const part = 100 // the last hundredth counts as used up
	switch {
	case err != nil:
		return ""
	case use.BytesMax > 0 && use.Bytes >= use.BytesMax-use.BytesMax/part:
		return fmt.Sprintf("its quota is used up: %s of %s", quantity.Size(use.Bytes), quantity.Size(use.BytesMax))
	case use.FilesMax > 0 && use.Files >= use.FilesMax-use.FilesMax/part:
		return fmt.Sprintf("its quota is used up: %s of %s files",
			quantity.Count(use.Files), quantity.Count(use.FilesMax))
	}
	return ""
}

const clockHint = "make and find -mmin go by it, while files have the server's time: run chrony or " +
	"systemd-timesyncd in the image. If all nodes are off, it is the server's clock"

// clockText says by how much a node's clock is ahead.
func clockText(ahead time.Duration) string {
	if ahead < 0 {
		return "its clock is " + (-ahead).String() + " behind this server's"
	}
	return "its clock is " + ahead.String() + " ahead of this server's"
}

// refusedNow reports whether the last thing that a node did was to ask in vain.
func refusedNow(s *liveness.State, now time.Time) bool {
	r := &s.Refusal
	if r.Text == "" || r.Expected || now.Sub(r.Last) >= refusalAge {
		return false
	}
	return len(s.Events) == 0 || s.Events[len(s.Events)-1].Last.Before(r.Last)
}

// interfaceOf returns what the API shows of a card.
func interfaceOf(card *cluster.Interface) control.Interface {
	out := control.Interface{
		Name: card.Name, MAC: card.MAC.String(), MTU: card.MTU, VLAN: card.VLAN, Bond: card.Bond,
	}
	if card.Network != nil {
		out.Network = card.Network.Name
	}
	if card.Address.IsValid() {
		out.Address = card.Address.String()
	}
	if card.Address6.IsValid() {
		out.Address6 = card.Address6.String()
	}
	for _, below := range card.On {
		out.Below = append(out.Below, below.Name)
	}
	return out
}

// details returns what the API shows of one node besides.
func (api *API) details(n *cluster.Node) *control.NodeDetails {
	out := &control.NodeDetails{
		Servers: []string{}, Groups: []string{}, Position: n.Position, Files: []string{}, Append: n.Image.Kernel.Append,
		Durable: string(n.Image.Durability), Stages: []control.Stage{}, Push: api.pushed(n),
		QuotaOf: n.Quota(n.Image).Of,
	}
	for _, s := range n.Servers {
		out.Servers = append(out.Servers, string(s.Name))
	}
	for _, g := range n.Groups {
		out.Groups = append(out.Groups, g.Name)
	}
	for _, card := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, interfaceOf(card))
	}
	if served, ok := api.Serving.Node(n.Name); ok {
		for _, p := range served.NodeFiles {
			out.Files = append(out.Files, "/"+p)
		}
		slices.Sort(out.Files)
	}
	s := api.Liveness.State(n.Name)
	for _, e := range s.Events {
		out.Stages = append(out.Stages, stage(e))
	}
	if r := s.Refusal; r.Text != "" {
		out.Refused = &control.Refusal{Text: r.Text, Last: r.Last, Count: r.Count}
	}
	return out
}

func stage(e boot.Event) control.Stage {
	text := e.Detail
	if e.Error != "" {
		text = e.Error
	}
	return control.Stage{Name: string(e.Stage), Time: e.Time, Text: text}
}

// Machines implements control.Backend.
func (api *API) Machines(context.Context) ([]control.Machine, error) {
	list := []control.Machine{}
	c := api.Follow.Cluster()
	for _, m := range api.Unknown.List() {
		if _, _, known := c.NodeByMAC(m.MAC); known { // since it asked
			continue
		}
		said := []string{m.VendorClass, m.UserClass, m.HostName, m.Reason}
		asked := strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), ", ")
		list = append(list, control.Machine{
			MAC: m.MAC.String(), First: m.First, Last: m.Last, Count: m.Count, Asked: asked,
			Archs: archs(m.Archs), UUID: m.UUID, Port: m.Port, Network: networkOf(c, &m), Server: string(api.Server),
		})
	}
	return list, nil
}

func archs(list []dhcp.Arch) []int {
	out := make([]int, len(list))
	for i, a := range list {
		out[i] = int(a)
	}
	return out
}

// networkOf returns the name of the network on which a machine asks; "" if none, or more than one, can be it.
func networkOf(c *cluster.Cluster, m *dhcp.Machine) (name string) {
	for _, n := range c.Networks {
		on := func(p netip.Prefix) bool { return n.Subnet.Contains(p.Addr()) }
		here := n.Subnet.Contains(m.Network)
		if !m.Network.IsValid() {
			here = slices.ContainsFunc(m.Interface.Addresses, on)
		}
		switch {
		case here && name != "":
			return ""
		case here:
			name = n.Name
		}
	}
	return name
}

// Stages returns how many declared nodes are in each stage.
func (api *API) Stages() map[string]int {
	stages := map[string]int{}
	for _, n := range api.Follow.Cluster().Nodes {
		stages[api.stage(n)]++
	}
	return stages
}

// stage returns the stage of a node of any server.
func (api *API) stage(n *cluster.Node) string {
	if n.Servers[0].Name == api.Server {
		return string(api.Liveness.State(n.Name).Stage)
	}
	if said, _, ok := api.Fleet.LastNode(n); ok {
		return said.Stage
	}
	return stageUnknown
}
