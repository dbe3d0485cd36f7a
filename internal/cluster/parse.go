package cluster

import (
	"bytes"
	"net/netip"
	"path"
	"slices"
	"strings"

	"dim/internal/cluster/learned"
	"dim/internal/image/pathmatch"
)

// Parse reads a description, checks it and expands it. If anything is wrong with the description, the error is a
// *Problems that lists all of it.
//
// Parse is safe on hostile input: sizes are bounded, no external entity is read, and the only files that are opened are
// those that the description names.
func Parse(src Source) (*Cluster, error) { return parseLimited(src, defaultLimits()) }

func parseLimited(src Source, budget limits) (*Cluster, error) {
	b := &builder{
		budget:    budget,
		report:    &report{},
		open:      src.Open,
		cluster:   &Cluster{},
		hosts:     map[string]claim{},
		addresses: map[netip.Addr]claim{},
		macs:      map[string]claim{},
		origins:   map[*Node]*item{},
	}
	xml := bytes.TrimPrefix(src.XML, []byte("\ufeff"))
	f := b.addSource(src.Name, xml)
	if len(xml) > maxSourceBytes {
		b.add(location{f, 0}, "the description is larger than %d bytes", maxSourceBytes)
		return nil, b.err()
	}
	if root := readDocument(b.report, f); root != nil {
		b.build(root, src.Learned)
	}
	if err := b.err(); err != nil {
		return nil, err
	}
	b.cluster.warnings = b.warnings.list(Warning)
	return b.cluster, nil
}

// builder makes a Cluster from the document. Each step reports what is wrong and leaves out what cannot be used, so
// that later steps can still find other mistakes.
type builder struct {
	*report
	open    func(name string) ([]byte, error)
	cluster *Cluster
	opened  map[string]*file

	warnings report

	hosts     map[string]claim // by lower-case name: host names are case-insensitive
	addresses map[netip.Addr]claim
	macs      map[string]claim
	origins   map[*Node]*item // the element that made the node
	listeners map[netip.Addr][]listener
	etcd      []func() // note what heads listen on for other heads

	budget            limits // its cards and members are counted down
	nodesIncomplete   bool   // some nodes could not be made, so that an unknown node name need not be a mistake
	serversIncomplete bool   // the same for servers and their roles
	buf               []byte
}

// claim records which node or server uses a name or an address, and where the description says so.
type claim struct {
	node   *Node
	server *Server
	at     location
}

// String returns "node n01" or "server head".
func (c claim) String() string {
	if c.node != nil {
		return "node " + string(c.node.Name)
	}
	return "server " + string(c.server.Name)
}

// addSource keeps a file of the description. The directory of its name is left out.
func (b *builder) addSource(name string, data []byte) *file {
	b.cluster.sources = append(b.cluster.sources, SourceFile{Name: path.Base(name), Data: data})
	return &file{name: name, data: data}
}

// build goes through the document by kinds of elements, not from top to bottom, so that an element may refer to a
// later one.
func (b *builder) build(root *item, facts []byte) {
	name, _ := root.get("name")
	domain, _ := root.get("domain")
	b.cluster.Name, b.cluster.Domain = name.text, domain.text
	b.cluster.Quota = b.quota(root, "the cluster")
	for _, it := range root.all("network") {
		b.network(it)
	}
	for _, it := range root.all("taxonomy") {
		b.taxonomy(it)
	}
	for _, it := range root.all("server", "servers") {
		b.servers(it)
	}
	b.checkServers(root)
	b.cluster.index = newIndex(b.cluster)
	images := root.all("image")
	for _, it := range images {
		b.image(it)
	}
	for _, it := range root.all("nodes", "node") {
		b.nodes(it)
	}
	b.cluster.index = newIndex(b.cluster)
	for _, it := range root.all("group") {
		b.group(it)
	}
	for _, it := range root.all("inventory") {
		b.inventory(it)
	}
	b.learn(facts)
	b.checkNodes()
	b.checkTemplates()
}

