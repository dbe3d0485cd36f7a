// Package nodeinit is what dim-init does: it brings a diskless node from the start of /init to the start of the
// distribution's own init, with the node's replica as its root.
//
//	environment  mount /dev /proc /sys /run, read the kernel command line
//	card         load the drivers that the hardware asks for, find the boot card, give it its declared name
//	link         bring it up, wait for a carrier
//	address      ask by DHCP, set address, route, MTU and host name
//	mount        mount the replica by NFS version 3
//	handover     move the mounts, empty the initramfs, make the replica the root, run its init
//
// Each step says one line on the console and reports itself to the image server. docs/reference/kernel-parameters.md
// is the contract with the server: words of the command line, DHCP options, reports.
//
// Invariants: no step is ever given up: what fails is said in plain words and tried again, for ever, at growing
// intervals that differ from node to node, for thousands come up at once. A report that fails never delays a boot.
// There is no shell. Nothing is written into the replica. After the handover the boot card keeps its name, address and
// link: the network managers of the image are told in /run to leave it alone.
//
// Everything can be done again from the start: after a panic the program runs itself anew and finds mounts, names and
// addresses already there. There is one goroutine, since a panic in another could not be caught, and the end of
// process 1 is the end of the machine.
//
// Decisions are pure functions in files of their own; what talks to the kernel is behind the interface machine, thin, in
// files that end in _linux.go. It must not know how the server comes to its answers.
package nodeinit
