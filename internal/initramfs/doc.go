// Package initramfs builds what a node boots from its image: the distribution's own kernel, and an initramfs with
// dim-init, the drivers of network cards and the NFS client. Nothing of it comes from the machine that builds, and
// nothing need be installed in the image: no dracut, no initramfs-tools.
//
// # Contents
//
// The kernel is the one that the description names, else the newest that has both its file and its modules. The
// initramfs contains
//
//   - dim-init;
//   - every driver for Ethernet cards (classes.go), the NFS client and the buses of virtual machines;
//   - the modules that the description adds;
//   - what these modules depend on, and the firmware that they name, if the image has it.
//
// Of the drivers dim-init loads those that the node's hardware asks for.
//
// # Invariants
//
//   - The same inputs give the same bytes, so that a digest of the result is stable: entries are sorted, times are
//     zero, inode numbers are counted, and the compressor runs in one thread.
//   - Key changes when one of the inputs does.
//
// # Concurrency
//
// There is no state: builds may run side by side. Build reads and compresses some 40 MB in about a second; callers keep
// the result under Key.
//
// # What it must not know
//
// What a version, a store or a node is. It reads an image through io/fs and resolves symbolic links within that file
// system.
package initramfs
