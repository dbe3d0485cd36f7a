package cluster

import "slices"

func serverAttributes() []attribute {
	return []attribute{
		{
			name: "roles", required: true,
			kind: kind{name: "roles", regexp: listOf(`(head|image)`), want: `"head", "image" or both`},
			doc:  "`head`: owns masters and the cluster's state. `image`: boots and serves nodes.",
		},
		{name: "nfs-port", kind: kindPort(), byDefault: "2049", doc: "TCP port of NFS and MOUNT."},
		{
			name: "http-port", kind: kindPort(), byDefault: "80",
			doc: "TCP port of boot files, reports of nodes, `/healthz` and `/metrics`.",
		},
		{name: "tftp-port", kind: kindPort(), byDefault: "69", doc: "UDP port of TFTP."},
		{
			name: "api-port", kind: kindPort(), byDefault: "7117",
			doc: "TCP port of calls between servers.",
		},
		{
			name: "etcd-port", kind: kindPort(), byDefault: "7118",
			doc: "TCP port on which a head takes part in the shared state, if there are several heads.",
		},
		{
			name: "pull-rate", kind: kindSize(), byDefault: "no bound",
			doc: "How many bytes of versions the server receives from other servers in a second, at most; K, M, G " +
				"and T are powers of 1024.",
		},
		{name: "dhcp", kind: enum("on", "off"), byDefault: "on", doc: "Whether an image server answers DHCP."},
		{
			name: "dns", kind: enum("on", "off"), byDefault: "off",
			doc: "Whether the server answers DNS for the names of the cluster, on port 53 of its addresses. The " +
				"cluster needs a `domain`.",
		},
	}
}

func serverCards() []*element {
	return []*element{{
		name: "interface", required: true, maxCount: maxCardsEach,
		doc: "A network card of the server. Other machines reach the server by the address of its first card.",
		attributes: []attribute{
			{name: "name", kind: kindCard(), byDefault: "any", doc: "The card's name."},
			{name: "network", kind: kindName(), required: true, doc: "The network that it is on."},
			{name: "address", kind: kindAddressExpression(), required: true, doc: "Its address."},
			{name: "mac", kind: kindMACExpression(), byDefault: "not known", doc: "Its hardware address."},
		},
	}}
}

func serverElement() *element {
	return &element{
		name: "server", maxCount: maxServers,
		doc: "One server.",
		attributes: append([]attribute{
			{name: "name", kind: kindHost(), required: true, doc: "Its host name."},
		}, serverAttributes()...),
		children: serverCards(),
	}
}

func serversElement() *element {
	return &element{
		name: "servers", maxCount: maxServers,
		doc: "Several servers that are alike. The variable `i` counts them from 1.",
		attributes: append([]attribute{
			{
				name: "name", kind: kindHostExpression(), required: true,
				doc: "Their host names, such as `is{i:02}`.",
			},
			{name: "count", kind: kindNumber(), required: true, doc: "Their number."},
		}, serverAttributes()...),
		children: serverCards(),
	}
}

func nodeAttributes() []attribute {
	return []attribute{
		{name: "image", kind: kindName(), byDefault: "that of a group", doc: "The image to boot."},
		{
			name: "servers", byDefault: "none; required of nodes with an image",
			kind: kindExpression("hosts-expression", "names of servers, with expressions in braces"),
			doc: "The image servers of a node. The first one answers its DHCP, boots it and serves its root. " +
				"The others do none of it.",
		},
		{name: "dns", kind: kindAddresses(), byDefault: "those of the boot network", doc: "Name servers of a node."},
	}
}

func nodeCards() []*element {
	return []*element{{
		name: "interface", required: true, maxCount: maxCardsEach,
		doc: "A network card of the node, a VLAN on one, or a bond of several. The node boots from the first one, " +
			"which must be a card with an address. See [network cards](../guide/cards.md).",
		attributes: slices.Concat([]attribute{
			{
				name: "name", kind: kindCard(), required: true,
				doc: "Its name. The boot card gets it early in the boot.",
			},
			{
				name: "network", kind: kindName(), byDefault: "none; required if it has an address",
				doc: "The network that it is on.",
			},
			{
				name: "mac", kind: kindMACExpression(), byDefault: "from the inventory, or not known",
				doc: "Its hardware address: six bytes, of InfiniBand 20 bytes or the eight of the port's GUID.",
			},
		}, cardAddresses(), cardForms()),
	}}
}

