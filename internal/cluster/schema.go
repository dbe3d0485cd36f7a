package cluster

import (
	"slices"
	"strings"
)

// This file is the vocabulary of descriptions. The parser's structural checks, the XSD and the reference page are all
// made from this one table. The builder, in the build_ files, knows what the elements mean.

// kind is the lexical form of an attribute's value. The regular expression matches the whole value, and means the same
// in Go and in XML Schema.
type kind struct {
	name   string
	regexp string
	values []string // the allowed values; instead of regexp
	want   string   // completes "must be …"
}

// expression reports whether values may contain expressions.
func (k kind) expression() bool { return strings.HasPrefix(k.regexp, reExpression) }

// attribute is one attribute of an element.
type attribute struct {
	name      string
	kind      kind
	required  bool
	byDefault string // what holds if the attribute is absent, in words
	doc       string
}

// element is one kind of element inside one kind of parent.
type element struct {
	name       string
	doc        string
	attributes []attribute
	children   []*element // in any order
	maxCount   int        // in one parent
	required   bool       // at least once in each parent
	text       bool       // it may contain text
}

// Regular expressions that several kinds use.
const (
	reWord       = `[A-Za-z][A-Za-z0-9_.-]{0,63}`
	reHost       = `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`
	reCard       = `[A-Za-z][A-Za-z0-9_.-]{0,14}`
	reIPv4       = `[0-9]{1,3}(\.[0-9]{1,3}){3}`
	reIPv6       = `[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*`
	reExpression = `[A-Za-z0-9_.:{}()+*/% -]`
)

// listOf returns the regular expression for a list, separated by spaces, of what re matches.
func listOf(re string) string { return ` *` + re + `( +` + re + `)* *` }

func enum(values ...string) kind { return kind{values: values, want: "one of"} }

func kindName() kind {
	return kind{
		name: "name", regexp: reWord,
		want: "a name that begins with a letter: letters, digits, '_', '.', '-', at most 64",
	}
}

func kindHost() kind {
	return kind{name: "host-name", regexp: reHost, want: "a host name: letters, digits, '_', '-', at most 63"}
}

func kindPattern() kind {
	return kind{name: "pattern", regexp: `/.+`, want: "an absolute path such as /usr or /var/log/**"}
}

func kindNumber() kind { return kind{name: "number", regexp: `[0-9]{1,9}`, want: "a number"} }

func kindPort() kind { return kind{name: "port", regexp: `[1-9][0-9]{0,4}`, want: "a port number"} }

func kindFile() kind {
	return kind{name: "file-name", regexp: `[^/].*`, want: "the name of a file beside the description"}
}

func kindCard() kind {
	return kind{
		name: "card", regexp: reCard, want: "the name of a network card, at most 15 characters",
	}
}

func kindExpression(name, want string) kind {
	return kind{name: name, regexp: reExpression + `{1,256}`, want: want}
}

func kindHostExpression() kind {
	return kindExpression("host-expression", "a host name, with expressions in braces")
}

func kindAddressExpression() kind {
	return kindExpression("address-expression", "an IPv4 address, with expressions in braces")
}

func kindAddress6Expression() kind {
	return kindExpression("address6-expression", "an IPv6 address, with expressions in braces")
}

// kindAddresses is for addresses of both families.
func kindAddresses() kind {
	return kind{name: "addresses", regexp: listOf("(" + reIPv4 + "|" + reIPv6 + ")"), want: "IPv4 or IPv6 addresses"}
}

func kindMTU() kind {
	return kind{name: "mtu", regexp: `[0-9]{3,5}`, want: "a number from 576 to 65535"}
}

func kindMACExpression() kind {
	return kindExpression("mac-expression", "a hardware address, with expressions in braces")
}

// vocabulary returns the root element of the vocabulary.
func vocabulary() *element {
	return &element{
		name: "cluster",
		doc:  "The whole description.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "The cluster's name."},
			{
				name: "domain",
				kind: kind{name: "domain", regexp: `[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*`, want: "a DNS domain"},
				doc:  "The DNS domain of all machines.",
			},
		},
		children: slices.Concat(
			[]*element{networkElement(), taxonomyElement(), serverElement(), serversElement(), imageElement()},
			[]*element{nodesElement(), nodeElement(), groupElement(), inventoryElement()},
			[]*element{quotaElement("each node that has none itself, through a group or through its image,")},
		),
	}
}

