// Package vfs is the contract between the protocols that serve a file tree (NFS, FUSE) and the packages that hold
// one (a replica, a version, a plain directory). It has no code that does I/O, and must not know images, clusters
// or any protocol.
//
// # Handles
//
// A Handle names an object: at most 64 opaque bytes that remain valid across restarts of the server. There is no
// open and no close, so no state is lost between calls. The handle of an object that no longer exists yields
// ESTALE. The handle of an object that was replaced, and whose bytes are retained, remains valid. Its StatFS has no
// Bytes.
//
// # Credentials
//
// The FS checks every permission, as a kernel does, with the Cred of the call. UID 0 passes all permission checks
// (there is no squashing: root of a node is root of its own replica), but not EROFS. Because no call refers to an
// earlier open, two rules are looser than POSIX, as in the NFS server of Linux:
//
//   - The owner of a file may always Read and Write it and set its size.
//   - Execute permission is enough to Read.
//
// # Errors
//
// Every error is an Errno of the closed list in this package. An implementation returns EIO for any other error,
// and logs its cause.
//
// # Durability
//
// When a call that changes names or attributes returns nil, the change survives a crash of the server. Data
// survives if it was written with FileSync or DataSync, or after a Commit. A new Verifier says that other data may
// have been lost.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Each call is atomic with respect to the others.
package vfs

// FS is one file tree as one client sees it.
type FS interface {
	// Root returns the handle of the top directory.
	Root() Handle

	// Attr fills a with the attributes of h.
	Attr(h Handle, a *Attr) error

	// SetAttr makes the changes in s, all or none. If s.Guard is set and differs from the ctime of the object,
	// nothing is changed and the error is EAGAIN (NFS3ERR_NOT_SYNC).
	SetAttr(c *Cred, h Handle, s *SetAttr) (Change, error)

	// Access returns which of the wanted permissions c has on h; see the Access constants.
	Access(c *Cred, h Handle, want uint32, a *Attr) (granted uint32, err error)

	// Lookup finds name in dir and fills a with its attributes. "." and ".." are valid names; ".." of the root is
	// the root.
	Lookup(c *Cred, dir Handle, name string, a *Attr) (Handle, error)

	// Readlink returns the target of a symbolic link. The error is EINVAL if h is none.
	Readlink(c *Cred, h Handle) (string, error)

	// Read reads into p from off. It returns fewer bytes than len(p) only at the end of the file, and then eof is
	// true. eof may also be true when the last byte of p is the last byte of the file.
	Read(c *Cred, h Handle, p []byte, off uint64) (n int, eof bool, err error)

	// Write writes p at off, extends the file if needed, and makes the data durable if s says so.
	Write(c *Cred, h Handle, p []byte, off uint64, s Stability) (Change, error)

	// Commit makes all earlier writes to h durable.
	Commit(c *Cred, h Handle) (Change, error)

	// Verifier changes whenever unsynced writes may have been lost (the server restarted).
	Verifier() [8]byte

	// Create makes a regular file; see CreateMode. With Exclusive, a file that was made with the same Verifier
	// before is returned as if it had been made now.
	Create(c *Cred, dir Handle, name string, how *Create) (Made, error)
	Mkdir(c *Cred, dir Handle, name string, s *SetAttr) (Made, error)
	Symlink(c *Cred, dir Handle, name, target string, s *SetAttr) (Made, error)
	// Mknod makes a device, FIFO or socket. Devices need UID 0.
	Mknod(c *Cred, dir Handle, name string, n *Node, s *SetAttr) (Made, error)
	// Link makes a further name for h. The error for directories is EPERM, as in link(2).
	Link(c *Cred, h Handle, dir Handle, name string) (LinkChange, error)

	// Remove removes the name of an object that is no directory (else EISDIR), Rmdir an empty directory.
	Remove(c *Cred, dir Handle, name string) (Change, error)
	Rmdir(c *Cred, dir Handle, name string) (Change, error)
	// Rename moves from/fromName to to/toName with the semantics of rename(2). The result has the changes of the two
	// directories.
	Rename(c *Cred, from Handle, fromName string, to Handle, toName string) (RenameChange, error)

	// ReadDir calls yield for the entries of dir after cookie (0: from the start), with "." and "..", until yield
	// returns false or the directory ends. It returns true at the end. A cookie belongs to a name as long as the
	// name exists, so a listing that is resumed neither repeats nor omits names that existed all the time. No
	// cookie is 0. The cookie of "." is 1, that of ".." is 2. Handle and Attr are filled only if plus says so.
	// yield must not keep the entry. While yield runs, no lock is held that other calls need.
	ReadDir(c *Cred, dir Handle, cookie uint64, plus Plus, yield func(*DirEntry) bool) (end bool, err error)

	// StatFS returns sizes and limits.
	StatFS(h Handle) (StatFS, error)
}

