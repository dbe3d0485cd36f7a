package wire

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// socketName is the name of the socket in the data directory.
const socketName = "dim.sock"

// maxSocketPath is the longest path of a unix socket: sun_path of unix(7) less its final zero.
const maxSocketPath = 107

// SocketPath returns a path of the socket in the data directory that a unix socket can be bound or connected to. When
// the plain path is longer than the kernel accepts, the returned path goes through an open file of this process. The
// caller calls release when the listener or connection is closed.
func SocketPath(data string) (path string, release func(), err error) {
	path = filepath.Join(data, socketName)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	d, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName), func() { d.Close() }, nil
}

// ReadersPath returns the path of the socket for members of the group of readers. It is not in the data directory,
// which only root can enter: what lies there has the secrets of masters.
func ReadersPath(data string) string {
	if abs, err := filepath.Abs(data); err == nil {
		data = abs
	}
	sum := sha256.Sum256([]byte(data))
	return filepath.Join("/run/dim", hex.EncodeToString(sum[:8])+".sock")
}

// Readers returns the id of the group of readers, called dim; 0: this machine has none.
func Readers() int {
	g, err := user.LookupGroup("dim")
	if err != nil {
		return 0
	}
	gid, _ := strconv.Atoi(g.Gid) // on Linux it is a number
	return gid
}

// Socket is a socket of the daemon.
type Socket struct {
	Path string
	// Optional: without it only the group of readers is refused.
	Optional bool

	mode os.FileMode
	gid  int // that may use it besides root; -1: none
}

// Open opens the socket with listen, which is net.Listen, in place of what is there, and gives it its group and mode.
// The directory of an optional one is made.
func (s Socket) Open(listen func(network, address string) (net.Listener, error)) (net.Listener, error) {
	if s.Optional {
		if err := os.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
			return nil, err
		}
	}
	_ = os.Remove(s.Path)
	ln, err := listen("unix", s.Path)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(os.Chown(s.Path, -1, s.gid), os.Chmod(s.Path, s.mode)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// Sockets returns the sockets that a daemon opens: the one in the data directory and, if there is a group of readers,
// theirs. Its directory need not exist. The caller calls release, also after an error, when the listeners are closed.
func Sockets(data string) (list []Socket, release func(), err error) {
	path, release, err := SocketPath(data)
	if err != nil {
		return nil, func() {}, err
	}
	list = append(list, Socket{Path: path, mode: 0o600, gid: -1})
	if gid := Readers(); gid > 0 {
		list = append(list, Socket{Path: ReadersPath(data), Optional: true, mode: 0o660, gid: gid})
	}
	return list, release, nil
}
