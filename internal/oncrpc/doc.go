// Package oncrpc serves ONC RPC version 2 (RFC 5531) over TCP and holds the XDR coding (RFC 4506)
// that its programs use. It must not know any program: NFS and MOUNT are tables of procedures to it.
//
// # The way of a call
//
// One goroutine reads a connection. It takes whatever the socket holds into one buffer, serves every
// whole record that lies there, and sends all the replies in one write. Arguments are decoded in
// place, results are appended to the reply buffer; nothing is copied between. An idle connection
// holds no buffers: they come from a pool when the socket becomes readable and go back before the
// goroutine waits.
//
// How a procedure is run is said by its Cost. Quick ones run on the reading goroutine. Slow ones, which
// wait for a disk as a rule, run on goroutines of their own, a bounded number of them per connection,
// so that a sync holds up no other call; their replies come out of order, as RPC allows. Patient
// ones, which wait for a disk only when a cache misses, run on the reading goroutine too, but when one
// takes longer than a few milliseconds another goroutine takes over the reading ("relief", relief.go):
// the common case pays for no hand-over and the bad case holds up nobody. Handing every read to
// a goroutine of its own was the simple way; it cost a third of a small read.
//
// Quick calls that are read together are answered and counted together: each took as long as all of them (conn.settle).
//
// Large data that never changes is not copied either: Call.Splice ends a reply with pages of a file, which go through a pipe
// to the socket (splice.go).
//
// # Bounds
//
// A connection holds at most one receive buffer with an unfinished record, Options.InFlight slow calls (of all of them
// Options.Running run at a time: each may block a thread, and Go ends a process at 10,000 threads), and
// Options.Queue bytes of replies that the client has not taken; then it is not read any more. All
// buffers above 64 KiB count against Options.Memory; who finds it used up waits, and connections
// that sit on an unfinished record or an untaken reply for longer than Options.Stall are closed.
// Replies for repeated calls are kept up to 128 KiB a client and Options.Replies in all.
// At Options.Conns connections the one that is idle longest makes room.
//
// # Concurrency
//
// The role of the reader belongs to one goroutine at a time; all fields of conn that say so are its. Lock
// order: Server.mu, then conn.mu; the locks of sender, pool, pipes and replies are leaves.
package oncrpc
