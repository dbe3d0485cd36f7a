package client

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// Mounts lists the mounts.
func (c *Client) Mounts(ctx context.Context) ([]control.Mount, error) {
	return call[[]control.Mount](ctx, c, http.MethodGet, "/v1/mounts", nil)
}

// MountRequest is what Client.Mount shows, and where.
type MountRequest struct {
	What, Dir  string // a node or version, and an absolute path
	AllowOther bool   // users other than the one who mounts may use it
}

// Mount shows the node's replica or the version that r names at r.Dir, until ctx ends or it is unmounted. It calls
// ready when the tree is there. When Mount returns nothing is mounted there; a file that is still open there stays
// usable, detached. When the daemon ends first, that is an error.
func (c *Client) Mount(ctx context.Context, r MountRequest, ready func(control.Mount)) error {
	what, dir := r.What, r.Dir
	if mounted(dir) {
		return control.Errorf(control.Conflict, "mount %s: dim has a mount there already", dir).
			WithHint("dim umount " + dir + ", or choose another directory; dim mount lists the mounts")
	}
	dev, err := mountFUSE(r)
	if err != nil {
		return err
	}
	defer unmountDetached(dir)
	conn, err := c.dial()
	if err != nil {
		dev.Close()
		return c.unreachable(err)
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	m, err := handOver(conn, replies, control.Mount{What: what, Dir: dir}, dev)
	dev.Close() // the daemon alone holds the device now: if it dies, calls on the mount fail at once instead of hanging
	if err != nil {
		return err
	}
	ready(m)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, _ = replies.ReadByte() // returns when the daemon stops serving or ctx ends
	if ctx.Err() == nil && mounted(dir) {
		return control.Errorf(control.Unavailable, "mount %s: the daemon ended", what)
	}
	return nil
}

// handOver asks for the mount m on conn and passes dev to the daemon.
func handOver(conn net.Conn, replies *bufio.Reader, m control.Mount, dev *os.File) (control.Mount, error) {
	q := url.Values{"what": {m.What}, "dir": {m.Dir}}
	if _, err := fmt.Fprintf(conn, "POST /v1/mounts?%s HTTP/1.1\r\nHost: dim\r\n"+
		"Connection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 0\r\n\r\n", q.Encode(), wire.MountProtocol); err != nil {
		return m, err
	}
	resp, err := http.ReadResponse(replies, nil)
	if err != nil {
		return m, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return m, readError(resp)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return m, fmt.Errorf("mount %s: not a unix socket", m.What)
	}
	if _, _, err := u.WriteMsgUnix([]byte{0}, unix.UnixRights(int(dev.Fd())), nil); err != nil {
		return m, err
	}
	answer, err := replies.ReadBytes('\n')
	if err == nil {
		err = readLine(answer, &m, nil)
	}
	return m, err
}

// mountFUSE opens /dev/fuse and mounts it, without device files and setuid programs. Unless others may use the mount,
// the kernel lets no other user in, whatever the permissions of the files. It checks these too: see package fuse, which
// serves it.
func mountFUSE(r MountRequest) (*os.File, error) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,max_read=1048576",
		dev.Fd(), os.Geteuid(), os.Getegid())
	if r.AllowOther {
		options += ",allow_other"
	}
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV
	if strings.Contains(r.What, "@") { // a version
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("dim:"+r.What, r.Dir, "fuse.dim", flags, options); err != nil {
		dev.Close()
		return nil, &os.PathError{Op: "mount", Path: r.Dir, Err: err}
	}
	return dev, nil
}

func unmountDetached(dir string) {
	if mounted(dir) {
		_ = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

// Unmount ends a mount that Client.Mount made in any process. It needs no daemon. A directory that is in use is EBUSY.
func Unmount(dir string) error {
	if !mounted(dir) {
		return control.Errorf(control.NotFound, "nothing of dim is mounted there")
	}
	if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
