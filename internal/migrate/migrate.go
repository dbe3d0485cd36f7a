// Package migrate reads the files in which other programs describe a cluster: Ansible, OpenHPC, Warewulf, xCAT, ISC
// dhcpd, hosts and ethers. It makes a description of them.
//
// A reader takes what it understands and adds a note, with the place, for everything that it leaves out. It returns an
// error only if a file cannot be read as the format at all.
//
// It must not know what a store is, and runs no program.
package migrate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dim/internal/cluster/nodeset"
	"dim/internal/migrate/describe"
)

// MaxFile is the size in bytes up to which a file is read.
const MaxFile = 16 << 20

// File is one file of the input.
type File struct {
	Name string // for messages
	Data []byte
}

// Format is what a program's files look like.
type Format struct {
	Name  string
	About string // which files it takes
	read  func(*reader, File) error
	done  func(*reader)
}

// Formats returns the formats, by name.
func Formats() []Format {
	return []Format{
		{
			"ansible", "an inventory (INI or YAML), host_vars and group_vars, /etc/hosts", (*reader).ansible,
			(*reader).ansibleDone,
		},
		{"hosts+ethers", "/etc/hosts and /etc/ethers", (*reader).hostsOrEthers, (*reader).hostsDone},
		{"isc-dhcp", "dhcpd.conf of ISC dhcpd", (*reader).dhcpd, (*reader).dhcpdDone},
		{"openhpc", "input.local or recipe.sh of OpenHPC", (*reader).openhpc, (*reader).openhpcDone},
		{"warewulf", "nodes.conf and warewulf.conf of Warewulf 4", (*reader).warewulf, (*reader).warewulfDone},
		{
			"warewulf3", "what wwsh of Warewulf 3 prints: node print, provision print, vnfs list",
			(*reader).warewulf3, (*reader).warewulf3Done,
		},
		{"xcat", "tables of xCAT (tabdump), or stanzas (lsdef -z)", (*reader).xcat, (*reader).xcatDone},
	}
}

// Wants reports whether a file that was found in a directory may be one of the format.
func (f *Format) Wants(path string) bool {
	base := filepath.Base(path)
	switch ext := filepath.Ext(base); f.Name {
	case "xcat":
		return ext == ".csv" || ext == ".stanza" || base == "hosts" || base == "ethers"
	case "ansible":
		other := []string{"roles", "playbooks", "tasks", "handlers", "templates", "files", "library", "collections"}
		for part := range strings.SplitSeq(filepath.ToSlash(filepath.Dir(path)), "/") {
			if slices.Contains(other, part) {
				return false
			}
		}
		return slices.Contains([]string{"", ".yml", ".yaml", ".json", ".ini"}, ext)
	}
	return true
}

// Options is what the files do not say.
type Options struct {
	Name      string // of the cluster
	Arch      string // of the images; "": amd64
	Server    describe.Server
	Networks  []describe.Network
	Inventory string // name of a file for hardware addresses that follow no rule; "": none
	Only      string // a set of the nodes to carry over, such as "@rack1"; "": all
}

