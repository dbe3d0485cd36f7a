// Package oncrpc serves ONC RPC version 2 (RFC 5531) over TCP, and codes and decodes XDR (RFC 4506) for its programs.
// It must not know any program: NFS and MOUNT are tables of procedures to it.
//
// # The way of a call
//
// One goroutine reads a connection. It reads all that the socket holds into one buffer, serves every whole record in
// it, and sends all replies with one write. Arguments are decoded in place, and results are appended to the reply
// buffer: nothing is copied in between. An idle connection holds no buffers. They come from a pool when the socket
// becomes readable, and go back before the goroutine waits.
//
// The Cost of a procedure says how it runs:
//
//   - A Quick procedure runs on the reading goroutine.
//   - A Slow procedure, which usually waits for a disk, runs on a goroutine of its own. The number of these is bounded
//     for each connection. A sync therefore delays no other call, and replies may be sent out of order, as RPC allows.
//   - A Patient procedure, which waits for a disk only when a cache misses, runs on the reading goroutine. If it takes
//     longer than a few milliseconds, another goroutine takes over the reading (handover.go). The common case costs no
//     switch of goroutines, and a cache miss delays no other call. To run every read on a goroutine of its own was
//     simpler, but took a third of the time of a small read.
//
// Quick calls that are read together are answered and counted together. Each of them counts as taking the time of all
// (conn.countBatch).
//
// Large data that never changes is not copied at all: Call.Splice ends a reply with pages of a file, which go through a
// pipe to the socket (splice.go).
//
// # Bounds
//
//   - A connection holds at most one receive buffer with an unfinished record.
//   - It has at most Options.InFlight slow calls. Of all slow calls, Options.Running run at a time, because each may
//     block a thread and Go ends a process that has 10,000 threads.
//   - It is not read while more than Options.Queue bytes of its replies wait to be sent.
//   - Buffers above 64 KiB count against Options.Memory. A connection that finds it used up waits. A connection with
//     an unfinished record or an unsent reply is closed after Options.Stall.
//   - Replies for repeated calls take at most 128 KiB for each client, and Options.Replies in all.
//   - A connection is closed after 128 calls that were rejected or denied.
//   - With Options.Conns connections open, a new one closes the one that has been idle longest.
//
// # Concurrency
//
// One goroutine at a time is the reader of a connection. The fields of conn that are marked so belong to it.
//
// Lock order:
//
//  1. Server.mu
//  2. conn.mu
//  3. the locks of sender, pool, pipes and replies, of which no two are held together
package oncrpc
