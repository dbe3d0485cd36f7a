// Package lab runs small real networks and machines on the developer's own machine: a network namespace with a bridge,
// QEMU and User Mode Linux guests that are attached to it, ssh into them, and a server. The demonstration and the
// whole-system tests are built on it.
//
// It needs root, ip (iproute2), qemu-system-x86_64 or user-mode-linux and, for SSH, the OpenSSH client.
//
// # Invariants
//
//   - The caller chooses the name of the namespace. Nothing outside of it is changed, so that several labs can run side
//     by side.
//   - Close, Kill and Down remove everything that was made, except files.
//   - A process is signalled only by its own id.
//   - A serial log contains every byte that the guest wrote.
//   - WaitFor never finds the same output twice, so that a mark that appears at every boot can be waited for at every
//     boot.
//
// # Concurrency
//
// A Guest may be used by several goroutines, but only one of them may call WaitFor.
//
// # What it must not know
//
// Any other package of this project but its own netns. It runs dim as a program.
package lab
