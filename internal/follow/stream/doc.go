// Package stream carries the declared state from heads to image servers: a head sends its state, and then what changes.
//
// # Concepts
//
// The stream is one HTTP answer of lines in JSON that never ends (docs/formats/peer.md). A server says which state it
// has. If the head knows that one, it sends the difference, otherwise all. Each message has the digest of the state
// after it, so that both ends prove to have the same one. An image server gets what is declared for all, and what is
// declared for its own nodes.
//
// # Which state holds
//
// Revisions of one shared state only grow. A head may be behind: it may have lost its connection to the others. So it
// sends a state that is no later one of the same shared state, which happens after the shared state was put back from a
// copy or made anew, only when it has just read it there.
//
// # What it must not know
//
// Where a head has its state from, and what a server does with it.
package stream
