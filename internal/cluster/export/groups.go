package export

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"dim/internal/cluster"
)

// ansible writes an inventory. Names of groups have only the characters that Ansible accepts.
func ansible(w *writer) {
	w.header("#")
	w.printf("all:\n  children:\n    dim_servers:\n      hosts:\n")
	for _, s := range w.Servers {
		w.printf("        %s: {ansible_host: %q}\n", s.Name, s.Address())
	}
	w.printf("    dim_nodes:\n      hosts:\n")
	for _, n := range w.Nodes {
		w.printf("        %s: {ansible_host: %q}\n", n.Name, n.Address())
	}
	for _, s := range w.sets() {
		w.printf("    %s:\n      hosts:\n", identifier(s.name))
		for _, name := range s.nodes {
			w.printf("        %s:\n", name)
		}
	}
}

// clusterShell writes a source of groups in YAML (clustershell groups.conf(5)): @dim:rack2.
func clusterShell(w *writer) {
	w.header("#")
	w.printf("dim:\n")
	var nodes []string
	for _, n := range w.Nodes {
		nodes = append(nodes, string(n.Name))
	}
	w.printf("  all: %q\n", fold(nodes))
	for _, s := range w.sets() {
		w.printf("  %q: %q\n", s.name, fold(s.nodes))
	}
}

// genders writes a genders file: each node has its image and its place as attributes with a value, and its groups as
// attributes without one.
func genders(w *writer) {
	w.header("#")
	groups := map[string]string{}
	for _, g := range w.Groups {
		for _, n := range g.Nodes {
			groups[string(n.Name)] += "," + g.Name
		}
	}
	for _, s := range w.Servers {
		w.printf("%s dim_server\n", s.Name)
	}
	for _, n := range w.Nodes {
		w.printf("%s image=%s", n.Name, n.Image.Name)
		for _, l := range w.Levels {
			w.printf(",%s=%d", l.Name, n.Position[l.Name])
		}
		w.printf("%s\n", groups[string(n.Name)])
	}
}

// slurm writes NodeName and PartitionName lines (slurm.conf(5)). What a node has of processors and memory is not in the
// description: a NodeName=DEFAULT line before the include says it.
func slurm(w *writer) {
	w.header("#")
	for _, n := range w.Nodes {
		w.printf("NodeName=%s NodeAddr=%s State=UNKNOWN\n", n.Name, n.Address())
	}
	for _, s := range w.sets() {
		w.printf("PartitionName=%s Nodes=%s State=UP\n", s.name, fold(s.nodes))
	}
}

// exporterPort is the port of Prometheus' node exporter.
const exporterPort = 9100

// prometheus writes targets with labels: the node exporters of all nodes, and the servers' own figures.
func prometheus(w *writer) {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	var list []group
	for _, s := range w.Servers {
		list = append(list, group{
			[]string{net.JoinHostPort(s.Address().String(), strconv.Itoa(int(s.Ports.HTTP)))},
			map[string]string{"cluster": w.Name, "dim": "server", "server": string(s.Name)},
		})
	}
	for _, n := range w.Nodes {
		labels := map[string]string{
			"cluster": w.Name, "dim": "node", "node": string(n.Name), "image": string(n.Image.Name),
			"server": string(n.Server().Name),
		}
		maps.Copy(labels, w.place(n))
		list = append(list, group{[]string{net.JoinHostPort(n.Address().String(), strconv.Itoa(exporterPort))}, labels})
	}
	out, _ := json.MarshalIndent(list, "", " ") // strings can always be encoded
	w.printf("%s\n", out)
}

// place returns a node's place in the taxonomy as labels. A level whose name other labels have is left out.
func (s *source) place(n *cluster.Node) map[string]string {
	labels := map[string]string{}
	for _, l := range s.Levels {
		if !slices.Contains([]string{"cluster", "dim", "node", "image", "server"}, l.Name) {
			labels[identifier(l.Name)] = fmt.Sprint(n.Position[l.Name])
		}
	}
	return labels
}