func cardAddresses() []attribute {
	return []attribute{
		{
			name: "address", kind: kindAddressExpression(), byDefault: "none; required of the first card",
			doc: "Its address.",
		},
		{
			name: "address6", kind: kindAddress6Expression(), byDefault: "none",
			doc: "An IPv6 address in addition.",
		},
		{
			name: "gateway", byDefault: "of the boot card: its network's; of others: none",
			kind: kindExpression("gateway-expression", "an IPv4 address, with expressions in braces, or none"),
			doc: "The router for what the node sends from this address. The default route is by the first " +
				"interface that has one. `none`: the boot card has none.",
		},
		{
			name: "gateway6", byDefault: "of the boot card: its network's; of others: none",
			kind: kindExpression("gateway6-expression", "an IPv6 address, with expressions in braces, or none"),
			doc:  "The same for IPv6.",
		},
		{
			name: "mtu", kind: kindMTU(), byDefault: "its network's",
			doc: "The largest packet in bytes, 576 to 65535.",
		},
	}
}

// cardForms are the attributes of interfaces that are no Ethernet cards.
func cardForms() []attribute {
	return []attribute{
		{
			name: "type", kind: enum("ethernet", "infiniband"), byDefault: "what the hardware address is of",
			doc: "What kind of card it is. `infiniband`: IP over InfiniBand.",
		},
		{
			name: "vlan", kind: kind{name: "vlan", regexp: `[1-9][0-9]{0,3}`, want: "a number from 1 to 4094"},
			byDefault: "it is no VLAN", doc: "The number of the VLAN, 1 to 4094.",
		},
		{
			name: "bond", byDefault: "it is no bond",
			kind: enum("active-backup", "802.3ad", "balance-rr", "balance-xor", "broadcast", "balance-tlb",
				"balance-alb"),
			doc: "The mode of the bond.",
		},
		{
			name: "on", kind: kind{name: "cards", regexp: listOf(reCard), want: "names of interfaces"},
			byDefault: "none; required of VLANs and bonds",
			doc:       "Of a VLAN the interface that carries it, of a bond its cards.",
		},
	}
}

func nodesElement() *element {
	return &element{
		name: "nodes", maxCount: 10_000,
		doc: "Several nodes that are alike: one for each position in the taxonomy (`each`), or a number of them " +
			"(`count`).",
		attributes: append([]attribute{
			{
				name: "name", kind: kindHostExpression(), required: true,
				doc: "Their host names, such as `s{rack:02}c{chassis}b{blade:02}`.",
			},
			{
				name: "each", byDefault: "`count` is given instead",
				kind: kind{name: "levels", regexp: listOf(`[A-Za-z]{1,32}`), want: "names of levels"},
				doc:  "The levels of the taxonomy to run over. The innermost level always varies fastest.",
			},
			{name: "count", kind: kindNumber(), byDefault: "`each` is given instead", doc: "The number of nodes."},
			{name: "limit", kind: kindNumber(), byDefault: "no limit", doc: "The number of nodes after which to stop."},
		}, nodeAttributes()...),
		children: append(nodeCards(), quotaElement("each of the nodes")),
	}
}

func nodeElement() *element {
	return &element{
		name: "node", maxCount: maxNodes,
		doc: "One node.",
		attributes: append([]attribute{
			{name: "name", kind: kindHostExpression(), required: true, doc: "Its host name."},
			{
				name: "position", byDefault: "none",
				kind: kind{
					name: "position", regexp: listOf(`[A-Za-z]{1,32}[0-9]{1,9}`),
					want: `a position such as "rack2 blade7"`,
				},
				doc: "Its position in the taxonomy, such as `rack2 blade7`.",
			},
		}, nodeAttributes()...),
		children: append(nodeCards(), quotaElement("the node")),
	}
}
