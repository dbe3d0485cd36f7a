package cluster

import "slices"

// This file is the vocabulary of descriptions. The parser's structural checks, the XSD and the reference page all
// come from this one table; what an element means is in the build_ files.

// kind is the lexical form of an attribute's value. The regular expressions mean the same in Go and in XML Schema, and match whole values.
type kind struct {
	name   string
	regexp string
	values []string // the only values there are; instead of regexp
	want   string   // completes "want …"
}

// attribute is one attribute of an element.
type attribute struct {
	name     string
	kind     kind
	required bool
	byDef    string // what it is when it is absent, in words
	doc      string
}

// element is one element in one place.
type element struct {
	name       string
	doc        string
	attributes []attribute
	children   []*element // in any order
	most       int        // so many of it may be in its parent
	needed     bool       // at least once in its parent
	text       bool       // it may contain text
}

// The kinds of values.
const (
	reWord       = `[A-Za-z][A-Za-z0-9_.-]{0,63}`
	reHost       = `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`
	reIPv4       = `[0-9]{1,3}(\.[0-9]{1,3}){3}`
	reExpression = `[A-Za-z0-9_.:{}()+*/% -]`
)

func listOf(re string) string { return ` *` + re + `( +` + re + `)* *` }

func enum(values ...string) kind { return kind{values: values, want: "one of"} }

func kindName() kind {
	return kind{name: "name", regexp: reWord, want: "a name: a letter, then letters, digits, '_', '.', '-', at most 64"}
}

func kindHost() kind {
	return kind{name: "host-name", regexp: reHost, want: "a host name: letters, digits, '_', '-', at most 63"}
}

func kindPattern() kind {
	return kind{name: "pattern", regexp: `/.+`, want: "an absolute path such as /usr or /var/log/**"}
}

func kindNumber() kind { return kind{name: "number", regexp: `[0-9]{1,9}`, want: "a number"} }

func kindPort() kind { return kind{name: "port", regexp: `[1-9][0-9]{0,4}`, want: "a port number"} }

func kindExpression(name, want string) kind {
	return kind{name: name, regexp: reExpression + `{1,256}`, want: want}
}

func kindHostExpression() kind {
	return kindExpression("host-expression", "a host name, with expressions in braces")
}

func kindAddressExpression() kind {
	return kindExpression("address-expression", "an IPv4 address, with expressions in braces")
}

func kindMACExpression() kind {
	return kindExpression("mac-expression", "a hardware address, with expressions in braces")
}

// vocabulary returns the root of the table.
func vocabulary() *element {
	return &element{
		name: "cluster",
		doc:  "The whole description.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "The cluster's name."},
			{name: "domain", kind: kind{name: "domain", regexp: `[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*`, want: "a DNS domain"}, doc: "The DNS domain of all machines."},
		},
		children: slices.Concat(
			[]*element{networkElement(), taxonomyElement(), serverElement(), serversElement(), imageElement()},
			nodeElements(),
			[]*element{groupElement(), inventoryElement()},
		),
	}
}

func networkElement() *element {
	return &element{
		name: "network", needed: true, most: 256,
		doc: "An IPv4 network. The one that the nodes' first cards are on is the network they boot from.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "Its name."},
			{name: "subnet", kind: kind{name: "subnet", regexp: reIPv4 + `/[0-9]{1,2}`, want: "a subnet such as 10.77.0.0/24"}, required: true, doc: "Its addresses. Networks must not overlap."},
			{name: "gateway", kind: kind{name: "address", regexp: reIPv4, want: "an IPv4 address"}, byDef: "none", doc: "The router; a server may be it."},
			{name: "dns", kind: kind{name: "addresses", regexp: listOf(reIPv4), want: "IPv4 addresses"}, byDef: "none", doc: "Name servers, best first."},
			{name: "mtu", kind: kindNumber(), byDef: "the cards' own", doc: "The largest packet, 576 to 65535."},
			{name: "admin", kind: enum("yes", "no"), byDef: "no", doc: "Hosts on this network may mount `/images/NAME@V` read-only."},
			{name: "insecure", kind: enum("yes", "no"), byDef: "no", doc: "NFS calls and reports from ports of 1024 and above are taken, too. On a host whose users are not all trusted, any of them can then act as root on what the host may mount."},
		},
	}
}

func taxonomyElement() *element {
	return &element{
		name: "taxonomy", most: 1,
		doc: "How the nodes are numbered: levels, the outermost first.",
		children: []*element{{
			name: "level", needed: true, most: maxLevels,
			doc: "One level. Its name is a variable in expressions, and with a number (`rack2`) a node set.",
			attributes: []attribute{
				{name: "name", kind: kind{name: "level", regexp: `[A-Za-z]{1,32}`, want: "a word of letters"}, required: true, doc: "Its name; not `index` or `i`."},
				{name: "from", kind: kindNumber(), byDef: "1", doc: "The first number."},
				{name: "to", kind: kindNumber(), required: true, doc: "The last number."},
			},
		}},
	}
}

