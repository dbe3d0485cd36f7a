package nfs

import (
	"dim/internal/vfs"
)

// status is an nfsstat3 (RFC 1813 section 2.6).
type status uint32

const (
	ok             status = 0
	errPerm        status = 1
	errNoEnt       status = 2
	errIO          status = 5
	errAcces       status = 13
	errExist       status = 17
	errXDev        status = 18
	errNotDir      status = 20
	errIsDir       status = 21
	errInval       status = 22
	errFBig        status = 27
	errNoSpc       status = 28
	errROFS        status = 30
	errMLink       status = 31
	errNameTooLong status = 63
	errNotEmpty    status = 66
	errDQuot       status = 69
	errStale       status = 70
	errBadHandle   status = 10001
	errNotSync     status = 10002
	errNotSupp     status = 10004
	errTooSmall    status = 10005
	errBadType     status = 10007
	errJukebox     status = 10008
)

// statusOf turns an error into an nfsstat3. No other function does.
func statusOf(err error) status {
	if err == nil {
		return ok
	}
	switch vfs.ErrnoOf(err) {
	case vfs.EPERM:
		return errPerm
	case vfs.ENOENT, vfs.ENODATA:
		return errNoEnt
	case vfs.EACCES, vfs.EBUSY: // JUKEBOX, the nearest to busy, would make clients retry for ever
		return errAcces
	case vfs.EEXIST:
		return errExist
	case vfs.EXDEV:
		return errXDev
	case vfs.ENOTDIR:
		return errNotDir
	case vfs.EISDIR:
		return errIsDir
	case vfs.EINVAL:
		return errInval
	case vfs.EFBIG:
		return errFBig
	case vfs.ENOSPC:
		return errNoSpc
	case vfs.EROFS:
		return errROFS
	case vfs.EMLINK:
		return errMLink
	case vfs.ENAMETOOLONG:
		return errNameTooLong
	case vfs.ENOTEMPTY:
		return errNotEmpty
	case vfs.EDQUOT:
		return errDQuot
	case vfs.ESTALE:
		return errStale
	case vfs.EBADHANDLE:
		return errBadHandle
	case vfs.EAGAIN:
		return errNotSync
	case vfs.ELATER:
		return errJukebox
	case vfs.EOPNOTSUPP:
		return errNotSupp
	}
	return errIO
}

// status turns an error of the tree into a status. It logs the cause of what the client sees as EIO.
func (c *call) status(err error) status {
	st := statusOf(err)
	if st == errIO {
		c.srv.log.Debug("input/output error", "client", c.Peer.Remote, "xid", c.XID, "error", err)
	}
	return st
}
