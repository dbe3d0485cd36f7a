package nfs

import (
	"log/slog"
	"time"

	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// Server serves Exports with the programs NFS and MOUNT.
type Server struct {
	exports Exports
	log     *slog.Logger
	refused refusals
	slow    slowLog
}

// New returns a Server of the exports.
func New(exports Exports, opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{exports: exports, log: opt.Log}
	s.refused.log = opt.Log
	return s
}

// Programs returns what an oncrpc.Server needs to serve s.
func (s *Server) Programs() []oncrpc.Program {
	return []oncrpc.Program{
		{Name: "nfs", Number: 100003, Version: 3, Procs: s.procs()},
		{Name: "mount", Number: 100005, Version: 3, Procs: s.mountProcs()},
	}
}

func (s *Server) procs() []oncrpc.Proc {
	slow := func(name string, f procedure) oncrpc.Proc {
		return oncrpc.Proc{Name: name, Cost: oncrpc.Slow, Serve: s.serve(f)}
	}
	once := func(name string, f procedure) oncrpc.Proc {
		return oncrpc.Proc{Name: name, Cost: oncrpc.Slow, Once: true, Serve: s.serve(f)}
	}
	quick := func(name string, f procedure) oncrpc.Proc {
		return oncrpc.Proc{Name: name, Cost: oncrpc.Quick, Serve: s.serve(f)}
	}
	patient := func(name string, f procedure) oncrpc.Proc {
		return oncrpc.Proc{Name: name, Cost: oncrpc.Patient, Serve: s.serve(f)}
	}
	return []oncrpc.Proc{
		{Name: "NULL", Serve: func(*oncrpc.Call) {}},
		quick("GETATTR", getattr),
		once("SETATTR", setattr),
		quick("LOOKUP", lookup),
		quick("ACCESS", access),
		quick("READLINK", readlink),
		patient("READ", read),
		slow("WRITE", write),
		once("CREATE", create),
		once("MKDIR", mkdir),
		once("SYMLINK", symlink),
		once("MKNOD", mknod),
		once("REMOVE", remove),
		once("RMDIR", rmdir),
		once("RENAME", rename),
		once("LINK", link),
		patient("READDIR", readdir),
		patient("READDIRPLUS", readdirplus),
		patient("FSSTAT", fsstat),
		quick("FSINFO", fsinfo),
		quick("PATHCONF", pathconf),
		slow("COMMIT", commit),
	}
}

// procedure serves one call: it decodes c.Args, and appends a status and results to c.Reply. If the arguments do not
// decode, it returns without a reply.
type procedure func(c *call)

// call is one call of NFS or MOUNT, with the memory that procedures need.
type call struct {
	*oncrpc.Call
	srv    *Server
	client Client
	fs     vfs.FS
	done   func() // Export.Done of fs
	h      vfs.Handle
	cred   vfs.Cred
	attr   vfs.Attr
	post   vfs.Attr // of a second object
	set    vfs.SetAttr
	guard  vfs.Time
	create vfs.Create
	list   listing
	slow   func(string, time.Duration) // c.logSlow, kept from call to call
}

func (s *Server) serve(f procedure) func(*oncrpc.Call) {
	return func(rpc *oncrpc.Call) {
		c := s.begin(rpc)
		if c == nil {
			return
		}
		f(c)
		if c.done != nil {
			c.done()
		}
	}
}

// begin returns the memory of a call, or nil after it has denied the call.
func (s *Server) begin(rpc *oncrpc.Call) *call {
	client, err := s.client(rpc.Peer)
	if err != nil {
		s.refused.add(&s.refused.port, "port", rpc.Peer.Remote)
		rpc.Deny()
		return nil
	}
	c, _ := rpc.Local.(*call)
	if c == nil {
		c = new(call)
		c.slow = c.logSlow
		rpc.Local = c
	}
	c.Call, c.srv, c.client, c.fs, c.done = rpc, s, client, nil, nil
	c.Slow = c.slow
	c.cred = vfs.Cred{UID: rpc.Cred.UID, GID: rpc.Cred.GID, Groups: rpc.Cred.Groups}
	if rpc.Cred.Flavor == oncrpc.AuthNone {
		c.cred.UID, c.cred.GID = nobody, nobody
	}
	return c
}

// nobody is the user and group of calls without a credential.
const nobody = 65534

// find sets c.fs to the tree of c.h.
func (c *call) find() status {
	x, err := c.client.Find(c.h)
	if err != nil {
		return c.refusal(err)
	}
	c.fs, c.Meter, c.done = x.FS, x.Meter, x.Done
	return ok
}

// refusal turns an error of a Client into a status, and counts a call for a tree that the client may not use.
func (c *call) refusal(err error) status {
	st := c.status(err)
	if st == errAcces || st == errPerm {
		c.srv.refused.add(&c.srv.refused.export, "export", c.Peer.Remote)
	}
	return st
}
