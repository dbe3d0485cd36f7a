package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
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