// Describe makes a description of files in one format. The error has every file that cannot be read as the format. If
// the files can be read, but no description can be made of them, the result has the notes.
func (f *Format) Describe(files []File, o Options) (*describe.Result, error) {
	r := &reader{
		site:  &describe.Site{Name: o.Name, Arch: o.Arch, Server: o.Server, Networks: o.Networks},
		xcats: newXCATState(), warewulf3s: newWarewulf3State(), ansibles: newAnsibleState(),
		openhpcs: openhpcState{map[string]openhpcValue{}},
	}
	var problems []error
	for _, file := range files {
		if len(file.Data) > MaxFile {
			problems = append(problems, fmt.Errorf("read %s: larger than %d MiB", file.Name, MaxFile>>20))
			continue
		}
		r.file = file.Name
		if err := f.read(r, file); err != nil {
			problems = append(problems, err)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return &describe.Result{}, err
	}
	f.done(r)
	if err := r.keepOnly(o.Only); err != nil {
		return &describe.Result{Notes: r.site.Notes}, err
	}
	return describe.Describe(r.site, o.Inventory)
}

// keepOnly leaves out nodes that are not in a set.
func (r *reader) keepOnly(set string) error {
	if set == "" {
		return nil
	}
	groups := map[string][]string{}
	for _, n := range r.site.Nodes {
		groups["*"] = append(groups["*"], n.Name)
		for _, g := range n.Groups {
			groups[g] = append(groups[g], n.Name)
		}
	}
	names, err := nodeset.Expand(set, nodeset.Options{Group: func(name string) ([]string, error) {
		if groups[name] == nil {
			return nil, fmt.Errorf("the input has no group %q", name)
		}
		return groups[name], nil
	}})
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	r.site.Nodes = slices.DeleteFunc(r.site.Nodes, func(n describe.Node) bool { return !wanted[n.Name] })
	return nil
}

// reader reads the files of one format.
type reader struct {
	site *describe.Site
	file string // that is being read

	hosts     []hostLine
	ethers    []etherLine
	warewulfs warewulfState
	xcats     *xcatState

	ansibles   *ansibleState
	warewulf3s *warewulf3State
	openhpcs   openhpcState
}

func (r *reader) at(line int) describe.Place { return describe.Place{File: r.file, Line: line} }

func (r *reader) note(line int, format string, args ...any) { r.site.Note(r.at(line), format, args...) }

// leave notes that something is not carried over, and why.
func (r *reader) leave(at describe.Place, why, format string, args ...any) {
	r.site.Note(at, "%s is not carried over: %s", fmt.Sprintf(format, args...), why)
}

// parseMAC parses a hardware address in any of its spellings, such as 0:1:2:a:b:c in ethers.
func parseMAC(text string) (net.HardwareAddr, bool) {
	parts := strings.FieldsFunc(text, func(c rune) bool { return c == ':' || c == '-' })
	if len(parts) == 6 {
		for i, p := range parts {
			if len(p) == 1 {
				parts[i] = "0" + p
			}
		}
		text = strings.Join(parts, ":")
	}
	mac, err := net.ParseMAC(text)
	return mac, err == nil
}

// wholeNumber returns a number of at most nine digits; anything else is 0.
func wholeNumber(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 999_999_999 {
		return 0
	}
	return n
}

// addNetwork adds a network unless there is one with that subnet, in which case it adds what that one lacks.
func (r *reader) addNetwork(n describe.Network) {
	if len(r.site.Networks)+len(r.site.Subnets6) > describe.MaxNetworks {
		return // describe reports it
	}
	if n.Subnet.Addr().Is6() {
		r.addSubnet6(describe.Subnet6{Prefix: n.Subnet, Gateway: n.Gateway, Place: n.Place})
		return
	}
	for i := range r.site.Networks {
		if k := &r.site.Networks[i]; k.Subnet == n.Subnet {
			if !k.Gateway.IsValid() {
				k.Gateway = n.Gateway
			}
			if len(k.DNS) == 0 {
				k.DNS = n.DNS
			}
			if k.MTU == 0 {
				k.MTU = n.MTU
			}
			return
		}
	}
	if n.Name == "" {
		n.Name = fmt.Sprintf("net%d", len(r.site.Networks)+1)
	}
	r.site.Networks = append(r.site.Networks, n)
}

// addSubnet6 adds an IPv6 subnet, unless it is known.
func (r *reader) addSubnet6(n describe.Subnet6) {
	known := func(k describe.Subnet6) bool { return k.Prefix == n.Prefix }
	if n.Prefix.Bits() > 0 && !slices.ContainsFunc(r.site.Subnets6, known) {
		r.site.Subnets6 = append(r.site.Subnets6, n)
	}
}

// subnet returns the network of an address with a mask such as 255.255.255.0, or with the length of an IPv6 prefix.
func subnet(a netip.Addr, mask string) (netip.Prefix, bool) {
	if a.Is6() {
		p := netip.PrefixFrom(a.WithZone(""), wholeNumber(mask)).Masked()
		return p, p.IsValid() && p.Bits() > 0
	}
	m := net.ParseIP(mask).To4()
	if m == nil || !a.Is4() {
		return netip.Prefix{}, false
	}
	ones, bits := net.IPMask(m).Size()
	return netip.PrefixFrom(a, ones).Masked(), bits == 32
}
