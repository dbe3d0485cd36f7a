// Package vfs is the contract between what serves a file tree (a protocol: NFS, FUSE) and what
// holds it (a replica, a version, a plain directory). It holds words only, no code that does I/O,
// and must not know images, clusters or any protocol.
//
// # Handles
//
// Every object is named by a Handle: at most 64 opaque bytes that stay valid across restarts
// of the server. There is no open and no close, so no call has state to lose. A handle whose
// object is gone for good yields ESTALE; a handle whose object was replaced, and whose bytes are
// still retained, goes on working; its StatFS has no Bytes.
//
// # Credentials
//
// The FS decides every permission, as a kernel does, from the Cred of the call. UID 0 passes all
// permission checks (there is no squashing: a node's root is root of its own replica), but not
// EROFS. Because no call knows of an earlier open, two rules are looser than POSIX, as in the Linux
// kernel's NFS server: the owner of a file may always Read and Write it and set its size, and
// execute permission is enough to Read.
//
// # Errors
//
// Every error returned is an Errno of the closed list in this package. Anything an implementation
// cannot express is EIO, logged where it happens.
//
// # Durability
//
// When a call that changes names or attributes returns nil, the change survives a crash of the
// server. Written data survives when it was written with FileSync or DataSync, or after a Commit.
// Written data that did not survive is announced by a new Verifier.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Each call is atomic towards the others.
package vfs

// FS is one file tree as one client sees it.
type FS interface {
	// Root names the top directory.
	Root() Handle

	// Attr fills a with what stat would tell of h.
	Attr(h Handle, a *Attr) error

	// SetAttr changes what s asks for, all or nothing. When s.Guard is set and differs from the
	// object's ctime, nothing changes and the error is EAGAIN (NFS3ERR_NOT_SYNC).
	SetAttr(c *Cred, h Handle, s *SetAttr) (Change, error)

	// Access tells which of the wanted permissions c has on h; see the Access constants.
	Access(c *Cred, h Handle, want uint32, a *Attr) (granted uint32, err error)

	// Lookup finds name in dir and fills a with its attributes. "." and ".." are understood; ".."
	// of the root is the root.
	Lookup(c *Cred, dir Handle, name string, a *Attr) (Handle, error)

	// Readlink returns a symbolic link's target; EINVAL when h is none.
	Readlink(c *Cred, h Handle) (string, error)

	// Read reads into p from off. It returns fewer bytes than len(p) only at the end of the file,
	// and then eof is true; eof may also be true when exactly the last byte was read.
	Read(c *Cred, h Handle, p []byte, off uint64) (n int, eof bool, err error)

	// Write writes p at off, growing the file as needed, and makes it as durable as s asks.
	Write(c *Cred, h Handle, p []byte, off uint64, s Stability) (Change, error)

	// Commit makes all earlier writes to h durable.
	Commit(c *Cred, h Handle) (Change, error)

	// Verifier changes whenever unsynced writes may have been lost (the server restarted).
	Verifier() [8]byte

	// Create makes a regular file; see CreateMode. With Exclusive, a file that was made by the same
	// Verifier before is returned as if it had been made now.
	Create(c *Cred, dir Handle, name string, how *Create) (Made, error)
	Mkdir(c *Cred, dir Handle, name string, s *SetAttr) (Made, error)
	Symlink(c *Cred, dir Handle, name, target string, s *SetAttr) (Made, error)
	// Mknod makes a device, FIFO or socket. Devices need UID 0.
	Mknod(c *Cred, dir Handle, name string, n *Node, s *SetAttr) (Made, error)
	// Link makes a further name for h. EISDIR for directories is EPERM as in link(2).
	Link(c *Cred, h Handle, dir Handle, name string) (LinkChange, error)

	// Remove unlinks a non-directory (EISDIR otherwise), Rmdir an empty directory.
	Remove(c *Cred, dir Handle, name string) (Change, error)
	Rmdir(c *Cred, dir Handle, name string) (Change, error)
	// Rename moves from/fromName to to/toName with the semantics of rename(2). Change values are
	// those of the two directories.
	Rename(c *Cred, from Handle, fromName string, to Handle, toName string) (RenameChange, error)

	// ReadDir calls yield for the entries of dir after cookie (0: from the start), "." and ".."
	// included, until yield returns false or the directory ends; it returns true at the end. A
	// cookie belongs to a name for as long as the name exists, so a listing that is resumed
	// neither repeats nor skips names that existed all the time. Cookies are never 0 (start),
	// 1 (".") is after dot, 2 after dot-dot. The Handle and Attr are filled only when plus asks
	// for them; a must not be kept. yield runs without locks of the FS being needed by other calls.
	ReadDir(c *Cred, dir Handle, cookie uint64, plus Plus, yield func(*DirEntry) bool) (end bool, err error)

	// StatFS tells room and limits.
	StatFS(h Handle) (StatFS, error)
}

// XattrReader is implemented by trees that can show extended attributes. NFSv3 cannot carry them
// (RFC 8276 gives them to NFSv4.2); FUSE does.
type XattrReader interface {
	// Xattr returns the value of one attribute; ENODATA when there is none.
	Xattr(h Handle, name string) ([]byte, error)
	// Xattrs lists the names.
	Xattrs(h Handle) ([]string, error)
}