// XattrReader is implemented by trees that have extended attributes. FUSE carries them, NFSv3 does not (RFC 8276
// adds them to NFSv4.2).
type XattrReader interface {
	// Xattr returns the value of one attribute. The error is ENODATA if there is none.
	Xattr(h Handle, name string) ([]byte, error)
	// Xattrs lists the names.
	Xattrs(h Handle) ([]string, error)
}

// Sharer is implemented by trees that have the bytes of some objects in files of this machine that never change.
type Sharer interface {
	// Share opens the bytes of h if c may read them. If it returns false, for any reason, the caller has to use Read.
	Share(c *Cred, h Handle) (Shared, bool)
}

// Shared is an open file that has exactly the bytes of a regular file. It must not be written.
type Shared interface {
	// Descriptor is valid until Release.
	Descriptor() int
	Release()
}

// Pather is implemented by trees that can return the path of an object, for logs.
type Pather interface {
	// Path returns the path of h from the root, with a leading slash. If there is none, ok is false.
	Path(h Handle) (path string, ok bool)
}

// HandleMax is the largest handle in bytes: NFS3_FHSIZE, RFC 1813 section 2.4.
const HandleMax = 64

// Handle names one object of one FS. It is a value: comparable, usable as a map key.
type Handle struct {
	n uint8
	b [HandleMax]byte
}

// MakeHandle returns the handle with the given bytes. If there are more than HandleMax, ok is false.
func MakeHandle(b []byte) (h Handle, ok bool) {
	if len(b) > HandleMax {
		return h, false
	}
	h.n = uint8(copy(h.b[:], b))
	return h, true
}

// Bytes returns the bytes of the handle. They alias h and must not be changed.
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

// Attr is the attributes of an object, as in stat(2).
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

// The bits of SetAttr.Valid.
const (
	SetMode = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime    // to SetAttr.Atime
	SetMtime    // to SetAttr.Mtime
	SetAtimeNow // to the clock of the server
	SetMtimeNow
)

// SetAttr is a change of attributes. Valid says which fields are set.
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

// Brief is the attributes before a change that weak cache consistency needs (RFC 1813 section 2.6, wcc_attr).
type Brief struct {
	Size  uint64
	Mtime Time
	Ctime Time
}

// Change is the change of one object by a call: its Brief before and its Attr after, read atomically with the
// change. Valid is false if the call failed before it had read them.
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

// LinkChange is the result of Link: the attributes of the object and the change of the directory.
type LinkChange struct {
	Attr Attr
	Dir  Change
}

// RenameChange is the result of Rename. Both changes are the same if from and to are one directory.
type RenameChange struct {
	From, To Change
}

// Stability says how durable data must be when Write returns, with the numbers of stable_how (RFC 1813 section 3.3.7).
type Stability uint8

// The stabilities.
const (
	Unstable Stability = 0
	DataSync Stability = 1
	FileSync Stability = 2
)

// CreateMode says what Create does if the name exists, with the numbers of createmode3.
type CreateMode uint8

// The create modes.
const (
	Unchecked CreateMode = 0 // return the file, and apply SetAttr.Size
	Guarded   CreateMode = 1 // EEXIST
	Exclusive CreateMode = 2 // return the file if it was made with the same verifier, else EEXIST
)

// Create has the arguments of Create.
type Create struct {
	Mode     CreateMode
	Attr     SetAttr
	Verifier [8]byte // Exclusive only
}

// Node is what Mknod makes.
type Node struct {
	Type  Type // CharDevice, BlockDevice, FIFO or Socket
	Major uint32
	Minor uint32
}

// Plus says what ReadDir fills in besides names.
type Plus uint8

// The values of Plus.
const (
	NamesOnly Plus = iota
	WithAttr       // handles and attributes
)

// DirEntry is one entry of a listing.
type DirEntry struct {
	Name   string
	ID     uint64
	Cookie uint64
	Handle Handle
	Attr   Attr
}

// StatFS is sizes and limits, as in statfs(2), in bytes and files.
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
