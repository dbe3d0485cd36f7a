// Package draft writes the first description of a cluster: one server that is head and image server, one image, and
// nodes whose names and addresses count up together.
//
// It is a pure function of a few facts. What it writes is the beginning of a file that a person goes on with.
package draft

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// Facts are what a first description is made from. All but Gateway, Card and MACs are needed.
type Facts struct {
	Name    string       // of the cluster
	Server  string       // host name of the server
	Network netip.Prefix // that the nodes boot from
	Address netip.Addr   // of the server, in Network
	Gateway netip.Addr   // of the nodes; zero: none
	Nodes   string       // one range of names: "n[01-16]"
	First   netip.Addr   // address of the first node; those of the others follow
	Card    string       // of the nodes; "": eth0
	Image   string       // its name
	Arch    string       // "amd64"
	Master  string       // "dir:/srv/dim/masters/compute"
	MACs    []byte       // lines "MAC" in the order of the nodes, or "NODE MAC"; nil: not known
}

// Draft is a first description: the XML file, and the inventory that it names.
type Draft struct {
	XML       []byte
	Inventory []byte // nil: none
}

// InventoryName is the name of the inventory, beside the description.
const InventoryName = "macs.csv"

// names are the names of nodes: a prefix and numbers.
type names struct {
	prefix      string
	level       string // of the taxonomy, which counts them
	first, last int64
	width       int
}

// New returns a first description. Whether what it declares is valid is for package cluster to say. The error has all
// that it cannot be made from.
func New(f Facts) (Draft, error) {
	if f.Card == "" {
		f.Card = "eth0"
	}
	n, err := parseNames(f.Nodes)
	if err != nil {
		return Draft{}, err
	}
	address, err := addresses(f, n)
	if err != nil {
		return Draft{}, err
	}
	inventory, err := inventory(f, n)
	if err != nil {
		return Draft{}, err
	}
	name := fmt.Sprintf("%s{%s}", n.prefix, n.level)
	if n.width > 1 {
		name = fmt.Sprintf("%s{%s:%02d}", n.prefix, n.level, n.width)
	}
	var b bytes.Buffer
	err = text().Execute(&b, map[string]any{
		"F": f, "Level": n.level, "From": n.first, "To": n.last, "NodeName": name, "NodeAddress": address,
		"Inventory":     inventory != nil,
		"InventoryName": InventoryName,
	})
	return Draft{b.Bytes(), inventory}, err
}

