// Package export writes what other programs need to know of a cluster, in the formats of their files: names and
// addresses for resolvers, groups of nodes for programs that run commands or jobs on them, targets for monitoring.
//
// A file depends on the description alone and is sorted by it: the same description always gives the same bytes.
//
// It must not know how nodes are booted, and what they run.
package export

import (
	"bytes"
	"fmt"
	"iter"
	"net/netip"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
)

// Format is a file format. Other packages have formats, too.
type Format struct {
	Name  string // of --format
	About string // what it is for, in a few words

	// Files returns a cluster in the format. serial is the serial number of zones: it must grow with each change.
	Files func(c *cluster.Cluster, serial uint32) ([]File, error)
}

// File is one file of an export.
type File struct {
	Name string // without a directory
	Data []byte
}

// Formats returns the formats of this package, by name.
func Formats() []Format {
	return []Format{
		{"ansible", "an Ansible inventory", one("hosts.yaml", ansible)},
		{"bind", "zones of a name server, forward and reverse", several(bind)},
		{"clustershell", "groups of ClusterShell, for groups.d", one("dim.yaml", clusterShell)},
		{"ethers", "hardware addresses, as in /etc/ethers", one("ethers", ethers)},
		{"genders", "attributes of nodes for genders and pdsh", one("genders", genders)},
		{"hosts", "names and addresses, as in /etc/hosts", one("hosts", hosts)},
		{"prometheus", "targets for file_sd_configs of Prometheus", one("dim.json", prometheus)},
		{"slurm", "nodes and partitions, to include in slurm.conf", one("nodes.conf", slurm)},
		{"ssh-config", "names and addresses for ssh", one("dim.conf", sshConfig)},
	}
}

// source is what is exported.
type source struct {
	*cluster.Cluster
	serial uint32
}

// one makes the only file of a format.
func one(name string, write func(*writer)) func(*cluster.Cluster, uint32) ([]File, error) {
	return several(func(s *source) ([]File, error) { return []File{s.file(name, write)}, nil })
}

// several makes the files of a format.
func several(write func(*source) ([]File, error)) func(*cluster.Cluster, uint32) ([]File, error) {
	return func(c *cluster.Cluster, serial uint32) ([]File, error) { return write(&source{c, serial}) }
}

func (s *source) file(name string, write func(*writer)) File {
	w := &writer{source: s}
	write(w)
	return File{name, w.Bytes()}
}

// writer writes one file.
type writer struct {
	*source
	bytes.Buffer
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(w, format, args...) }

// machine is a server or a node: its name on the network and its cards.
type machine struct {
	name  string
	cards []*cluster.Interface
}

// machines returns servers and then nodes.
func (s *source) machines() (list []machine) {
	for _, v := range s.Servers {
		list = append(list, machine{string(v.Name), v.Interfaces})
	}
	for _, n := range s.Nodes {
		list = append(list, machine{string(n.Name), n.Interfaces})
	}
	return list
}

// Names yields the name of every card that has an address, without the cluster's domain, and its address.
func Names(c *cluster.Cluster) iter.Seq2[string, netip.Addr] { return (&source{Cluster: c}).names }

// names calls each with the name of every card that has an address, until it returns false.
func (s *source) names(each func(name string, at netip.Addr) bool) {
	for _, m := range s.machines() {
		for name, card := range cluster.HostNames(m.name, m.cards) {
			for _, at := range []netip.Addr{card.Address, card.Address6} {
				if at.IsValid() && !each(name, at) {
					return
				}
			}
		}
	}
}

// set is a named set of nodes.
type set struct {
	name  string
	nodes []string
}

// sets returns the groups of the description, then the nodes of each image and those of each unit of the outermost
// level of the taxonomy ("rack2"). Of sets with one name, the first counts.
func (s *source) sets() (list []set) {
	seen := map[string]int{}
	add := func(name string, nodes ...*cluster.Node) {
		i, ok := seen[name]
		if !ok {
			i = len(list)
			seen[name], list = i, append(list, set{name: name})
		}
		for _, n := range nodes {
			list[i].nodes = append(list[i].nodes, string(n.Name))
		}
	}
	for _, g := range s.Groups {
		add(g.Name, g.Nodes...)
	}
	taken := len(list)
	for _, n := range s.Nodes {
		for _, name := range s.derived(n) {
			if i, ok := seen[name]; !ok || i >= taken {
				add(name, n)
			}
		}
	}
	return list
}

// derived returns the names of the sets that a node is in without a group.
func (s *source) derived(n *cluster.Node) []string {
	names := []string{string(n.Image.Name)}
	if len(s.Levels) > 1 {
		outer := s.Levels[0].Name
		names = append(names, fmt.Sprint(outer, n.Position[outer]))
	}
	return names
}

// full returns a name with the cluster's domain, if it has one.
func (s *source) full(name string) string {
	if s.Domain == "" {
		return name
	}
	return name + "." + s.Domain
}

// fold folds names as other programs read them.
func fold(names []string) string { return nodeset.FoldLast(names) }

// header says at the top of a file where it comes from.
func (w *writer) header(comment string) {
	w.printf("%s Nodes and servers of cluster %s, written by dim cluster export.\n", comment, w.Name)
}

// identifier returns name with an underscore in place of each character that is neither a letter, a digit nor one.
func identifier(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
}
