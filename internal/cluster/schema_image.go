package cluster

import (
	"dim/internal/cluster/builtin"
	"dim/internal/recordmerge"
)

func imageElement() *element {
	return &element{
		name: "image", maxCount: 1000,
		doc: "An image: where it comes from, and the rules for its paths.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "Its name."},
			{
				name: "arch", kind: enum("amd64", "arm64", "ppc64le"), required: true,
				doc: "The architecture of the nodes that boot it.",
			},
			masterAttribute(), durabilityAttribute(),
			{
				name: "push", kind: enum("on", "off"), byDefault: "off",
				doc: "`on`: nodes cache file attributes for an hour, and their server notifies them of every switch. " +
					"`off`: they cache attributes for 3 seconds. A change of this attribute takes effect when a node " +
					"boots.",
			},
		},
		children: []*element{
			ruleElement("exclude", "Paths that are not captured from the master."),
			ruleElement("shared", "Paths that nodes may not write."),
			ruleElement("keep", "Paths that belong to the node once they exist there."),
			mergeElement(), mountElement(), fileElement(), builtinElement(), kernelElement(), savedElement(),
			quotaElement("each node of the image"),
		},
	}
}

func masterAttribute() attribute {
	return attribute{
		name: "master", required: true,
		kind: kind{
			name: "master", regexp: `((dir|tar|oci):/.*|docker(\+http)?://[^/].*|ssh://[^/]+/.*)`,
			want: "dir:/PATH, tar:/PATH, ssh://[USER@]HOST[:PORT]/PATH, oci:/PATH[:REF] or " +
				"docker://REGISTRY/NAME[:TAG]",
		},
		doc: "The installation that it is captured from: `dir:/PATH`, `tar:/PATH`, `ssh://[USER@]HOST[:PORT]/PATH`, " +
			"`oci:/PATH[:REF]` (an OCI layout), `docker://REGISTRY/NAME[:TAG]`, or `docker+http://…` for a " +
			"registry without TLS. See [masters](../guide/masters.md).",
	}
}

func durabilityAttribute() attribute {
	return attribute{
		name:      "durability",
		kind:      enum(string(DurabilitySync), string(DurabilityAsyncMetadata), string(DurabilityAsync)),
		byDefault: string(DurabilitySync),
		doc: "What a power cut of the image server may take from a node. `sync`: nothing that was acknowledged. " +
			"`async-metadata`: names and attributes of the last seconds, but no committed content. `async`: " +
			"everything of the last seconds.",
	}
}

func ruleElement(name, doc string) *element {
	return &element{
		name: name, maxCount: 1000, doc: doc + " See [patterns](#patterns).",
		attributes: []attribute{
			{name: "path", kind: kindPattern(), required: true, doc: "The pattern."},
		},
	}
}

// noMerge is the value of by that switches a merge off.
const noMerge = "none"

func mergeElement() *element {
	values := []string{noMerge}
	for _, f := range recordmerge.Formats() {
		values = append(values, string(f))
	}
	return &element{
		name: "merge", maxCount: 1000,
		doc: "A file whose records are merged when both a node and the master have changed it. Some files are merged " +
			"without a rule. See [merged files](#merged-files).",
		attributes: []attribute{
			{name: "path", kind: kindPath(), required: true, doc: "The file's path."},
			{
				name: "by", kind: enum(values...), required: true,
				doc: "What a record is, and by what it is known; `none`: the file is not merged.",
			},
		},
	}
}

func mountElement() *element {
	return &element{
		name: "mount", maxCount: 1000,
		doc: "A path on which nodes mount something of their own. A switch that would remove such a mount from a " +
			"running node leaves the node's replica as it is. Nodes with push report their mounts themselves. See " +
			"[push](../guide/push.md#mounts-and-switches).",
		attributes: []attribute{
			{name: "path", kind: kindPath(), required: true, doc: "The mount point, a file or a directory."},
		},
	}
}

func kindPath() kind { return kind{name: "path", regexp: `/.+`, want: "an absolute path"} }

func fileElement() *element {
	return &element{
		name: "file", text: true, maxCount: 1000,
		doc: "A node file: a [template](#templates) that is rendered for each node. The template is the element's " +
			"text or the file `template`. A line end directly after the start tag is not part of it.",
		attributes: []attribute{
			{name: "path", kind: kindPath(), required: true, doc: "The file's path on the nodes."},
			{
				name: "mode", byDefault: "0644",
				kind: kind{name: "mode", regexp: `[0-7]{3,4}`, want: "an octal mode such as 0644"},
				doc:  "Its permissions, in octal.",
			},
			{
				name: "owner", byDefault: "0:0",
				kind: kind{name: "owner", regexp: `[0-9]{1,10}(:[0-9]{1,10})?`, want: "UID or UID:GID, numbers"},
				doc:  "Its owner, `UID:GID` in numbers. If only `UID` is given, the group is 0.",
			},
			{
				name: "template", kind: kindFile(), byDefault: "the element's text",
				doc: "The file that contains the template, relative to the description.",
			},
		},
	}
}

func builtinElement() *element {
	return &element{
		name: "builtin", maxCount: 100,
		doc: "Switches one of the [built-in node files](#built-in-node-files) on or off.",
		attributes: []attribute{
			{name: "name", kind: enum(builtin.Names()...), required: true, doc: "Its name."},
			{name: "enabled", kind: enum("yes", "no"), required: true, doc: "Whether it is made."},
		},
	}
}

func kernelElement() *element {
	return &element{
		name: "kernel", maxCount: 1,
		doc: "The kernel to boot. It always comes from the image.",
		attributes: []attribute{
			{
				name: "version", byDefault: "the newest",
				kind: kind{
					name: "version", regexp: `[A-Za-z0-9][A-Za-z0-9_.+~-]*`,
					want: "a kernel version such as 6.1.0-28-amd64",
				},
				doc: "Its version, the name of a directory in /lib/modules.",
			},
			{
				name: "append", byDefault: "nothing",
				kind: kind{name: "arguments", regexp: `.*`, want: "kernel arguments"},
				doc:  "Arguments to add to the kernel command line.",
			},
			{
				name: "modules", byDefault: "none",
				kind: kind{name: "modules", regexp: listOf(`[A-Za-z0-9_-]+`), want: "names of modules"},
				doc:  "Modules that the initramfs loads in addition to those for the network cards and NFS.",
			},
		},
	}
}

func savedElement() *element {
	return &element{
		name: "saved", maxCount: 1,
		doc: "What a server keeps of the nodes' own changes: the copies that switches, resets and restores set aside " +
			"and, with `snapshots`, earlier states. See [the guide](../guide/node-state.md#snapshots).",
		attributes: append([]attribute{
			{
				name: "days", kind: kindDays(), byDefault: "90",
				doc: "How long set-aside copies are kept, in days, 1 to 36500.",
			},
		}, snapshotAttributes()...),
	}
}

func kindDays() kind { return kind{name: "days", regexp: `[1-9][0-9]{0,4}`, want: "a number of days"} }
