// Package lab raises small real networks and machines on the developer's own machine: a network namespace with a
// bridge, QEMU guests as nodes attached to it, and ssh into them. The demonstration and the whole-system tests are
// built on it.
//
// Everything made here has a name given by the caller and is removed by Close or Kill; nothing outside the namespace
// is touched, so that several labs, and the machine's own network, live side by side.
//
// Invariants: a Guest's process is ended only by its own id; a serial log holds every byte that the guest wrote; the
// cursor of WaitFor only moves forward, so that a mark that appears at every boot can be waited for at every boot.
//
// A Net may be used by several goroutines. A Guest may be asked by several goroutines, but only one should wait for
// marks. It needs root, ip (iproute2), qemu-system-x86_64 and, for SSH, the OpenSSH client.
//
// It must not know anything of images, servers or the cluster description: it gives them a place to run.
package lab
