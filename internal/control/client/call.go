package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// call makes a call that answers with one value.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var v T
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, control.Errorf(control.Internal, "read the daemon's answer: %v", err)
	}
	return v, nil
}

// request is a call that answers with many lines.
type request struct {
	method, path string
	in           any // the body
}

// stream makes a call that answers with many lines. It calls each for every line but the last, which it returns.
func stream[T any](ctx context.Context, c *Client, q request, each func(wire.Line)) (T, error) {
	var v T
	resp, err := c.do(ctx, q.method, q.path, q.in)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for {
		b, err := r.ReadBytes('\n')
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		if err != nil {
			return v, control.Errorf(control.Unavailable, "the daemon ended before it answered: %v", err)
		}
		if err := readLine(b, &v, each); !errors.Is(err, errMore) {
			return v, err
		}
	}
}

// onChange makes a function for stream out of one that takes changes.
func onChange(each func(control.Change)) func(wire.Line) {
	return func(l wire.Line) {
		if l.Change != nil {
			each(*l.Change)
		}
	}
}

// onProgress makes a function for stream out of one that takes progress.
func onProgress(each func(control.Progress)) func(wire.Line) {
	return func(l wire.Line) {
		if l.Progress != nil {
			each(*l.Progress)
		}
	}
}

// errMore reports that a line was not the last one.
var errMore = errors.New("more lines follow")

// readLine decodes a line. The result of a last line goes to out; any other line goes to each, and the error is
// errMore.
func readLine(b []byte, out any, each func(wire.Line)) error {
	l := wire.Line{Result: out}
	var probe struct {
		Result json.RawMessage `json:"result"`
	}
	err := json.Unmarshal(b, &l)
	if err == nil {
		err = json.Unmarshal(b, &probe)
	}
	switch {
	case err != nil:
		return control.Errorf(control.Internal, "read the daemon's answer: %v", err)
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

// do makes a request. A response that it returns is a success.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if c.other != "" {
		resp.Body = &lines{ReadCloser: resp.Body}
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

func readError(resp *http.Response) error {
	var l wire.Line
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil || l.Error == nil {
		return control.Errorf(control.Internal, "the daemon answered %s", resp.Status)
	}
	return l.Error
}
