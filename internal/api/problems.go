package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/quantity"
	"dim/internal/rollout"
)

// addSources lets the list of problems ask for those that follow from what the API shows.
func (api *API) addSources() {
	for _, s := range []problems.Source{
		api.imageProblems, api.rolloutProblems, api.lostProblems, api.dhcpProblems,
	} {
		api.Problems.Add(s)
	}
	for _, s := range []problems.Source{
		api.otherServerProblems, api.nodeProblems, api.pushProblems, api.machineProblems,
	} {
		api.Problems.AddOthers(s)
	}
}

// pushProblems lists the nodes whose resident process has ended while they run on. Their kernels cache for long what
// they have read.
func (api *API) pushProblems(context.Context) []problems.Problem {
	var list []problems.Problem
	now := time.Now()
	for _, n := range api.Follow.Cluster().Nodes {
		said, ok := api.Residents.Push.Status(n.Name)
		state := api.Liveness.State(n.Name)
		if !ok || said.Connected(now) || state.BootedSince(said.Called) {
			continue
		}
		if state.LastCall.Before(said.Called.Add(push.LostAfter)) {
			continue // the node is off
		}
		list = append(list, problems.Problem{
			About: problems.Node(n.Name), Since: said.Called,
			Text: "its resident process has ended: changes may take an hour to show there",
			Hint: "reboot it; or on the node, after each switch: " +
				"find / -xdev -type d -exec stat --cached=never {} + >/dev/null",
		})
	}
	return list
}

// unknownFor is how long a machine that asked for a boot and is not in the description is a problem. It is listed for
// longer.
const unknownFor = time.Hour

// imageProblems lists the images that nodes cannot boot.
func (api *API) imageProblems(context.Context) []problems.Problem {
	now := api.Follow.Now()
	var list []problems.Problem
	for _, im := range now.Cluster.Images {
		if !slices.ContainsFunc(now.Cluster.Nodes, func(n *cluster.Node) bool { return n.Image == im }) {
			continue
		}
		newest, ok := now.State.Images[string(im.Name)].Newest()
		if !ok {
			list = append(list, problems.Problem{
				About: problems.Image(im.Name), Text: "it has no version yet",
				Hint: "dim image capture " + string(im.Name),
			})
			continue
		}
		var kernel control.Version
		if api.addKernel(&kernel, newest, im); kernel.Problem != "" {
			list = append(list, problems.Problem{
				About: problems.Image(im.Name), Text: "its newest version cannot boot: " + kernel.Problem,
			})
		}
	}
	return list
}

func (api *API) rolloutProblems(context.Context) []problems.Problem {
	all, err := api.Follow.Now().Rollouts().Outlines()
	if err != nil {
		return []problems.Problem{{About: problems.Subject{Kind: problems.KindRollout}, Text: err.Error()}}
	}
	var list []problems.Problem
	for i := range all {
		if r := &all[i]; r.State == rollout.Paused {
			list = append(list, problems.Problem{
				About: problems.Subject{Kind: problems.KindRollout, Name: strconv.Itoa(r.ID)},
				Text:  "paused: " + withoutOutput(r.Reason), Since: r.Since,
				Hint: fmt.Sprintf("dim rollout status %d, then resume, undo or stop it", r.ID),
			})
		}
	}
	return list
}

// withoutOutput returns why a rollout is paused without what its hook or check has written. That may have secrets, and
// members of the group dim read the problems.
func withoutOutput(reason string) string {
	command, rest, _ := strings.Cut(reason, ": ")
	if status, _, found := strings.Cut(rest, ": "); found && (command == "hook" || command == "check") {
		return command + ": " + status
	}
	return reason
}

// listedEach is how many nodes with the same problem are listed one by one. More are listed as one node set.
const listedEach = 8

// lostFor is how long after the beginning of a rollout it is a problem that nodes have lost packages and accounts.
const lostFor = 24 * time.Hour

// lostProblems lists the nodes that have lost packages or accounts by the latest rollout. What was set aside and is
// restored or forgotten is no longer among it.
func (api *API) lostProblems(context.Context) []problems.Problem {
	rollouts := api.Follow.Now().Rollouts()
	all, _ := rollouts.Outlines() // rolloutProblems has the error
	if len(all) == 0 || time.Since(all[0].Started) > lostFor {
		return nil
	}
	r, _, err := rollouts.Load(all[0].ID)
	if err != nil {
		return nil
	}
	var list []problems.Problem
	for _, own := range ownChanges(api.asideBy(&r)) {
		var lost []string
		if len(own.Packages) > 0 {
			lost = append(lost, "packages: "+few(own.Packages))
		}
		if len(own.Accounts) > 0 {
			lost = append(lost, "accounts: "+few(own.Accounts))
		}
		if len(lost) == 0 {
			continue
		}
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindRollout, Name: strconv.Itoa(r.ID)}, Since: r.Started,
			Text: fmt.Sprintf("set aside on %s: %s", cutSet(own.Nodes, own.Count), strings.Join(lost, "; ")),
			Hint: "dim node saved NODE lists them; restore what is needed, or forget it with --forget",
		})
	}
	return list
}

