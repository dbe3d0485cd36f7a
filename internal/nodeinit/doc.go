// Package nodeinit is what dim-init does: it brings a diskless node from the start of /init to the start of the
// distribution's own init, with the node's replica as its root.
//
//	environment  mount /dev, /proc, /sys and /run, read the kernel command line
//	card         load the drivers that the hardware asks for, find the boot card, give it its declared name
//	link         bring the card up, wait for a carrier
//	address      ask by DHCP; set address, route, MTU and host name
//	mount        mount the replica by NFS version 3
//	handover     move the mounts, empty the initramfs, make the replica the root, run its init
//
// Each step prints one line on the console and reports itself to the image server. docs/reference/kernel-parameters.md
// is the contract with the server: words of the command line, DHCP options, reports.
//
// With push, one process stays when the node's init runs (resident.go). docs/formats/push.md is its contract.
//
// # Invariants
//
//   - No step is given up. A step that fails prints why and is tried again for ever. The intervals grow and differ from
//     node to node, since thousands of nodes may boot at once.
//   - A report that fails never delays a boot.
//   - There is no shell, and nothing is written into the replica.
//   - After the handover the boot card keeps its name, address and link: files in /run make the network managers of the
//     image leave it alone.
//   - Every step can be repeated. After a panic the program executes itself anew and finds mounts, names and addresses
//     already there.
//
// # Concurrency
//
// There is one goroutine: a panic in another one could not be recovered, and when process 1 ends, the machine stops.
//
// # Structure
//
// Decisions are pure functions. What talks to the kernel is behind the interface machine, in files that end in
// _linux.go.
//
// # What it must not know
//
// How the server comes to its answers.
package nodeinit
