// Package replica is a node's root: one version of an image, the files rendered for the node, and the layer of what
// the node itself wrote, seen as one tree. A Replica is a vfs.FS; a Set is all replicas of one image server.
//
// # How it is put together
//
// A version is a lower.Index, shared by all replicas that follow it. What a replica has beyond it is kept in places: a
// place is a path at which the layer has an entry or a whiteout, a node file stands, or something below does. A call
// resolves a handle to a spot (a place, or a plain entry of the version), and most calls of most nodes never meet a place.
// Places are made by the first call that needs them, from one walk over the layer, and maintained from then on; what
// the layer's entries look like is asked of the disk each time.
//
// The layer is a directory in overlayfs's form (docs/formats/layer.md), ids and handles are computed
// (docs/formats/handle.md), and the journal, switches.log, is all that is kept besides.
//
// # Invariants
//
//   - A name appears in a layer only with everything it is: content, owner, mode, times and id are made without a name, which
//     then is linked, or under a temporary one in work/ that is renamed into place. A crash leaves the state before or after, and files in work/, which the next
//     scan removes. Copying a file up moves no directory's time, for the node has changed nothing.
//   - Every step of a call on the disk leaves a tree that shows either the old state or the new one.
//   - A handle means the same object before and after copy-up, rename, switch and restart. One id never means two
//     objects of one replica at a time.
//   - A replica shows one view (version and node files) at a time; a call that takes several looks ends early when a switch
//     comes between them.
//   - ctimes only grow. Those of what is not in the layer are stamps of switches.
//   - A switch that moves entries of a layer is announced in the journal before, and noted as done before the node can
//     write again. So it is completed after a crash, and never applied to what was written after it.
//   - Before a layer is first written to, the journal says over which version it is.
//   - A snapshot has its name when all of it is on disk, and never changes. What has a name that begins with "#" is none.
//
// # Concurrency
//
// All methods may be called concurrently. Replica.mu orders the calls of one replica: shared by those that look, exclusive
// for those that change names or attributes, and while the layer is copied to a snapshot or back. It is not held while file content is read, written,
// copied up or synced: blobs never change, a layer's file stays the same file whatever becomes of its name, and each has a lock of its own for
// writers. A reply waits for the disk outside all locks, and those that wait at the same time share one flush (package commit).
//
// Lock order: Set.switching, then object.write, then Replica.mu (several at a time only by the holder of Set.switching), then journal.mu,
// Set.mu, indexes.mu, rendered.mu, lingering.mu and the locks of fds, none of which is held while another of them is taken, but that
// those of fds are taken under lingering.mu. Replica.sweeping is taken alone.
//
// # What it must not know
//
// Protocols, the cluster's description, what a node file is made from, and which version a replica ought to follow. Access
// is decided by mode bits; POSIX ACLs of a version are kept and shown but not enforced here.
package replica
