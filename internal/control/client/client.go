// Package client calls the daemon's API over the unix socket in its data directory. The command line uses it.
//
// # Mounts
//
// Client.Mount opens /dev/fuse and mounts it in the caller's mount namespace, then passes the open device to the
// daemon, which serves it. So a mount appears to the person who asked for it, although the daemon may run in another
// mount namespace, and only the daemon, which has the locks and the indexes of the replicas, accesses them.
//
// This package must not know what the daemon does with a call.
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// Client calls the daemon that runs on a data directory. Its methods are those of control.Backend, which documents
// them. They may be called concurrently. Every failure of the daemon is a *control.Error, with code Unavailable when
// no daemon answers.
type Client struct {
	data  string
	http  *http.Client
	base  string // what paths are appended to
	other string // name of the other server that is called; "": the daemon on data
}

// New returns a client of the daemon that runs on the data directory. It does not connect yet.
func New(data string) *Client {
	c := &Client{data: data, base: "http://dim"}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return c.dial() },
		DisableKeepAlives: true, // few calls in one process: an idle connection would only delay the daemon's end
	}}
	return c
}

// At returns a client of the daemon on another server, by what calls it: a client of HTTP, and the URL that paths are
// appended to. The server's name is for messages.
func At(hc *http.Client, base, server string) *Client {
	return &Client{http: hc, base: base, other: server}
}

func (c *Client) dial() (net.Conn, error) {
	path, release, err := wire.SocketPath(c.data)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := net.DialTimeout("unix", path, 5*time.Second)
	if errors.Is(err, fs.ErrPermission) { // a member of the group of readers has a socket of its own
		if reading, err := net.DialTimeout("unix", wire.ReadersPath(c.data), 5*time.Second); err == nil {
			return reading, nil
		}
	}
	return conn, err
}

// unreachable makes an error that explains why no daemon answers.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case c.other != "":
		return control.Errorf(control.Unavailable, "server %s does not answer: %v", c.other, cause(err))
	case errors.Is(err, context.DeadlineExceeded):
		return err
	case c.data == "":
		return control.Errorf(control.Invalid, "the name of the data directory is empty").
			WithHint("name it with --data, or in DIM_DATA")
	case errors.Is(err, fs.ErrNotExist) && missing(c.data):
		return control.Errorf(control.Unavailable, "no data directory %s", c.data).
			WithHint("name another one with --data, or make it with dim init")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return control.Errorf(control.Unavailable, "no daemon runs on %s", c.data).
			WithHint("start one with dim serve, or name its directory with --data")
	case errors.Is(err, fs.ErrPermission):
		return control.Errorf(control.Denied, "talk to the daemon on %s: permission denied", c.data).
			WithHint("run as root; members of the group dim may read the status and the listings")
	}
	return fmt.Errorf("talk to the daemon on %s: %w", c.data, err)
}

func missing(dir string) bool {
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

// cause returns why a call failed, without its method and URL.
func cause(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
