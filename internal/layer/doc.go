// Package layer reads and writes the form that a node's layer has on disk: a directory tree as overlayfs uses it for
// its upper directory, with ids in extended attributes, and beside it what was set aside and the snapshots.
// docs/formats/layer.md is the specification.
//
// # Parts
//
//   - Dir is an open directory, Entry one entry of it with its extended attributes.
//   - Home names the directories of one replica.
//   - Copy copies a layer, to a snapshot or back. Swap puts a copy in the place of a layer.
//   - SetAside and SnapshotInfo describe what the saved area and the snapshots hold.
//
// # Invariants
//
//   - Paths start at an open directory. No symbolic link is followed, and no path leads out of the directory.
//   - A tree has at most a few directories open at a time, however deep it is.
//
// # Concurrency
//
// The package has no locks and no state. The caller keeps others from changing what it works on.
//
// # What it must not know
//
// Which version a replica follows, file handles, who is served, when a layer is copied or set aside.
package layer
