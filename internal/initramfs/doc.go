// Package initramfs builds what a node boots from out of an image itself: the distribution's own kernel, and an
// initramfs that holds dim-init, the drivers of network cards and the NFS client. Nothing of it comes from the machine
// that builds, and nothing need be installed in the image: no dracut, no initramfs-tools.
//
// What is chosen: the kernel that the description names, else the newest that has both its file and its modules;
// every driver for Ethernet cards (see classes.go), what those depend on, the NFS client, the buses of virtual machines,
// the description's own modules, and the firmware these name, as far as the image has it. dim-init loads of
// these what the node's hardware asks for.
//
// Invariants: the same inputs give the same bytes (entries are sorted, times are zero, inode numbers are counted, the
// compressor runs in one thread), so that a digest of the result is stable; Key changes when one of the inputs does.
//
// Build reads and compresses some 40 MB, in about a second; callers keep the result under Key. There is no state: builds
// may run side by side.
//
// It must not know what a version, a store or a node is: it sees an image as an io/fs file system with symbolic
// links, which it follows inside that file system alone.
package initramfs