func serverAttributes() []attribute {
	roles := `(head|image)`
	return []attribute{
		{name: "roles", kind: kind{name: "roles", regexp: listOf(roles), want: "\"head\", \"image\" or both"}, required: true, doc: "`head`: owns masters and the cluster's state. `image`: boots and serves nodes."},
		{name: "nfs-port", kind: kindPort(), byDef: "2049", doc: "TCP port of NFS and MOUNT."},
		{name: "http-port", kind: kindPort(), byDef: "80", doc: "TCP port of boot files and of `/healthz`."},
		{name: "tftp-port", kind: kindPort(), byDef: "69", doc: "UDP port of TFTP."},
		{name: "api-port", kind: kindPort(), byDef: "7117", doc: "TCP port for calls between servers, with mutual TLS. It is reserved: no server listens on it yet."},
		{name: "dhcp", kind: enum("on", "off"), byDef: "on", doc: "Whether an image server answers DHCP."},
	}
}

func serverCards() []*element {
	return []*element{{
		name: "interface", needed: true, most: maxCardsEach,
		doc: "A network card of the server. The first one's address is what others call the server by.",
		attributes: []attribute{
			{name: "name", kind: kindCard(), byDef: "any", doc: "The card's name."},
			{name: "network", kind: kindName(), required: true, doc: "The network it is on."},
			{name: "address", kind: kindAddressExpression(), required: true, doc: "Its address."},
			{name: "mac", kind: kindMACExpression(), byDef: "not known", doc: "Its hardware address."},
		},
	}}
}

func kindCard() kind {
	return kind{name: "card", regexp: `[A-Za-z][A-Za-z0-9_.-]{0,14}`, want: "the name of a network card, at most 15 characters"}
}

func serverElement() *element {
	return &element{
		name: "server", most: maxServers,
		doc: "One server.",
		attributes: append([]attribute{
			{name: "name", kind: kindHost(), required: true, doc: "Its host name."},
		}, serverAttributes()...),
		children: serverCards(),
	}
}

func serversElement() *element {
	return &element{
		name: "servers", most: maxServers,
		doc: "Many servers alike. The variable `i` counts them from 1.",
		attributes: append([]attribute{
			{name: "name", kind: kindHostExpression(), required: true, doc: "Their host names, such as `is{i:02}`."},
			{name: "count", kind: kindNumber(), required: true, doc: "How many."},
		}, serverAttributes()...),
		children: serverCards(),
	}
}

func nodeAttributes() []attribute {
	return []attribute{
		{name: "image", kind: kindName(), byDef: "its group's", doc: "The image they boot."},
		{name: "servers", kind: kindExpression("hosts-expression", "names of servers, with expressions in braces"), byDef: "none; required of nodes with an image", doc: "The image servers of a node, best first."},
	}
}

func nodeCards() []*element {
	return []*element{{
		name: "interface", needed: true, most: maxCardsEach,
		doc: "A network card of the node. It boots from the first one, which must have an address.",
		attributes: []attribute{
			{name: "name", kind: kindCard(), required: true, doc: "The card's name; the boot card is given it early in the boot."},
			{name: "network", kind: kindName(), required: true, doc: "The network it is on."},
			{name: "address", kind: kindAddressExpression(), byDef: "none, for other than the first", doc: "Its address."},
			{name: "mac", kind: kindMACExpression(), byDef: "from the inventory, or not known", doc: "Its hardware address."},
		},
	}}
}

func nodeElements() []*element {
	return []*element{
		{
			name: "nodes", most: 10_000,
			doc: "Many nodes alike: one for every position in the taxonomy (`each`), or a number of them (`count`).",
			attributes: append([]attribute{
				{name: "name", kind: kindHostExpression(), required: true, doc: "Their host names, such as `s{rack:02}c{chassis}b{blade:02}`."},
				{name: "each", kind: kind{name: "levels", regexp: listOf(`[A-Za-z]{1,32}`), want: "names of levels"}, byDef: "`count` is given instead", doc: "The levels of the taxonomy to run over, always the outermost slowest."},
				{name: "count", kind: kindNumber(), byDef: "`each` is given instead", doc: "How many nodes."},
				{name: "limit", kind: kindNumber(), byDef: "all", doc: "Stop after so many nodes."},
			}, nodeAttributes()...),
			children: append(nodeCards(), quotaElement("each of the nodes")),
		},
		{
			name: "node", most: maxNodes,
			doc: "One node.",
			attributes: append([]attribute{
				{name: "name", kind: kindHostExpression(), required: true, doc: "Its host name."},
				{name: "position", kind: kind{name: "position", regexp: listOf(`[A-Za-z]{1,32}[0-9]{1,9}`), want: "a position such as \"rack2 blade7\""}, byDef: "none", doc: "Its place in the taxonomy, such as `rack2 blade7`."},
			}, nodeAttributes()...),
			children: append(nodeCards(), quotaElement("the node")),
		},
	}
}

func groupElement() *element {
	return &element{
		name: "group", most: 10_000,
		doc: "A named set of nodes, `@name` in node sets.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "Its name."},
			{name: "nodes", kind: kind{name: "node-set", regexp: `.+`, want: "a node set"}, required: true, doc: "Its nodes, a node set. Groups that stand above this one may be used in it."},
			{name: "image", kind: kindName(), byDef: "the nodes' own", doc: "The image that these nodes boot instead of their own."},
		},
		children: []*element{quotaElement("each of its nodes")},
	}
}

func inventoryElement() *element {
	return &element{
		name: "inventory", most: 16,
		doc: "A CSV file with the columns `node`, `interface` and `mac`, in any order, named in its first line.",
		attributes: []attribute{
			{name: "file", kind: kindFile(), required: true, doc: "The file's name, relative to the description."},
		},
	}
}

func kindFile() kind {
	return kind{name: "file-name", regexp: `[^/].*`, want: "the name of a file beside the description"}
}
