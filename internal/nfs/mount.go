package nfs

import (
	"dim/internal/oncrpc"
)

// pathMax is MNTPATHLEN (RFC 1813 section 5.1.3).
const pathMax = 1024

func (s *Server) mountProcs() []oncrpc.Proc {
	return []oncrpc.Proc{
		{Name: "NULL", Serve: func(*oncrpc.Call) {}},
		{Name: "MNT", Cost: oncrpc.Slow, Serve: s.serve(mnt)},
		{Name: "DUMP", Serve: s.serve(dump)},
		{Name: "UMNT", Serve: s.serve(umnt)},
		{Name: "UMNTALL", Serve: s.serve(umntall)},
		{Name: "EXPORT", Serve: s.serve(export)},
	}
}

// mnt is MOUNT procedure 1.
func mnt(c *call) {
	path := c.Args.String(pathMax)
	if !c.Args.OK() {
		return
	}
	fs, err := c.client.Mount(c.Context(), path)
	if err != nil {
		c.srv.log.Debug("mount refused", "client", c.Peer.Remote, "path", path, "error", err)
		c.refusal(err)
		c.Fail()
		c.Reply.Uint32(mountStatus(err))
		return
	}
	h := fs.Root()
	c.Reply.Uint32(0)
	putHandle(&c.Reply, &h)
	c.Reply.Uint32(1) // one flavor
	c.Reply.Uint32(oncrpc.AuthSys)
}

// mountStatus turns an error into a mountstat3. Its numbers are those of nfsstat3, with the exception of SERVERFAULT.
func mountStatus(err error) uint32 {
	switch st := statusOf(err); st {
	case errPerm, errNoEnt, errIO, errAcces, errNotDir, errInval, errNameTooLong, errNotSupp:
		return uint32(st)
	case errStale, errBadHandle:
		return uint32(errNoEnt)
	}
	return 10006 // MNT3ERR_SERVERFAULT
}

// dump is MOUNT procedure 2. The list is empty: a list of mounts would be wrong after the first crash of a client.
func dump(c *call) { c.Reply.Uint32(0) }

// umnt is MOUNT procedure 3.
func umnt(c *call) { c.Args.Opaque(pathMax) }

// umntall is MOUNT procedure 4.
func umntall(*call) {}

// export is MOUNT procedure 5. The lists of groups are empty.
func export(c *call) {
	for _, path := range c.srv.exports.Paths() {
		c.Reply.Uint32(1)
		c.Reply.String(path)
		c.Reply.Uint32(0)
	}
	c.Reply.Uint32(0)
}