// file reads a file that the description names, or reports why it cannot. A file is read, and reported, once.
func (b *builder) file(v value) (*file, bool) {
	if f, ok := b.opened[v.text]; ok {
		return f, f != nil
	}
	if b.opened == nil {
		b.opened = map[string]*file{}
	}
	b.opened[v.text] = nil
	if v.text == learned.File {
		b.add(v.at, "file %q: the list of learned MACs has this name", v.text).withHint("give the file another name")
		return nil, false
	}
	if !isLocalPath(v.text) {
		b.add(v.at, "file %q: must be a path below the description's directory", shorten(v.text))
		return nil, false
	}
	if b.open == nil {
		b.add(v.at, "file %q is not part of the description", v.text)
		return nil, false
	}
	data, err := b.open(v.text)
	if err == nil && len(data) > maxSourceBytes {
		b.add(v.at, "file %q is larger than %d bytes", v.text, maxSourceBytes)
		return nil, false
	}
	if err != nil {
		b.add(v.at, "%v", err)
		return nil, false
	}
	f := b.addSource(v.text, data)
	b.cluster.sources[len(b.cluster.sources)-1].Name = v.text
	b.opened[v.text] = f
	return f, true
}

// isLocalPath reports whether name is a clean relative path that does not leave the description's directory.
func isLocalPath(name string) bool {
	return name == path.Clean(name) && name != "." && name != ".." && !path.IsAbs(name) && len(name) < 256 &&
		!bytes.HasPrefix([]byte(name), []byte("../")) && !bytes.ContainsAny([]byte(name), "\x00\\")
}

// compile parses an attribute that may contain expressions, or reports what is wrong with it.
func (b *builder) compile(v value, variables []string) (pattern, bool) {
	p, err := parsePattern(v.text, variables)
	if err != nil {
		b.add(v.at.plus(err.offset), "%s", err.reason).withHint("%s", err.hint)
		return nil, false
	}
	return p, true
}

// expand evaluates the pattern for the values, or reports why it cannot.
func (b *builder) expand(p pattern, v value, values []int64) (string, bool) {
	var err *expressionError
	if b.buf, err = p.expand(b.buf[:0], values); err != nil {
		b.add(v.at.plus(err.offset), "the expression %s", err.reason)
		return "", false
	}
	return string(b.buf), true
}

// claimHost records that c uses a host name. It reports a name that is malformed or already used.
func (b *builder) claimHost(name string, c claim) bool {
	if !validHost(name) {
		finding := b.add(c.at, "%q is not a host name", shorten(name))
		if host, domain, ok := strings.Cut(name, "."); ok && validHost(host) {
			finding.withHint("without the domain: %s, and <cluster domain=%q>", host, domain)
		} else {
			finding.withHint("letters, digits, '_' and '-', at most 63; the first is a letter or a digit")
		}
		return false
	}
	key := string(lowerBytes(name))
	if other, taken := b.hosts[key]; taken {
		b.add(c.at, "%v: the name is already used by %v at %v", c, other, other.at)
		return false
	}
	b.hosts[key] = c
	return true
}

func lowerBytes(s string) []byte {
	l := []byte(s)
	for i := range l {
		l[i] = lower(l[i])
	}
	return l
}

func validHost(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[0] == '_' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// imageOf returns the image that the attribute image of an item names. It returns nil if the item has no such
// attribute, or if the image is not defined, which it reports.
func (b *builder) imageOf(it *item) *Image {
	v, ok := it.get("image")
	if !ok {
		return nil
	}
	for _, im := range b.cluster.Images {
		if string(im.Name) == v.text {
			return im
		}
	}
	b.add(v.at, "image %q is not defined", v.text).suggest(v.text, func(yield func(string) bool) {
		for _, im := range b.cluster.Images {
			if !yield(string(im.Name)) {
				return
			}
		}
	})
	return nil
}

// networkOf returns the network that the attribute network of an item names, or nil, like imageOf.
func (b *builder) networkOf(it *item) *Network {
	v, ok := it.get("network")
	if !ok {
		return nil
	}
	for _, n := range b.cluster.Networks {
		if n.Name == v.text {
			return n
		}
	}
	b.add(v.at, "network %q is not defined", v.text).suggest(v.text, func(yield func(string) bool) {
		for _, n := range b.cluster.Networks {
			if !yield(n.Name) {
				return
			}
		}
	})
	return nil
}

// patterns parses the path rules of one kind: exclude, shared or keep.
func (b *builder) patterns(items []*item) pathmatch.List {
	var rules pathmatch.List
	for _, it := range items {
		v, ok := it.get("path")
		if !ok {
			continue
		}
		p, err := pathmatch.Parse(v.text)
		if err != nil {
			b.add(v.at, "%v", err)
			continue
		}
		if slices.ContainsFunc(rules, func(r pathmatch.Pattern) bool { return r.String() == v.text }) {
			b.add(v.at, "<%s path=%q> is given twice", it.element.name, v.text)
			continue
		}
		rules = append(rules, p)
	}
	return rules
}
