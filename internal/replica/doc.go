// Package replica is a node's root: one version, the node's files, the node's layer, seen as one tree.
package replica