func parseNames(set string) (n names, err error) {
	m := regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_-]*)\[([0-9]{1,6})-([0-9]{1,6})\]$`).FindStringSubmatch(set)
	if m == nil {
		return n, fmt.Errorf("nodes %q: not one range of names such as n[01-16]", set)
	}
	n.prefix = m[1]
	n.first, _ = strconv.ParseInt(m[2], 10, 64) // at most six digits
	n.last, _ = strconv.ParseInt(m[3], 10, 64)
	if n.level = "node"; n.prefix == n.level { // the name of a node must not be that of a position
		n.level = "machine"
	}
	if m[2][0] == '0' {
		n.width = len(m[2])
	}
	if n.last < n.first {
		return n, fmt.Errorf("nodes %q: the range ends before it begins", set)
	}
	return n, nil
}

// addresses returns the pattern of the addresses of nodes.
func addresses(f Facts, n names) (string, error) {
	if !f.Network.Addr().Is4() || !f.First.Is4() || !f.Address.Is4() {
		return "", errors.New("the network and the addresses must be IPv4")
	}
	first := binary.BigEndian.Uint32(f.First.AsSlice())
	last := uint64(first) + uint64(n.last-n.first)
	var end [4]byte
	binary.BigEndian.PutUint32(end[:], uint32(last))
	if !f.Network.Contains(f.First) || last > 1<<32-1 || !f.Network.Contains(netip.AddrFrom4(end)) {
		return "", fmt.Errorf("%d nodes from %s on do not fit into %s", n.last-n.first+1, f.First, f.Network)
	}
	octets := f.First.As4()
	shift := int64(octets[3]) - n.first
	if last>>8 == uint64(first)>>8 {
		return fmt.Sprintf("%d.%d.%d.{%s}", octets[0], octets[1], octets[2], n.sum(shift)), nil
	}
	if last>>16 != uint64(first)>>16 {
		return "", fmt.Errorf("addresses from %s to %s: they must not differ in the first two numbers",
			f.First, netip.AddrFrom4(end))
	}
	shift += int64(octets[2]) * 256
	return fmt.Sprintf("%d.%d.{(%s)/256}.{(%[3]s)%%256}", octets[0], octets[1], n.sum(shift)), nil
}

// sum is the expression of a number and the number of the node.
func (n *names) sum(shift int64) string {
	switch {
	case shift > 0:
		return fmt.Sprintf("%d+%s", shift, n.level)
	case shift < 0:
		return fmt.Sprintf("%s-%d", n.level, -shift)
	}
	return n.level
}

// inventory returns the hardware addresses of nodes as an inventory; nil if there are none.
func inventory(f Facts, n names) ([]byte, error) {
	if f.MACs == nil {
		return nil, nil
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"node", "interface", "mac"}) // to memory
	number := n.first
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(f.MACs, []byte("\ufeff"))))
	for at := 1; lines.Scan(); at++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t,;\r", r) })
		switch len(fields) {
		case 0:
			continue
		case 1:
			if number > n.last {
				return nil, fmt.Errorf("line %d of the hardware addresses: there are only %d nodes", at,
					n.last-n.first+1)
			}
			fields = []string{fmt.Sprintf("%s%0*d", n.prefix, n.width, number), fields[0]}
			number++
		case 2:
		default:
			return nil, fmt.Errorf("line %d of the hardware addresses: neither MAC nor NODE MAC", at)
		}
		_ = w.Write([]string{fields[0], f.Card, fields[1]})
	}
	w.Flush()
	return b.Bytes(), lines.Err()
}

func text() *template.Template {
	escape := func(v any) string {
		return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;").Replace(fmt.Sprint(v))
	}
	return template.Must(template.New("").Funcs(template.FuncMap{"x": escape}).Parse(
		`<?xml version="1.0" encoding="UTF-8"?>
<!-- docs/reference/cluster.md has the vocabulary. dim cluster check reports every mistake. -->
<cluster name="{{x .F.Name}}">

  <network name="boot" subnet="{{.F.Network.Masked}}"{{if .F.Gateway.IsValid}} gateway="{{.F.Gateway}}"{{end}}/>

  <server name="{{x .F.Server}}" roles="head image">
    <interface network="boot" address="{{.F.Address}}"/>
  </server>

  <taxonomy>
    <level name="{{.Level}}" from="{{.From}}" to="{{.To}}"/>
  </taxonomy>

  <image name="{{x .F.Image}}" arch="{{x .F.Arch}}" master="{{x .F.Master}}">
    <!-- what never leaves the master -->
    <exclude path="/tmp/*"/>
    <exclude path="/var/tmp/*"/>
    <exclude path="/etc/ssh/ssh_host_*"/>
    <!-- what belongs to a node once it is there -->
    <keep path="/etc/ssh/ssh_host_*"/>
    <keep path="/etc/machine-id"/>
    <!-- what is made for each node -->
    <file path="/etc/hostname">{{"{{"}}.Node.Name{{"}}"}}
</file>
  </image>

  <nodes name="{{x .NodeName}}" each="{{.Level}}" image="{{x .F.Image}}" servers="{{x .F.Server}}">
    <interface name="{{x .F.Card}}" network="boot" address="{{.NodeAddress}}"/>
  </nodes>
{{if .Inventory}}
  <inventory file="{{.InventoryName}}"/>
{{end}}
</cluster>
`))
}