// Sharer is implemented by trees that have files whose bytes never change, as plain files of this machine.
type Sharer interface {
	// Share opens the bytes of h for c, who may read them. When it returns false, whatever the reason, Read is to be asked.
	Share(c *Cred, h Handle) (Shared, bool)
}

// Shared is an open file. It has the bytes of a regular file, no more and no fewer; nobody may write to it.
type Shared interface {
	// Descriptor is valid until Release.
	Descriptor() int
	Release()
}

// Pather is implemented by trees that can tell where an object stands, for logs.
type Pather interface {
	// Path returns the path of h from the top, with a leading slash; ok is false when it has none.
	Path(h Handle) (path string, ok bool)
}

// HandleMax is the largest handle in bytes: NFS3_FHSIZE, RFC 1813 section 2.4.
const HandleMax = 64

// Handle names one object of one FS. It is a value: comparable, usable as a map key.
type Handle struct {
	n uint8
	b [HandleMax]byte
}

// MakeHandle returns the handle with the given bytes; ok is false when there are more than HandleMax.
func MakeHandle(b []byte) (h Handle, ok bool) {
	if len(b) > HandleMax {
		return h, false
	}
	h.n = uint8(copy(h.b[:], b))
	return h, true
}

// Bytes returns the handle's bytes. They alias h and must not be changed.
func (h *Handle) Bytes() []byte { return h.b[:h.n] }

// IsZero reports whether h is the zero Handle, which names nothing.
func (h Handle) IsZero() bool { return h.n == 0 }

// Type is the kind of an object, with the numbers of ftype3 (RFC 1813 section 2.5).
type Type uint8

// The types of objects.
const (
	Regular     Type = 1
	Directory   Type = 2
	BlockDevice Type = 3
	CharDevice  Type = 4
	Symlink     Type = 5
	Socket      Type = 6
	FIFO        Type = 7
)

// Time is a time stamp with nanoseconds; Sec counts from the Unix epoch.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// Attr is what stat tells of an object.
type Attr struct {
	Type  Type
	Mode  uint32 // permission bits and setuid, setgid, sticky: 07777
	Nlink uint32
	UID   uint32
	GID   uint32
	Size  uint64 // bytes
	Used  uint64 // bytes on disk
	Major uint32 // devices only
	Minor uint32
	FSID  uint64
	ID    uint64 // file id, unique and stable within the FS
	Atime Time
	Mtime Time
	Ctime Time
}

// Which attributes a SetAttr changes.
const (
	SetMode = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime    // to SetAttr.Atime
	SetMtime    // to SetAttr.Mtime
	SetAtimeNow // to the server's clock
	SetMtimeNow
)

// SetAttr is a change of attributes; Valid tells which fields count.
type SetAttr struct {
	Valid uint32
	Mode  uint32
	UID   uint32
	GID   uint32
	Size  uint64
	Atime Time
	Mtime Time
	Guard *Time
}

// Brief is what weak cache consistency needs of an object before a change (RFC 1813 section 2.6, wcc_attr).
type Brief struct {
	Size  uint64
	Mtime Time
	Ctime Time
}

// Change is what a call did to one object: its Brief before and its Attr after, taken atomically with
// the change. Valid is false when the call failed before it looked.
type Change struct {
	Valid  bool
	Before Brief
	After  Attr
}

// Made is the result of a call that makes an object.
type Made struct {
	Handle Handle
	Attr   Attr
	Dir    Change
}

// LinkChange is the result of Link: the object's attributes and the directory's change.
type LinkChange struct {
	Attr Attr
	Dir  Change
}

// RenameChange is the result of Rename. Both are the same when from and to are one directory.
type RenameChange struct {
	From, To Change
}

// Stability tells how durable a write must be when it returns, with the numbers of stable_how
// (RFC 1813 section 3.3.7).
type Stability uint8

// The stabilities.
const (
	Unstable Stability = 0
	DataSync Stability = 1
	FileSync Stability = 2
)

// CreateMode tells what an existing name means to Create, with the numbers of createmode3.
type CreateMode uint8

// The create modes: take it (and apply SetAttr.Size), EEXIST, or EEXIST unless it has our verifier.
const (
	Unchecked CreateMode = 0
	Guarded   CreateMode = 1
	Exclusive CreateMode = 2
)

// Create tells Create how.
type Create struct {
	Mode     CreateMode
	Attr     SetAttr
	Verifier [8]byte // Exclusive only
}

// Node tells Mknod what to make.
type Node struct {
	Type  Type // CharDevice, BlockDevice, FIFO or Socket
	Major uint32
	Minor uint32
}

// Plus tells ReadDir what to fill in beside names.
type Plus uint8

// Names only, or handles and attributes too.
const (
	NamesOnly Plus = iota
	WithAttr
)

// DirEntry is one entry of a listing.
type DirEntry struct {
	Name   string
	ID     uint64
	Cookie uint64
	Handle Handle
	Attr   Attr
}

// StatFS is what statfs tells, in bytes and files.
type StatFS struct {
	Bytes, BytesFree, BytesAvail uint64
	Files, FilesFree, FilesAvail uint64
	NameMax                      uint32
}

// The permissions of Access, with the numbers of RFC 1813 section 3.3.4.
const (
	AccessRead    = 0x01
	AccessLookup  = 0x02
	AccessModify  = 0x04
	AccessExtend  = 0x08
	AccessDelete  = 0x10
	AccessExecute = 0x20
)
