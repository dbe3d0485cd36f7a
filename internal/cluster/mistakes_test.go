package cluster

type mistake struct{ name, old, new, want string }

// mistakes are ways to break the valid description, and what is then reported.
func mistakes() []mistake {
	return []mistake{
		{
			"unknown element", `<inventory file="macs.csv"/>`, `<inventroy file="macs.csv"/>`,
			`c.xml:15:1: unknown element <inventroy> in <cluster> (did you mean "inventory"?)`,
		},
		{
			"unknown attribute", `gateway=`, `getaway=`,
			`c.xml:2:43: unknown attribute getaway of <network> (did you mean "gateway"?)`,
		},
		{"missing attribute", ` subnet="10.1.0.0/24"`, ``, `c.xml:3:1: <network> has no attribute subnet`},
		{
			"attribute twice", `<level name="rack"`, `<level name="rack" name="rock"`,
			`c.xml:4:30: attribute name of <level> is given twice`,
		},
		{
			"malformed value", `arch="amd64" master="dir:/m"`, `arch="x86" master="dir:/m"`,
			`c.xml:6:29: arch="x86": must be one of amd64, arm64, ppc64le`,
		},
		{
			"bad role", `roles="head image"`, `roles="head images"`,
			`c.xml:5:28: roles="head images": must be "head", "image" or both`,
		},
		{
			"bad port", `roles="head image"`, `roles="head image" nfs-port="70000"`,
			`c.xml:5:50: nfs-port="70000": must be 1 to 65535`,
		},
		{
			"no interface", `<interface network="boot" address="10.0.0.1"/>`, ``,
			`c.xml:5:1: <server> has no <interface>`,
		},
		{
			"second taxonomy", `</taxonomy>`, `</taxonomy><taxonomy><level name="x" to="1"/></taxonomy>`,
			`c.xml:4:86: a second <taxonomy> in <cluster>`,
		},
		{"text", `<inventory`, `word <inventory`, `c.xml:15:1: unexpected text: only elements are allowed here`},
		{"broken XML", `</nodes>`, `</node>`, `c.xml:13:8: malformed XML: element <nodes> closed by </node>`},
		{
			"document type", `<cluster name`, `<!DOCTYPE cluster [<!ENTITY a "b">]><cluster name`,
			`c.xml:1:1: document types and entities are not allowed`,
		},
		{"entity", `name="boot"`, `name="&boot;"`, `c.xml:2:22: malformed XML: invalid character entity &boot;`},
		{"second root", "</cluster>\n", "</cluster>\n<cluster/>", `c.xml:17:1: a second root element <cluster>`},
		{"root", "<cluster name", "<clutter name", `malformed XML`},

		{"second network", `name="mpi"`, `name="boot"`, `c.xml:3:16: a second network "boot"`},
		{
			"overlap", `10.1.0.0/24`, `10.0.0.0/16`,
			`c.xml:3:29: network "mpi" (10.0.0.0/16) overlaps network "boot" (10.0.0.0/24)`,
		},
		{
			"host bits", `10.1.0.0/24`, `10.1.0.1/24`,
			`c.xml:3:29: subnet="10.1.0.1/24" has bits set beyond its prefix (did you mean "10.1.0.0/24"?)`,
		},
		{
			"gateway elsewhere", `10.0.0.254`, `10.9.0.254`,
			`c.xml:2:52: gateway: address 10.9.0.254 is outside network "boot" (10.0.0.0/24)`,
		},
		{
			"levels backwards", `from="1" to="3"`, `from="4" to="3"`,
			`c.xml:4:71: level "blade" runs backwards, from 4 to 3`,
		},
		{"level twice", `name="blade"`, `name="rack"`, `c.xml:4:51: a second level "rack"`},
		{
			"level called index", `name="blade"`, `name="index"`,
			`c.xml:4:51: a level cannot be named "index": that is the variable that counts nodes`,
		},

		{
			"unknown network", `<interface network="boot"`, `<interface network="bot"`,
			`c.xml:5:60: network "bot" is not defined (did you mean "boot"?)`,
		},
		{
			"server outside", `address="10.0.0.1"`, `address="10.7.0.1"`,
			`c.xml:5:75: server head: address 10.7.0.1 is outside network "boot" (10.0.0.0/24)`,
		},
		{
			"no image role", `roles="head image"`, `roles="head"`,
			`c.xml:10:73: node n11: server head does not have the role "image" (and 5 more of the same kind)`,
		},
		{"no head", `roles="head image"`, `roles="image"`, `c.xml:1:1: no server has the role "head"`},
		{
			"ports clash", `roles="head image"`, `roles="head image" nfs-port="80"`,
			`nfs-port: TCP port 80 on 10.0.0.1 is already used by its own http-port`,
		},

		{"second image", `name="gpu"`, `name="compute"`, `c.xml:9:14: a second image "compute"`},
		{"bad pattern", `</image>`, `<shared path="/a/../b"/></image>`, `c.xml:8:15: parse pattern "/a/../b"`},
		{
			"bad path", `path="/etc/a"`, `path="/etc//a"`,
			`c.xml:7:13: path "/etc//a": must be a clean absolute path of a file`,
		},
		{
			"mount twice", `</image>`, `<mount path="/srv/x"/><mount path="/srv/x"/></image>`,
			`c.xml:8:36: <mount path="/srv/x"> is given twice`,
		},
		{
			"mount that is not clean", `</image>`, `<mount path="/srv/../x"/></image>`,
			`c.xml:8:14: path "/srv/../x": must be a clean absolute path`,
		},
		{
			"file twice", `</image>`, `<file path="/etc/a">x</file></image>`,
			`c.xml:8:13: a second <file path="/etc/a"> in image "compute"`,
		},
		{
			"file below a file", `</image>`, `<file path="/etc/a/b">x</file></image>`,
			`c.xml:8:13: <file path="/etc/a/b"> and <file path="/etc/a">: one would have to be a directory`,
		},
		{
			"unclean path of a merge", `</image>`, `<merge path="/etc/../x" by="dpkg"/></image>`,
			`must be a clean absolute path of a file`,
		},
		{"unknown format", `</image>`, `<merge path="/etc/x" by="rpm"/></image>`, `by="rpm"`},
		{
			"merge twice", `</image>`, `<merge path="/etc/x" by="dpkg"/><merge path="/etc/x" by="none"/></image>`,
			`<merge path="/etc/x"> is given twice`,
		},
		{"unknown builtin", `</image>`, `<builtin name="fstap" enabled="no"/></image>`, `(did you mean "fstab"?)`},
		{"second kernel", `</image>`, `<kernel/><kernel/></image>`, `c.xml:8:10: a second <kernel> in <image>`},
		{
			"bad owner", `path="/etc/a"`, `path="/etc/a" owner="4294967295:0"`,
			`c.xml:7:28: owner="4294967295:0": must be numbers below 4294967295`,
		},
		{"template syntax", `{{.Node.Name}}`, `{{.Node.Name`, `template of /etc/a: unclosed action`},
		{
			"template function", `{{.Node.Name}}`, `{{nodename}}`,
			`c.xml:7:21: template of /etc/a: function "nodename" not defined`,
		},
		{
			"template field", `{{.Node.Name}}`, `{{.Node.Nmae}}`,
			`c.xml:7:28: template of /etc/a: <.Node.Nmae>: can't evaluate field Nmae in type *cluster.Node`,
		},
		{
			"template file", `>{{.Node.Name}}<`, ` template="bad.tmpl"><`,
			`bad.tmpl:2:13: template of /etc/a: <.Node.Nome>: can't evaluate field Nome`,
		},
		{
			"template twice", `>{{.Node.Name}}<`, ` template="bad.tmpl">x<`,
			`c.xml:7:1: <file path="/etc/a"> has both a text and a template file`,
		},
		{
			"no such template", `>{{.Node.Name}}<`, ` template="none.tmpl"><`,
			`c.xml:7:31: open none.tmpl: file does not exist`,
		},
		{
			"template outside", `>{{.Node.Name}}<`, ` template="../none.tmpl"><`,
			`c.xml:7:31: file "../none.tmpl": must be a path below the description's directory`,
		},
		{"endless template", `{{.Node.Name}}`, `{{range 100000000000}}{{end}}`, `the template runs for too long`},
		{
			"endless recursion", `{{.Node.Name}}`,
			`{{define "a"}}{{template "b"}}{{template "b"}}{{end}}{{define "b"}}{{template "a"}}{{end}}` +
				`{{template "a"}}`, `template of /etc/a`,
		},

		{
			"unknown image", `image="compute"`, `image="comptue"`,
			`c.xml:10:55: image "comptue" is not defined (did you mean "compute"?)`,
		},
		{
			"unknown server", `servers="head"`, `servers="haed"`,
			`c.xml:10:73: node n11: server "haed" is not defined (and 5 more of the same kind) (did you mean "head"?)`,
		},
		{
			"no servers", ` servers="head"`, ``,
			`c.xml:10:1: node n11 has no server with the role "image" (and 5 more of the same kind)`,
		},
		{
			"position: level", `<group`,
			`<node name="x" position="rock1" image="compute" servers="head"><interface name="e" network="boot" ` +
				`address="10.0.0.99"/></node><group`, `c.xml:14:26: level "rock" is not defined (did you mean "rack"?)`,
		},
		{
			"position: twice", `<group`,
			`<node name="x" position="rack1 rack2" image="compute" servers="head"><interface name="e" ` +
				`network="boot" address="10.0.0.99"/></node><group`, `c.xml:14:26: level "rack" is given twice`,
		},
		{
			"position: range", `<group`,
			`<node name="x" position="rack3" image="compute" servers="head"><interface name="e" network="boot" ` +
				`address="10.0.0.99"/></node><group`, `c.xml:14:26: rack3 is outside the level's range, 1 to 2`,
		},
		{"each twice", `each="rack blade"`, `each="rack rack"`, `c.xml:10:36: level "rack" is given twice`},
		{"bad expression in servers", `servers="head"`, `servers="head {"`, `c.xml:10:78: "{" without "}"`},
		{"role twice", `roles="head image"`, `roles="head image head"`, `c.xml:5:28: role "head" is given twice`},
		{
			"server's address twice", `address="10.0.0.1"/>`,
			`address="10.0.0.1"/><interface network="boot" address="10.0.0.1"/>`,
			`c.xml:5:121: server head: two cards have address 10.0.0.1`,
		},
		{
			"server's MAC", `address="10.0.0.1"/>`, `address="10.0.0.1" mac="52:54:00:00:01:01"/>`,
			`node n11: hardware address 52:54:00:00:01:01 is already used by server head at c.xml:5:90`,
		},
		{
			"too many servers", `<image name="gpu"`,
			`<servers name="x{i}" count="10000" roles="image"><interface network="boot" address="10.0.0.9"/>` +
				`</servers><image name="gpu"`, `c.xml:9:29: count="10000": must be 1 to 10000 servers in all`,
		},
		{
			"subnet", `10.1.0.0/24`, `10.1.0.0/33`,
			`c.xml:3:29: subnet="10.1.0.0/33": must be an IPv4 subnet such as 10.77.0.0/24`,
		},
		{
			"encoding", `<cluster name`, `<?xml version="1.0" encoding="latin1"?><cluster name`,
			`the encoding must be UTF-8`,
		},
		{
			"no image", ` image="compute" servers`, ` servers`,
			`c.xml:10:1: node n21 has no image, neither its own nor a group's (and 2 more of the same kind)`,
		},
		{
			"server twice", `servers="head"`, `servers="head head"`,
			`c.xml:10:78: node n11: server head is listed twice (and 5 more of the same kind)`,
		},
		{
			"unknown level", `each="rack blade"`, `each="rack blades"`,
			`c.xml:10:36: level "blades" is not defined (did you mean "blade"?)`,
		},
		{
			"each and count", `each="rack blade"`, `each="rack blade" count="2"`,
			`c.xml:10:1: <nodes> needs exactly one of the attributes each and count`,
		},
		{"neither", `each="rack blade" `, ``, `c.xml:10:1: <nodes> needs exactly one of the attributes each and count`},
		{"too many", `each="rack blade"`, `count="999999999"`, `c.xml:10:37: must be 1 to 100000 nodes in all`},
		{
			"too many by levels", `from="1" to="3"`, `from="1" to="999999999"`,
			`c.xml:10:36: must be 1 to 100000 nodes in all`,
		},
		{
			"unknown variable", `n{rack}{blade}`, `n{rack}{blode}`,
			`c.xml:10:22: "blode" is not defined here (did you mean "blade"?)`,
		},
		{
			"division by zero", `n{rack}{blade}`, `n{rack}{blade/(rack-1)}`,
			`c.xml:10:21: the expression divides by zero (and 2 more of the same kind)`,
		},
		{
			"name twice", `n{rack}{blade}`, `n{blade}`,
			`c.xml:10:14: node n1: the name is already used by node n1 at c.xml:10:14 (and 2 more of the same kind)`,
		},
		{
			"name of a server", `n{rack}{blade}" each="rack blade"`, `Head" count="1"`,
			`c.xml:10:14: node Head: the name is already used by server head at c.xml:5:15`,
		},
		{
			"name like a position", `n{rack}{blade}`, `rack{blade}`,
			`node rack1 has the name of a position in the taxonomy, which is ambiguous in node sets`,
		},
		{"bad name", `n{rack}{blade}`, `n.{rack}{blade}`, `c.xml:10:14: "n.11" is not a host name`},
		{
			"octet", `address="10.0.0.{rack*10+blade}"`, `address="10.0.0.{rack*100+blade*60}"`,
			`c.xml:11:48: node n13: "10.0.0.280" is not an IPv4 address (and 3 more of the same kind)`,
		},
		{
			"outside", `address="10.0.0.{rack*10+blade}"`, `address="10.0.{rack}.{blade}"`,
			`c.xml:11:48: node n11: address 10.0.1.1 is outside network "boot" (10.0.0.0/24) ` +
				`(and 5 more of the same kind)`,
		},
		{
			"broadcast", `10.0.0.{rack*10+blade}`, `10.0.0.{rack*126+blade}`,
			`c.xml:11:48: node n23: address 10.0.0.255 is the broadcast address of network "boot" (10.0.0.0/24)`,
		},
		{
			"network address", `10.0.0.{rack*10+blade}`, `10.0.0.{index}`,
			`c.xml:11:48: node n11: address 10.0.0.0 is the network address of network "boot" (10.0.0.0/24)`,
		},
		{
			"server's address", `10.0.0.{rack*10+blade}`, `10.0.0.{i}`,
			`c.xml:11:48: node n11: address 10.0.0.1 is already used by server head at c.xml:5:75`,
		},
		{
			"gateway's address", `10.0.0.{rack*10+blade}`, `10.0.0.{i+253}`,
			`c.xml:11:48: node n11: address 10.0.0.254 is the gateway of network "boot"`,
		},
		{
			"address twice", `10.0.0.{rack*10+blade}`, `10.0.0.{10+blade}`,
			`c.xml:11:48: node n21: address 10.0.0.11 is already used by node n11 at c.xml:11:48 ` +
				`(and 2 more of the same kind)`,
		},
		{
			"no boot address", ` address="10.0.0.{rack*10+blade}"`, ``,
			`c.xml:11:1: the first interface has no address: the node boots from it`,
		},
		{
			"MAC twice", `:0{rack}:0{blade}"`, `:00:0{blade}"`,
			`node n21: hardware address 52:54:00:00:00:01 is already used by node n11`,
		},
		{"multicast MAC", `mac="52:`, `mac="53:`, `hardware address 53:54:00:00:01:01 is a multicast address or zero`},
		{"interface twice", `name="eth1"`, `name="eth0"`, `c.xml:12:18: a second interface "eth0"`},

		{"unknown node", `n1[1-3]`, `n1[1-4]`, `c.xml:14:24: node "n14" is not defined (did you mean "n11"?)`},
		{"bad node set", `n1[1-3]`, `n1[1-3`, `c.xml:14:26: node set: "[" without "]"`},
		{"unknown group", `n1[1-3]`, `@h`, `c.xml:14:24: node set: group "h" is not defined`},
		{"a set of another tool", `n1[1-3]`, `n11-n13`, `c.xml:14:24: node "n11-n13" is not defined (write n[11-13])`},
		{"a set with a semicolon", `n1[1-3]`, `n11;n12`, `c.xml:14:27: node set: unexpected ';' (write 'n11,n12'`},
		{"second group", `<inventory`, `<group name="g" nodes="n11"/><inventory`, `c.xml:15:14: a second group "g"`},
		{
			"two images", `<inventory`, `<group name="h" nodes="n11" image="compute"/><inventory`,
			`c.xml:15:1: node n11 is in group "g" with image "gpu", and in group "h" with image "compute"`,
		},
		{"huge set", `n1[1-3]`, `n1[1-99999999]`, `node set: more than`},

		{"inventory: node", `macs.csv`, `bad.csv`, `bad.csv:2:1: node "n99" is not defined`},
		{
			"inventory: interface", `macs.csv`, `bad.csv`,
			`bad.csv:3:5: node n11 has no interface "eth9" (did you mean "eth0"?)`,
		},
		{"inventory: MAC", `macs.csv`, `bad.csv`, `bad.csv:4:10: node n12: "nonsense" is not a hardware address`},
		{
			"inventory: taken", `macs.csv`, `bad.csv`,
			`bad.csv:5:10: node n13: hardware address 52:54:00:00:01:01 is already used by node n11 at c.xml:11:77`,
		},
		{
			"inventory: twice", `macs.csv`, `bad.csv`,
			`bad.csv:6:10: node n13: interface eth0 already has the hardware address 52:54:00:00:01:03`,
		},
		{"inventory: columns", `macs.csv`, `bad.csv`, `bad.csv:7:1: 2 columns, and the first line has 3`},
		{"inventory: quote", `macs.csv`, `bad.csv`, `bad.csv:8:2: extraneous or missing " in quoted-field`},
		{"inventory: header", `macs.csv`, `head.csv`, `head.csv:1:16: columns "mac" and "mac" mean the same`},
		{"no such inventory", `macs.csv`, `none.csv`, `c.xml:15:18: open none.csv: file does not exist`},
	}
}
