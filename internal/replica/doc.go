// Package replica is a node's root: one version of an image, the files rendered for the node, and the layer of
// what the node itself wrote, seen as one tree. A Replica is a vfs.FS; a Set is all replicas of one image
// server.
//
// # How it is put together
//
// A version is a lower.Index, shared by all replicas that follow it. What a replica has beyond it is kept in
// dentries: a dentry is a path at which the layer has an entry or a whiteout, at which a node file stands, or
// below which one of these is. A call resolves a handle to a vnode: an object of the layer, a node file, an
// entry of the version, or an entry that a switch has replaced. Most calls of most nodes meet no dentry.
// Dentries are made from one walk over the layer by the first call that needs them, and maintained from then
// on. The attributes of the layer's entries are read from the disk each time.
//
// The layer is a directory in the form of package layer (docs/formats/layer.md). Ids and handles are computed
// (docs/formats/handle.md). Beside the layers lie the journal (switches.log), a
// format file, and a file to sync with.
//
// An Edit is how package layers changes a layer for an administrator.
//
// # Invariants
//
//   - A name appears in a layer only with everything that belongs to it: content, owner, mode, times and id.
//     The object is made without a name and then linked, or under a temporary name in work/ and then renamed. A
//     crash leaves the state before or after, and files in work/, which the next scan removes.
//   - Copying a file up changes no time of its directory, for the node has changed nothing.
//   - Every step of a call on the disk leaves a tree that shows either the old state or the new one.
//   - A handle means the same object before and after copy-up, rename, switch and restart. At any time one id
//     means one object of a replica.
//   - A replica shows one view (version and node files) at a time. A call that reads a directory in several
//     batches ends early if a switch comes between them.
//   - ctimes only grow. Those of what is not in the layer are stamps of switches.
//   - A switch that moves entries of a layer is announced in the journal before, and recorded as done before
//     the node can write again. So it is completed after a crash, and never applied to what was written after
//     it.
//   - Before a layer is first written to, the journal says over which version it is.
//   - A snapshot gets its name when all of it is on disk, and never changes. A name that begins with "#" is
//     none of a snapshot.
//
// # Concurrency
//
// All methods may be called concurrently. Replica.mu orders the calls of one replica. Calls that read hold it
// shared. Calls that change names or attributes hold it exclusively, and so does whoever copies the layer to a
// snapshot or back. It is not held while file content is read, written, copied up or synced: blobs never
// change, and a file of the layer stays the same file whatever becomes of its name. A lock of each file orders
// its writers. A reply waits for the disk outside all locks, and those that wait at the same time share one
// flush (package commit).
//
// Lock order:
//
//  1. Set.removing
//  2. Set.switching
//  3. object.write
//  4. Replica.mu; several at a time only by the holder of Set.switching
//  5. journal.mu, Set.mu, indexes.mu, rendered.mu or lingering.mu, never two of these at a time
//  6. the locks of package fds
//
// Replica.sweeping is taken alone.
//
// # What it must not know
//
// Protocols, the cluster's description, what a node file is made from, and which version a replica ought to
// follow. Access is decided by mode bits; POSIX ACLs of a version are kept and shown but not enforced here.
package replica
