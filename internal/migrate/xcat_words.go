package migrate

import "slices"

// xcatSilent is the reason for attributes that need no note: what xCAT writes down for itself.
const xcatSilent = "-"

// xcatAttributes are the attributes of nodes, networks and images, as lsdef and tables name them, with the reason why
// an attribute is not carried over, or "" if it is.
func xcatAttributes() map[string]string {
	const (
		power   = "power is not managed here"
		console = "consoles are not managed here"
		boots   = "image servers tell each firmware what it boots"
		scripts = "put what the scripts do into the master, or into a <file> in <image>"
		servers = `write servers="…" of <nodes> for the servers of each node`
		place   = "write a <taxonomy> for racks and chassis"
		master  = "the master is an installed root: install packages in it"
		names   = "a card has one name"
		self    = xcatSilent
	)
	return map[string]string{
		"groups": "", "ip": "", "otherinterfaces": "", "mac": "", "interface": "", "arch": "", "os": "", "profile": "",
		"provmethod": "", "netboot": "", "installnic": "", "primarynic": "", "addkcmdline": "", "serialport": "",
		"serialspeed": "", "serialflow": "", "nodetype": "", "nicips": "", "nictypes": "", "nicnetworks": self,
		"nicdevices": "", "nicextraparams": "configure it in the master", "net": "", "mask": "", "gateway": "",
		"nameservers": "", "domain": "", "mtu": "", "rootimgdir": "", "osarch": "", "osvers": "", "imagetype": self,
		"xcatmaster": servers, "kernelver": "the kernel is the newest one of the image",
		"vlanid": "write vlan=\"…\" of <interface>", "osname": self, "osdistroname": self, "supportedarchs": self,
		"mgtifname": self, "tftpdir": self,
		"status": self, "statustime": self, "appstatus": self, "appstatustime": self, "updatestatus": self,
		"updatestatustime": self, "currstate": self, "currchain": self, "initrd": self, "kernel": self,
		"kcmdline": self, "usercomment": self, "primarysn": self, "hidden": self, "dhcpserver": self, "nfsdir": self,
		"current_osimage": self, "next_osimage": self, "postbootscripts": scripts, "postscripts": scripts,
		"bmc": power, "bmcport": power, "bmcusername": power, "bmcpassword": power, "username": power,
		"password": power, "mgt": power, "power": power, "hcp": power, "mpa": power, "taggedvlan": power,
		"cons": console, "conserver": console, "termserver": console, "termport": console, "consoleondemand": console,
		"consoleenabled": console, "getmac": "hardware addresses are learned: see dim node learn", "cmdmapping": power,
		"chain": "machines are not discovered by a chain of tasks: see dim node learn", "ondiscover": self,
		"servicenode": servers, "nfsserver": servers, "tftpserver": servers, "monserver": servers,
		"hostnames": names, "nicaliases": names, "nichostnamesuffixes": self, "nichostnameprefixes": self,
		"nicsadapter": "write the name of the card", "niccustomscripts": scripts,
		"routenames": "write gateway=\"…\" of <interface>, or configure routes in the master",
		"proxydhcp":  boots, "dhcpstatements": boots, "adddhcpstatements": boots,
		"syslog":     "configure it in the master",
		"ntpservers": "configure it in the master", "logservers": "configure it in the master",
		"dynamicrange": "only declared nodes get addresses", "staticrange": "addresses are declared",
		"staticrangeincrement": "addresses are declared", "nodehostname": "names are declared",
		"ddnsdomain": "there is no dynamic DNS here", "rack": place, "chassis": place, "slot": place, "unit": place,
		"exlist":  "dim image import xcat makes <exclude> elements of it",
		"pkglist": master, "pkgdir": master, "otherpkglist": master, "otherpkgdir": master, "template": master,
		"postinstall": master, "synclists": "write a <file> in <image>, or put the file into the master",
		"partitionfile": "nodes have no local disks here", "permission": self, "kerneldir": self,
		"nodebootif": self, "otherifce": self, "netdrivers": self, "dump": "configure it in the master",
		"crashkernelsize": "write crashkernel=… in <kernel append=\"…\">", "isdeletable": self,
		"rootfstype": "nodes mount their root by NFS", "nfsrootopts": "nodes mount their root by NFS",
		"boottarget": boots, "description": self, "serverrole": self, "krpmver": self, "driverupdatesrc": master,
		"kitcomponents": master, "environvar": scripts, "cfmdir": scripts, "osupdatename": master,
	}
}

// xcatTableReason returns why a table with such a header is not carried over, "" if it is.
func xcatTableReason(header []string) string {
	has := func(columns ...string) bool {
		return !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(header, c) })
	}
	switch {
	case has("key", "value") && len(header) <= 4, has("netname", "net", "mask"), has("imagename"):
		return ""
	case header[0] == "groupname":
		return "write a <group> with the members of a dynamic group"
	case header[0] != "node":
		return "there is nothing like it here"
	}
	for _, column := range []string{
		"groups", "provmethod", "primarynic", "mac", "hostnames", "kcmdline", "mgt", "bmc", "nicips", "postbootscripts",
	} {
		if has(column) {
			return ""
		}
	}
	if has("rack") {
		return "write a <taxonomy> for racks and chassis"
	}
	if has("switch", "port") {
		return "ports of switches are not declared: a node is known by its hardware address"
	}
	return "there is nothing like it here"
}
