package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Client calls the daemon that runs on a data directory. Its methods mirror Backend's; every failure of the
// daemon is an *Error, with code Unavailable when no daemon answers. They may be called concurrently.
type Client struct {
	data string
	http *http.Client
}

// NewClient returns a client of the daemon that runs on the data directory. It does not connect yet.
func NewClient(data string) *Client {
	c := &Client{data: data}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true, // one process, few calls: an idle connection would only hold up the daemon's end
	}}
	return c
}

func (c *Client) dial(context.Context) (net.Conn, error) {
	return dialSocket(&net.Dialer{Timeout: 5 * time.Second}, c.data)
}

// Status returns the daemon's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Description returns the applied cluster description.
func (c *Client) Description(ctx context.Context) (Description, error) {
	return call[Description](ctx, c, http.MethodGet, "/v1/description", nil)
}

// Apply makes d the applied description, see Backend.
func (c *Client) Apply(ctx context.Context, d Description) (Description, error) {
	return call[Description](ctx, c, http.MethodPut, "/v1/description", d)
}

// Images lists the images.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	return call[[]Image](ctx, c, http.MethodGet, "/v1/images", nil)
}

// Versions lists the versions of an image, oldest first.
func (c *Client) Versions(ctx context.Context, image string) ([]Version, error) {
	return call[[]Version](ctx, c, http.MethodGet, "/v1/images/"+url.PathEscape(image)+"/versions", nil)
}

// Version resolves a reference.
func (c *Client) Version(ctx context.Context, ref string) (Version, error) {
	return call[Version](ctx, c, http.MethodGet, "/v1/versions/"+url.PathEscape(ref), nil)
}

// Tag makes tag name the version ref.
func (c *Client) Tag(ctx context.Context, ref, tag string) (Version, error) {
	return call[Version](ctx, c, http.MethodPost, "/v1/tags", tagRequest{ref, tag})
}

// Nodes lists the nodes of a node set; "" is all.
func (c *Client) Nodes(ctx context.Context, set string) ([]Node, error) {
	return call[[]Node](ctx, c, http.MethodGet, "/v1/nodes?"+url.Values{"set": {set}}.Encode(), nil)
}

// Node tells everything about one node.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	return call[Node](ctx, c, http.MethodGet, "/v1/nodes/"+url.PathEscape(name), nil)
}

// Machines lists the unknown machines.
func (c *Client) Machines(ctx context.Context) ([]Machine, error) {
	return call[[]Machine](ctx, c, http.MethodGet, "/v1/machines", nil)
}

// Mounts lists what is mounted.
func (c *Client) Mounts(ctx context.Context) ([]Mount, error) {
	return call[[]Mount](ctx, c, http.MethodGet, "/v1/mounts", nil)
}

// Diff calls each for every change from one version to another, and returns what they amount to.
func (c *Client) Diff(ctx context.Context, from, to string, each func(Change)) (Comparison, error) {
	path := "/v1/diff?" + url.Values{"from": {from}, "to": {to}}.Encode()
	var whole Comparison
	err := c.follow(ctx, http.MethodGet, path, nil, &whole, func(l line) {
		if l.Change != nil {
			each(*l.Change)
		}
	})
	return whole, err
}

// Capture makes a new version of an image, see Backend. When ctx ends, so does the capture.
func (c *Client) Capture(ctx context.Context, r CaptureRequest, progress func(Progress)) (Captured, error) {
	var done Captured
	err := c.follow(ctx, http.MethodPost, "/v1/captures", r, &done, func(l line) {
		if l.Progress != nil {
			progress(*l.Progress)
		}
	})
	return done, err
}

// call makes a call that answers with one value.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var v T
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, Errorf(Internal, "read the daemon's answer: %v", err)
	}
	return v, nil
}

// follow makes a call that answers line by line; the last line's result goes to out.
func (c *Client) follow(ctx context.Context, method, path string, in, out any, each func(line)) error {
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for {
		b, err := r.ReadBytes('\n')
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return Errorf(Unavailable, "the daemon ended before it answered: %v", err)
		}
		if err := readLine(b, out, each); !errors.Is(err, errMore) {
			return err
		}
	}
}

// errMore tells that a line was not the last one.
var errMore = errors.New("more lines follow")

func readLine(b []byte, out any, each func(line)) error {
	l := line{Result: out}
	var probe struct {
		Result json.RawMessage `json:"result"`
	}
	err := json.Unmarshal(b, &l)
	if err == nil {
		err = json.Unmarshal(b, &probe)
	}
	switch {
	case err != nil:
		return Errorf(Internal, "read the daemon's answer: %v", err)
	case l.Error != nil:
		return l.Error
	case probe.Result != nil:
		return nil
	}
	if each != nil {
		each(l)
	}
	return errMore
}

// do makes a request; a response that it returns is a success.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://dim"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

func readError(resp *http.Response) error {
	var l line
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil || l.Error == nil {
		return Errorf(Internal, "the daemon answered %s", resp.Status)
	}
	return l.Error
}

// unreachable says in plain words why no daemon answers.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return Errorf(Unavailable, "no daemon runs on %s", c.data).WithHint("start one with dim serve, or name its directory with --data")
	case errors.Is(err, fs.ErrPermission):
		return Errorf(Denied, "talk to the daemon on %s: permission denied", c.data).WithHint("run as root")
	}
	return fmt.Errorf("talk to the daemon on %s: %w", c.data, err)
}