// cutSet returns the first part of a long node set of count nodes, and how many nodes the rest has.
func cutSet(set string, count int) string {
	const most = 60
	if len(set) <= most || count == 1 {
		return set
	}
	if i := strings.LastIndexByte(set[:most], ','); i > 0 {
		cut := set[:i]
		if strings.Count(cut, "[") > strings.Count(cut, "]") {
			cut += "]"
		}
		if names, err := nodeset.Expand(cut, nodeset.Options{}); err == nil {
			return fmt.Sprintf("%s and %s more", cut, quantity.Count(count-len(names)))
		}
	}
	return quantity.Plural(count, "node")
}

// nodeProblems lists the nodes whose boot fails, does not go on, or does not begin, and those in trouble while they
// run. A problem that many have is one, with the set of the nodes as its subject and the time of the first.
func (api *API) nodeProblems(context.Context) []problems.Problem {
	now := api.Follow.Now()
	var list []problems.Problem
	byText := map[string][]string{} // names of nodes
	for _, n := range now.Cluster.Nodes {
		about := problems.Node(n.Name)
		if s := api.node(now, n); s.Problem != "" && api.Problems.Text(about) == "" {
			p := problems.Problem{About: about, Text: s.Stage + ": " + s.Problem, Since: s.Since, Hint: s.Hint}
			list = append(list, p)
			byText[p.Text] = append(byText[p.Text], about.Name)
		}
	}
	return oneForAll(list, byText)
}

// oneForAll returns list with one problem in place of all that more than listedEach nodes have with the same text.
func oneForAll(list []problems.Problem, byText map[string][]string) []problems.Problem {
	var out []problems.Problem
	at := map[string]int{} // in out
	for _, p := range list {
		nodes := byText[p.Text]
		if len(nodes) <= listedEach {
			out = append(out, p)
			continue
		}
		i, seen := at[p.Text]
		switch {
		case !seen:
			at[p.Text] = len(out)
			p.About = problems.Node(nodeset.Fold(nodes))
			out = append(out, p)
		case p.Since.Before(out[i].Since):
			out[i].Since = p.Since
		}
	}
	return out
}

// machineProblems lists the machines that ask for a boot and are not in the description.
func (api *API) machineProblems(ctx context.Context) []problems.Problem {
	machines, err := api.Machines(ctx)
	if err != nil {
		return nil
	}
	var list []problems.Problem
	for _, m := range machines {
		if time.Since(m.Last) > unknownFor {
			continue
		}
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindMachine, Name: m.MAC},
			Text:  "asks for a boot and is not answered: " + m.Asked, Since: m.First,
			Hint: "if it is a node: dim node learn NODE --mac " + m.MAC + ", or write its MAC into the description",
		})
	}
	return list
}

// dhcpProblems lists the DHCP servers that answer on the networks of this server and are not of the cluster.
func (api *API) dhcpProblems(context.Context) []problems.Problem {
	c := api.Follow.Cluster()
	var list []problems.Problem
	for _, x := range api.Unknown.Servers() {
		i := slices.IndexFunc(c.Networks, func(n *cluster.Network) bool { return n.Subnet.Contains(x.Network) })
		if time.Since(x.Last) > unknownFor || c.HasServerAt(x.Address) || i >= 0 && c.Networks[i].Proxy {
			continue
		}
		client, did := x.MAC.String(), "refuses a request of "
		if n, _, ok := c.NodeByMAC(x.MAC); ok {
			client = "node " + string(n.Name)
		}
		if x.Offered.IsValid() {
			did = "gives " + x.Offered.String() + " to "
		}
		text := did + client
		if i >= 0 {
			text += " on network " + c.Networks[i].Name
		}
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindDHCP, Name: x.Address.String()}, Text: text, Since: x.First,
			Hint: `switch it off on that network, or let it ignore the nodes; if it is to give their addresses, ` +
				`declare dhcp="proxy" of the network`,
		})
	}
	return list
}
