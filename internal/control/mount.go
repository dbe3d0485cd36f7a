package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// upgrade is the protocol that a mount request switches to: the client sends one byte with the open /dev/fuse beside it
// (unix(7), SCM_RIGHTS), the server answers with one line, and then keeps the connection for as long as it serves.
const upgrade = "dim-mount"

func (h handlers) mount(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	m := Mount{What: q.Get("what"), Dir: q.Get("dir"), Started: time.Now()}
	if r.Header.Get("Upgrade") != upgrade {
		refuse(w, Errorf(Invalid, "mount %s: the request must ask for an upgrade to %s", m.What, upgrade))
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade); err != nil {
		return
	}
	done, err := h.receiveAndMount(r.Context(), c, m)
	if err != nil {
		_ = json.NewEncoder(c).Encode(line{Error: asError(err)})
		return
	}
	_ = json.NewEncoder(c).Encode(line{Result: m})
	select {
	case <-done:
	case <-r.Context().Done():
	}
}

func (h handlers) receiveAndMount(ctx context.Context, c net.Conn, m Mount) (<-chan struct{}, error) {
	fd, err := receiveFD(c)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", m.What, err)
	}
	done, err := h.b.Mount(ctx, m, fd)
	if err != nil {
		unix.Close(fd)
	}
	return done, err
}

func receiveFD(c net.Conn) (int, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1, errors.New("not a unix socket")
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := u.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, errors.New("no device came with the request")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("no device came with the request")
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// Mount shows a node's replica or a version, which what names, at dir until ctx ends or somebody unmounts it. It calls
// ready when it is there. In the end nothing is mounted at dir; a file still open there lives on detached. When the daemon ends
// first, that is an error.
func (c *Client) Mount(ctx context.Context, what, dir string, ready func(Mount)) error {
	dev, err := mountFUSE(what, dir)
	if err != nil {
		return err
	}
	defer unmountDetached(dir)
	conn, err := c.dial(ctx)
	if err != nil {
		dev.Close()
		return c.unreachable(err)
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	m, err := handOver(conn, replies, what, dir, dev)
	dev.Close() // only now is the daemon the only one who holds it: if it dies, the mount fails at once instead of hanging
	if err != nil {
		return err
	}
	ready(m)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, _ = replies.ReadByte() // returns when the daemon stops serving or ctx ends
	if ctx.Err() == nil && mounted(dir) {
		return Errorf(Unavailable, "mount %s: the daemon ended", what)
	}
	return nil
}

// handOver asks for a mount on conn and gives dev away.
func handOver(conn net.Conn, replies *bufio.Reader, what, dir string, dev *os.File) (Mount, error) {
	q := url.Values{"what": {what}, "dir": {dir}}
	if _, err := fmt.Fprintf(conn, "POST /v1/mounts?%s HTTP/1.1\r\nHost: dim\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 0\r\n\r\n",
		q.Encode(), upgrade); err != nil {
		return Mount{}, err
	}
	resp, err := http.ReadResponse(replies, nil)
	if err != nil {
		return Mount{}, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return Mount{}, readError(resp)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return Mount{}, fmt.Errorf("mount %s: not a unix socket", what)
	}
	if _, _, err := u.WriteMsgUnix([]byte{0}, unix.UnixRights(int(dev.Fd())), nil); err != nil {
		return Mount{}, err
	}
	var m Mount
	answer, err := replies.ReadBytes('\n')
	if err == nil {
		err = readLine(answer, &m, nil)
	}
	return m, err
}

// mountFUSE opens /dev/fuse and mounts it at dir for everybody. Nothing in the tree is a device or setuid there. The kernel
// checks permissions too: see package fuse, which serves it.
func mountFUSE(what, dir string) (*os.File, error) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other,default_permissions,max_read=1048576", dev.Fd(), os.Geteuid(), os.Getegid())
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV
	if strings.Contains(what, "@") { // a version
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("dim:"+what, dir, "fuse.dim", flags, options); err != nil {
		dev.Close()
		return nil, &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	return dev, nil
}

func unmountDetached(dir string) {
	if mounted(dir) {
		_ = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}
