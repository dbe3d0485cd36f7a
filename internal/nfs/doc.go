// Package nfs serves file trees by NFS version 3 and MOUNT version 3 (RFC 1813) on one TCP port.
//
// It translates between the wire and vfs.FS, and holds no state of files: the trees define what a handle means. It must
// not know images, clusters, or where a tree comes from.
//
// # Files
//
// Procedures are grouped by what they do: attr.go, lookup.go, read.go, write.go, create.go, remove.go, readdir.go,
// fsinfo.go, mount.go. wire.go codes the types that they share. status.go is the only place where a vfs.Errno
// becomes an nfsstat3. exports.go has the interfaces that the user of the package implements.
//
// # Every call
//
//  1. begin takes the Client of the connection, which Exports has returned for its peer.
//  2. The procedure decodes all its arguments.
//  3. find asks the Client for the tree of the handle. This happens on every call, and keeps a client out of the trees
//     of others.
//  4. The procedure calls the tree once, or twice where the protocol wants attributes that the call does not return.
//  5. It appends the results.
//
// The memory that procedures need is kept in a call value from one call to the next, so that a call allocates only the
// names that the tree may keep.
//
// # Choices
//
//   - READDIR cookies come from the tree, so the cookie verifier is constant and not checked.
//   - A name must not be empty, have more than 255 bytes, or contain '/' or NUL (NFS3ERR_INVAL).
//   - READ may return less than was asked for when the server is short of memory.
//   - Times before 1970 and after 2106, which the protocol cannot carry, are sent as the nearest ones that it can.
//   - There is no NLM: clients mount with nolock.
package nfs
