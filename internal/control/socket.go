package control

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// SocketName is the name of the socket in the data directory.
const SocketName = "dim.sock"

// maxSockPath is the longest path of a unix socket: sun_path of unix(7) less its final zero.
const maxSockPath = 107

// SocketPath returns a path of the socket in the data directory that a unix socket can be bound or connected to: when its
// own is longer than the kernel takes, one that goes through an open file of this process. release ends that; call it when
// the listener or connection is closed.
func SocketPath(data string) (path string, release func(), err error) {
	path = filepath.Join(data, SocketName)
	if len(path) <= maxSockPath {
		return path, func() {}, nil
	}
	d, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), SocketName), func() { d.Close() }, nil
}

func dialSocket(d *net.Dialer, data string) (net.Conn, error) {
	path, release, err := SocketPath(data)
	if err != nil {
		return nil, err
	}
	defer release()
	return d.Dial("unix", path)
}
