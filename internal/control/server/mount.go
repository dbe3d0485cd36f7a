package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/control/wire"
)

func handleMounts(mux *http.ServeMux, b control.MountBackend) {
	mux.Handle("GET /v1/mounts", answer(func(r *http.Request) ([]control.Mount, error) {
		return b.Mounts(r.Context())
	}))
	mux.HandleFunc("POST /v1/mounts", func(w http.ResponseWriter, r *http.Request) { mount(w, r, b) })
}

// mount takes the connection over from HTTP: see wire.MountProtocol.
func mount(w http.ResponseWriter, r *http.Request, b control.MountBackend) {
	q := r.URL.Query()
	m := control.Mount{What: q.Get("what"), Dir: q.Get("dir"), Started: time.Now()}
	if r.Header.Get("Upgrade") != wire.MountProtocol {
		refuse(w, control.Errorf(control.Invalid, "mount %s: the request must ask for an upgrade to %s",
			m.What, wire.MountProtocol))
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		wire.MountProtocol); err != nil {
		return
	}
	done, err := receiveAndMount(r.Context(), b, m, c)
	if err != nil {
		_ = json.NewEncoder(c).Encode(wire.Line{Error: asError(err)})
		return
	}
	_ = json.NewEncoder(c).Encode(wire.Line{Result: m})
	select {
	case <-done:
	case <-r.Context().Done():
	}
}

// receiveAndMount receives an open /dev/fuse on c and lets b serve m on it.
func receiveAndMount(
	ctx context.Context, b control.MountBackend, m control.Mount, c net.Conn,
) (done <-chan struct{}, err error) {
	fd, err := receiveFD(c)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", m.What, err)
	}
	done, err = b.Mount(ctx, m, fd)
	if err != nil {
		unix.Close(fd)
	}
	return done, err
}

func receiveFD(c net.Conn) (int, error) {
	u, ok := unixOf(c)
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
