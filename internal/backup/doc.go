// Package backup writes what a server has on disk to a directory or into one stream, proves that such a backup is what
// it was, and writes it back. docs/formats/backup.md is the specification.
//
// # Concepts
//
// A backup has the files of a data directory under their own names, a manifest that lists them with their digests, and
// a description, backup.json, which is written last and has the digest of the manifest. Anything that lacks the
// description is not a backup. A Source gives the layers of nodes, each as it was at one moment.
//
// An entry is one file of any type. Entries come from a directory (tree), from a listing of a former backup (stored)
// or from a stream (tarReader), and go to a directory (dirSink), a stream (tarSink) or nowhere (checkSink). A recorder
// stands before each sink and writes the manifest.
//
// # Invariants
//
//   - A backup in a directory gets its name when all of it is on disk. A former backup is never changed.
//   - Versions come before trees and trees before blobs, so that whatever a version leads to is in the backup.
//   - Nothing outside the destination is written: every path is checked, and opened beneath an open directory.
//
// # What it must not know
//
// What a layer means, and who serves it.
package backup
