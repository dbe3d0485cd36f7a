// Package nfs serves file trees by NFS version 3 and MOUNT version 3 (RFC 1813) on one TCP port.
// It translates between the wire and vfs.FS and holds no state of files: what a handle means is the tree's
// business. It must not know images, clusters, or where a tree comes from.
//
// # Files
//
// Procedures are grouped by what they do: attr.go, lookup.go, read.go, write.go, create.go, remove.go,
// readdir.go, fsinfo.go, mount.go. wire.go codes the types that they share, status.go is the only place where a vfs.Errno
// becomes an nfsstat3.
//
// # Every call
//
// begin takes the Client of the connection, which Exports has returned for its peer. find asks the Client for the tree of
// the handle, on every call: this is what keeps a node out of other trees. A procedure decodes all its arguments, calls the tree once (twice where the protocol wants
// attributes that the call does not give), and appends the results. What a procedure needs in memory is kept
// in its call value from one call to the next, so that a call allocates only the names that the tree may keep.
//
// # Choices
//
// READDIR cookies are the tree's, so the cookie verifier is constant and not checked. A name is anything
// but empty, with '/' or NUL in it (NFS3ERR_INVAL), or longer than 255 bytes. READ may return less
// than asked for when the server is short of memory. Times before 1970 or after 2106, which the protocol
// cannot carry, are shown as the nearest ones that it can. There is no NLM: clients mount with nolock.
package nfs
