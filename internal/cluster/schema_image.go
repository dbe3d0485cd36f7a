package cluster

// The names of the built-in node files, which <builtin> switches off.
const (
	BuiltinHostname       = "hostname"
	BuiltinHosts          = "hosts"
	BuiltinFstab          = "fstab"
	BuiltinIfupdown       = "ifupdown"
	BuiltinNetworkManager = "networkmanager"
	BuiltinNetworkd       = "networkd"
	BuiltinMachineID      = "machine-id"
	BuiltinResolvConf     = "resolv.conf"
)

// Builtins returns the names of all built-in node files.
func Builtins() []string {
	return []string{
		BuiltinHostname, BuiltinHosts, BuiltinFstab, BuiltinIfupdown, BuiltinNetworkManager, BuiltinNetworkd,
		BuiltinMachineID, BuiltinResolvConf,
	}
}

func imageElement() *element {
	return &element{
		name: "image", most: 1000,
		doc: "An image: where it comes from, and the rules for its paths.",
		attributes: []attribute{
			{name: "name", kind: kindName(), required: true, doc: "Its name."},
			{name: "arch", kind: enum("amd64", "arm64", "ppc64le"), required: true, doc: "The architecture of the nodes that boot it."},
			{name: "master", kind: kind{
				name: "master", regexp: `((dir|tar|oci):/.*|docker(\+http)?://[^/].*|ssh://[^/]+/.*)`,
				want: "dir:/PATH, tar:/PATH, ssh://[USER@]HOST[:PORT]/PATH, oci:/PATH[:REF] or docker://REGISTRY/NAME[:TAG]",
			}, required: true, doc: "The installation it is captured from: `dir:/PATH`, `tar:/PATH`, `ssh://[USER@]HOST[:PORT]/PATH`, `oci:/PATH[:REF]` (an OCI layout), `docker://REGISTRY/NAME[:TAG]`, or `docker+http://…` of a registry without TLS. See [masters](../guide/masters.md)."},
			{name: "durability", kind: enum(string(DurabilitySync), string(DurabilityAsyncMetadata), string(DurabilityAsync)), byDef: string(DurabilitySync),
				doc: "What a power cut of the image server may take from a node: `sync` nothing that was answered; `async-metadata` names and attributes of the last seconds, not content that was committed; `async` all of the last seconds."},
			{name: "push", kind: enum("on", "off"), byDef: "off", doc: "`on`: nodes keep what they know of files for an hour and are told of a switch by their server. `off`: they ask again after 3 seconds. A node follows it from its next boot on."},
		},
		children: []*element{
			ruleElement("exclude", "Paths that never leave the master."),
			ruleElement("shared", "Paths that nodes may not write."),
			ruleElement("keep", "Paths that belong to the node once they are there."),
			mountElement(), fileElement(), builtinElement(), kernelElement(), savedElement(), quotaElement("each node of the image"),
		},
	}
}

func ruleElement(name, doc string) *element {
	return &element{
		name: name, most: 1000, doc: doc + " See [patterns](#patterns).",
		attributes: []attribute{
			{name: "path", kind: kindPattern(), required: true, doc: "The pattern."},
		},
	}
}

func mountElement() *element {
	return &element{
		name: "mount", most: 1000,
		doc: "A path on which nodes mount something of their own. A switch that would take such a mount away from a node that runs leaves the node's replica as it is. Nodes with push tell what they have mounted themselves. See [push](../guide/push.md#mounts-and-switches).",
		attributes: []attribute{
			{name: "path", kind: kind{name: "path", regexp: `/.+`, want: "an absolute path"}, required: true, doc: "The file or directory that is covered."},
		},
	}
}

func fileElement() *element {
	return &element{
		name: "file", text: true, most: 1000,
		doc: "A node file: the text, or the file `template`, is a [template](#templates) rendered for each node. A line end directly after the tag does not count.",
		attributes: []attribute{
			{name: "path", kind: kind{name: "path", regexp: `/.+`, want: "an absolute path"}, required: true, doc: "Where the nodes see it."},
			{name: "mode", kind: kind{name: "mode", regexp: `[0-7]{3,4}`, want: "an octal mode such as 0644"}, byDef: "0644", doc: "Its permissions, octal."},
			{name: "owner", kind: kind{name: "owner", regexp: `[0-9]{1,10}(:[0-9]{1,10})?`, want: "UID or UID:GID, numbers"}, byDef: "0:0", doc: "Its owner, `UID:GID` in numbers; the group of `UID` alone is 0."},
			{name: "template", kind: kindFile(), byDef: "the element's text", doc: "A file with the template, relative to the description."},
		},
	}
}

func builtinElement() *element {
	return &element{
		name: "builtin", most: 100,
		doc: "Switches one of the [built-in node files](#built-in-node-files) off.",
		attributes: []attribute{
			{name: "name", kind: enum(Builtins()...), required: true, doc: "Which one."},
			{name: "enabled", kind: enum("yes", "no"), required: true, doc: "Whether it is made."},
		},
	}
}

func kernelElement() *element {
	return &element{
		name: "kernel", most: 1,
		doc: "The kernel to boot, always one of the image's own.",
		attributes: []attribute{
			{name: "version", kind: kind{name: "version", regexp: `[A-Za-z0-9][A-Za-z0-9_.+~-]*`, want: "a kernel version such as 6.1.0-28-amd64"}, byDef: "the newest", doc: "Its version, the name of a directory in /lib/modules."},
			{name: "append", kind: kind{name: "arguments", regexp: `.*`, want: "kernel arguments"}, byDef: "nothing", doc: "What is added to the kernel command line."},
			{name: "modules", kind: kind{name: "modules", regexp: listOf(`[A-Za-z0-9_-]+`), want: "names of modules"}, byDef: "none", doc: "Modules that the initramfs loads besides those of the cards and of NFS."},
		},
	}
}

func savedElement() *element {
	return &element{
		name: "saved", most: 1,
		doc: "What a server keeps of what nodes had of their own: what switches, resets and restores have set aside and, with `snapshots`, how it was at certain times. See [the guide](../guide/node-state.md#the-time-machine).",
		attributes: append([]attribute{
			{name: "days", kind: kindDays(), byDef: "90", doc: "For how long what was set aside is kept, in days, 1 to 36500."},
		}, snapshotAttributes()...),
	}
}

func kindDays() kind { return kind{name: "days", regexp: `[1-9][0-9]{0,4}`, want: "a number of days"} }
