// Package replicate brings versions from the stores of other servers into this one, over HTTP.
//
// # Concepts
//
// A source is another server; a Handler is what it answers with. A Puller asks for what the store lacks of a version:
//
//  1. the trees, which differ from those of a version that both have. The source compares the two and sends the trees
//     that are new, in one answer, each as its difference to the old one.
//  2. the blobs that are named in those trees and are not in the store. Many small blobs travel in one answer. A file
//     of more than 1 MiB travels as its difference to the file that had its path before, if both sides have that.
//
// Servers that get a version at the same time exchange its parts: see exchange.go. So a source is either one that has
// the whole version, or a partial one.
//
// docs/formats/peer.md is the specification of both.
//
// # Invariants
//
// A name is a digest, so a source cannot deliver anything but what was asked for. What does not have the digest that it
// was asked for is not stored. The trees of a version are stored after all its blobs, and the version itself last: the
// store never has a version of which something is missing. If a version is to be served while it arrives, its trees
// are stored first, and a blob that somebody opens comes before all others: see demand.go.
//
// # Interruptions
//
// Blobs are stored in batches, so what has arrived stays when a pull ends early, and is not asked for again. That also
// holds when the process is killed: the next pull stores the blobs that were not committed (store.Resume), and asks for
// what is left of a large file (store.Batch.PutPart). When a connection breaks in the middle of a large file or of a
// listing, the next request asks for the rest, from any source.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. A Puller pulls one version at a time.
//
// # What it must not know
//
// Which versions are needed, who may ask, and how connections are secured.
package replicate

import (
	"errors"
	"fmt"
)

const (
	// large is the size, in bytes, above which a file travels alone.
	large = 1 << 20
	// maxTree is the size of the largest tree that is accepted, in bytes: a directory of a million names.
	maxTree = 128 << 20
	// maxBases bounds how many bases a request may name.
	maxBases = 8
	// maxBlobs bounds how many blobs a request may name.
	maxBlobs = 4096
	// maxRequest is the size of the largest body of a request, in bytes.
	maxRequest = 64 + (maxBlobs+1)*32
	// window is the size of the zstd window, in bytes. It bounds what a decoder allocates.
	window = 2 << 20
)

// The paths of requests.
const (
	treesPath = "/peer/v1/trees"
	blobsPath = "/peer/v1/blobs"
	filePath  = "/peer/v1/file"
)

// holdersHeader has, in the answer with trees, the names of servers that have the version.
const holdersHeader = "Dim-Holders"

// maxHolders bounds the servers that an answer names.
const maxHolders = 8

// errRefused is wrapped by errors about an answer that no honest source gives.
var errRefused = errors.New("refused")

// errAbsent is wrapped by errors about something that a source does not have.
var errAbsent = errors.New("the source does not have it")

func refusef(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errRefused}, args...)...)
}