func networkElement() *element {
	return &element{
		name: "network", required: true, maxCount: 256,
		doc: "An IPv4 network, which may have IPv6 addresses, too. Nodes boot from the network of their first card, " +
			"by IPv4.",
		attributes: append(networkAddresses(), []attribute{
			{
				name: "mtu", kind: kindMTU(), byDefault: "the card's own",
				doc: "The largest packet in bytes, 576 to 65535.",
			},
			{
				name: "dhcp", kind: enum("serve", "proxy"), byDefault: "serve",
				doc: "`serve`: image servers give nodes their addresses. `proxy`: another DHCP server of the site " +
					"gives each node its declared address, and image servers tell firmware only what to boot.",
			},
			{
				name: "admin", kind: enum("yes", "no"), byDefault: "no",
				doc: "Whether hosts on this network may mount `/images/NAME@V` read-only and read the server's " +
					"metrics. Nodes may not, whatever network they are on.",
			},
			{
				name: "insecure", kind: enum("yes", "no"), byDefault: "no",
				doc: "Whether NFS calls and reports from source ports of 1024 and above are accepted, too. Any user " +
					"of a host can send from such ports, and can then act as root on what the host may mount.",
			},
		}...),
	}
}

func networkAddresses() []attribute {
	return []attribute{
		{name: "name", kind: kindName(), required: true, doc: "Its name."},
		{
			name: "subnet", required: true,
			kind: kind{name: "subnet", regexp: reIPv4 + `/[0-9]{1,2}`, want: "a subnet such as 10.77.0.0/24"},
			doc:  "Its addresses. Networks must not overlap.",
		},
		{
			name: "gateway", byDefault: "none",
			kind: kind{name: "address", regexp: reIPv4, want: "an IPv4 address"},
			doc: "The router, which may be a server. The nodes that boot from the network have their default " +
				"route by it.",
		},
		{
			name: "subnet6", byDefault: "none",
			kind: kind{name: "subnet6", regexp: reIPv6 + `/[0-9]{1,3}`, want: "a subnet such as 2001:db8:0:77::/64"},
			doc:  "Its IPv6 addresses. Networks must not overlap.",
		},
		{
			name: "gateway6", byDefault: "none",
			kind: kind{name: "address6", regexp: reIPv6, want: "an IPv6 address"},
			doc: "The router for IPv6. The nodes that boot from the network and have an IPv6 address there have " +
				"their IPv6 default route by it.",
		},
		{
			name: "dns", byDefault: "none", kind: kindAddresses(),
			doc: "Name servers of the nodes that boot from the network, in order of preference.",
		},
	}
}

func taxonomyElement() *element {
	return &element{
		name: "taxonomy", maxCount: 1,
		doc: "How the nodes are numbered: a list of levels, the outermost first.",
		children: []*element{{
			name: "level", required: true, maxCount: maxLevels,
			doc: "One level. Its name is a variable in expressions. With a number (`rack2`) it is a node set.",
			attributes: []attribute{
				{
					name: "name", required: true,
					kind: kind{name: "level", regexp: `[A-Za-z]{1,32}`, want: "a word of letters"},
					doc:  "Its name; not `index` or `i`.",
				},
				{name: "from", kind: kindNumber(), byDefault: "1", doc: "The first number."},
				{name: "to", kind: kindNumber(), required: true, doc: "The last number."},
			},
		}},
	}
}

func groupElement() *element {
	return &element{
		name: "group", maxCount: 10_000,
		doc: "A named set of nodes, `@name` in node sets.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "Its name."},
			{
				name: "nodes", required: true,
				kind: kind{name: "node-set", regexp: `.+`, want: "a node set"},
				doc:  "Its nodes, a node set. It may use groups that stand above this one.",
			},
			{
				name: "image", kind: kindName(), byDefault: "the nodes' own",
				doc: "The image that these nodes boot instead of their own.",
			},
		},
		children: []*element{quotaElement("each of its nodes")},
	}
}

func inventoryElement() *element {
	return &element{
		name: "inventory", maxCount: 16,
		doc: "A file of hardware addresses: a table whose first line names the columns `node`, `interface` and " +
			"`mac`, one without such a line, `/etc/ethers`, or a `mac` table of xCAT. See the guide of new machines.",
		attributes: []attribute{
			{name: "file", kind: kindFile(), required: true, doc: "The file's name, relative to the description."},
		},
	}
}
