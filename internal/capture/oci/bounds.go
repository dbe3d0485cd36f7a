package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxManifest bounds the manifests and configurations that are parsed, in bytes.
const maxManifest = 8 << 20

// An answer of a registry that brings less than minProgress bytes in maxWait is given up.
const (
	maxWait     = time.Minute
	minProgress = 64 << 10
)

var (
	errSlow  = errors.New("the registry stopped sending, or sends too slowly")
	errLarge = fmt.Errorf("the registry sends more than %d bytes as a manifest", maxManifest)
)

// source is where the parts of an image are: the directory of a layout, or "" for a registry.
type source string

// check returns an error if what a descriptor names must not be read as a whole: it is too large or, in a layout, not
// as large as the descriptor says. The library reads no more of a registry than the size in the descriptor, unless that
// is negative.
func (s source) check(what string, d *v1.Descriptor) error {
	if d.Size < 0 || d.Size > maxManifest {
		return fmt.Errorf("%s of %d bytes is too large", what, d.Size)
	}
	if s == "" {
		return nil
	}
	st, err := os.Lstat(filepath.Join(string(s), "blobs", d.Digest.Algorithm, d.Digest.Hex))
	if err == nil && st.Size() != d.Size {
		err = fmt.Errorf("%s %s has %d bytes, not %d", what, d.Digest, st.Size(), d.Size)
	}
	return err
}

// checkIndex returns an error if the index of a layout must not be read as a whole.
func (s source) checkIndex() error {
	st, err := os.Stat(filepath.Join(string(s), "index.json"))
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return errors.New("index.json is not a regular file")
	case st.Size() > maxManifest:
		return fmt.Errorf("an index of %d bytes is too large", st.Size())
	}
	return nil
}

// guard bounds what registries can do. It refuses requests without TLS, except to this machine and to the declared
// registry: the library also allows private addresses and all redirects. It gives up answers that are too slow, and
// those that are larger than a manifest may be, unless a blob was asked for.
type guard struct {
	next     http.RoundTripper
	declared string
	wait     time.Duration // 0: maxWait
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && r.URL.Host != g.declared && !loopback(r.URL.Host) {
		return nil, fmt.Errorf("%s answers without TLS, and the description does not say docker+http", r.URL.Host)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	b := &body{ctx: ctx, cancel: cancel, wait: g.wait, left: maxManifest}
	if b.wait == 0 {
		b.wait = maxWait
	}
	b.unbounded = isBlob(r)
	var answer *http.Response
	_, err := b.watch(func() (n int, err error) {
		answer, err = g.next.RoundTrip(r.WithContext(ctx))
		return 0, err
	})
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b.ReadCloser, answer.Body = answer.Body, b
	return answer, nil
}

// isBlob reports whether a request, or the one that was redirected to it, asks for a blob.
func isBlob(r *http.Request) bool {
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	return strings.Contains(r.URL.Path, "/blobs/")
}

// body is an answer of a registry.
type body struct {
	io.ReadCloser
	ctx       context.Context // of the request
	cancel    context.CancelCauseFunc
	wait      time.Duration
	waited    time.Duration // for the last bytes
	got       int           // the last bytes, less than minProgress
	left      int64         // how many bytes may come, unless unbounded
	unbounded bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.watch(func() (int, error) { return b.ReadCloser.Read(p) })
	if b.left -= int64(n); b.left < 0 && !b.unbounded {
		return 0, errLarge
	}
	return n, err
}

// watch calls do, which returns how many bytes have come, and cancels the request if it takes too long. The time in
// which nobody reads does not count.
func (b *body) watch(do func() (int, error)) (int, error) {
	late := time.AfterFunc(b.wait-b.waited, func() { b.cancel(errSlow) })
	begin := time.Now()
	n, err := do()
	late.Stop()
	b.waited += time.Since(begin)
	if b.got += n; b.got >= minProgress {
		b.got, b.waited = 0, 0
	}
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(b.ctx), errSlow) {
		err = errSlow
	}
	return n, err
}

func (b *body) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}
