package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dim/internal/testkit"
)

func TestRequestsWithoutTLSAreRefusedUnlessLocalOrDeclared(t *testing.T) {
	answer := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	g := &guard{next: answer, declared: "10.0.0.9:5000"}
	for url, want := range map[string]bool{
		"https://10.0.0.1/v2/": true, "http://10.0.0.1/v2/": false, "http://registry.example/v2/": false,
		"http://127.0.0.1:5000/": true, "http://[::1]:5000/": true,
		"http://localhost:1/": true, "http://localhost.example/": false, "http://10.0.0.9:5000/": true,
		"http://10.0.0.9/": false, "http://127.0.0.1.example:80/": false,
	} {
		_, err := g.RoundTrip(httptest.NewRequest(http.MethodGet, url, nil))
		if (err == nil) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// parts are the parts of an image. The manifest is made from the others' descriptors.
type parts struct {
	config, layer         []byte
	configSize, layerSize int64
}

func newParts() *parts {
	p := &parts{layer: []byte("a layer")}
	sum, _, _ := v1.SHA256(bytes.NewReader(p.layer))
	p.config = fmt.Appendf(nil,
		`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]},"config":{}}`, sum)
	p.configSize, p.layerSize = int64(len(p.config)), int64(len(p.layer))
	return p
}

func (p *parts) manifest(t *testing.T) []byte {
	t.Helper()
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: sum(t, p.config), Size: p.configSize},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Digest: sum(t, p.layer), Size: p.layerSize}},
	}
	return testkit.Value(json.Marshal(m))(t)
}

func sum(t *testing.T, b []byte) v1.Hash {
	t.Helper()
	h, _, err := v1.SHA256(bytes.NewReader(b))
	testkit.Must(t, err)
	return h
}

// layout writes the parts as a layout. It returns its directory and the path of the manifest.
func (p *parts) layout(t *testing.T) (dir, manifest string) {
	t.Helper()
	dir = t.TempDir()
	blobs := filepath.Join(dir, "blobs/sha256")
	testkit.Must(t, os.MkdirAll(blobs, 0o755))
	m := p.manifest(t)
	for _, b := range [][]byte{p.config, p.layer, m} {
		testkit.Must(t, os.WriteFile(filepath.Join(blobs, sum(t, b).Hex), b, 0o644))
	}
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"size":%d,"digest":%q}]}`,
		types.OCIManifestSchema1, len(m), sum(t, m))
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644),
		os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644))
	return dir, filepath.Join(blobs, sum(t, m).Hex)
}

// readLayers reads the layers of an image to their ends.
func readLayers(img *Image, err error) error {
	if err != nil {
		return err
	}
	for _, l := range img.Layers() {
		r, err := l.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// refused checks that an image is refused because of something.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// huge is the size of sparse files that nobody can read into memory.
const huge = 1 << 42

func TestWhatIsTooLargeInALayoutIsNotRead(t *testing.T) {
	t.Run("nothing", func(t *testing.T) {
		dir, _ := newParts().layout(t)
		testkit.Must(t, readLayers(OpenLayout(dir, "amd64")))
	})
	t.Run("index", func(t *testing.T) {
		dir, _ := newParts().layout(t)
		testkit.Must(t, os.Truncate(filepath.Join(dir, "index.json"), huge))
		refused(t, readLayers(OpenLayout(dir, "amd64")), "is too large")
	})
	t.Run("index that is a pipe", func(t *testing.T) {
		dir, _ := newParts().layout(t)
		testkit.Must(t, os.Remove(filepath.Join(dir, "index.json")),
			syscall.Mkfifo(filepath.Join(dir, "index.json"), 0o644))
		refused(t, readLayers(OpenLayout(dir, "amd64")), "not a regular file")
	})
	t.Run("manifest", func(t *testing.T) {
		dir, manifest := newParts().layout(t)
		testkit.Must(t, os.Truncate(manifest, huge))
		refused(t, readLayers(OpenLayout(dir, "amd64")), "a manifest sha256:")
	})
	t.Run("configuration", func(t *testing.T) {
		p := newParts()
		dir, _ := p.layout(t)
		testkit.Must(t, os.Truncate(filepath.Join(dir, "blobs/sha256", sum(t, p.config).Hex), huge))
		refused(t, readLayers(OpenLayout(dir, "amd64")), "a configuration sha256:")
	})
	t.Run("layer", func(t *testing.T) {
		p := newParts()
		dir, _ := p.layout(t)
		testkit.Must(t, os.Truncate(filepath.Join(dir, "blobs/sha256", sum(t, p.layer).Hex), huge))
		refused(t, readLayers(OpenLayout(dir, "amd64")), "is larger than its manifest states")
	})
	for _, size := range []int64{-1, maxManifest + 1} {
		t.Run(fmt.Sprintf("configuration of %d bytes", size), func(t *testing.T) {
			p := newParts()
			p.configSize = size
			dir, _ := p.layout(t)
			refused(t, readLayers(OpenLayout(dir, "amd64")), "a configuration of")
		})
	}
}

// serve serves the parts as a registry. Wrong answers instead of it if it returns true. It returns a reference.
func (p *parts) serve(t *testing.T, wrong func(w http.ResponseWriter, kind string) bool) string {
	t.Helper()
	manifest := p.manifest(t)
	blobs := map[string][]byte{sum(t, p.config).String(): p.config, sum(t, p.layer).String(): p.layer}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, digest, blob := strings.Cut(r.URL.Path, "/blobs/")
		switch {
		case r.URL.Path == "/v2/":
		case blob && digest == sum(t, p.config).String() && wrong(w, "configuration"):
		case blob && digest == sum(t, p.layer).String() && wrong(w, "layer"):
		case blob:
			_, _ = w.Write(blobs[digest])
		case wrong(w, "manifest"):
		default:
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			_, _ = w.Write(manifest)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/image:v1"
}

// endless writes until nobody reads.
func endless(w io.Writer) bool {
	for buf := bytes.Repeat([]byte{' '}, 1<<20); ; {
		if _, err := w.Write(buf); err != nil {
			return true
		}
	}
}

func TestWhatIsTooLargeInARegistryIsNotRead(t *testing.T) {
	open := func(t *testing.T, p *parts, kind string) error {
		ref := p.serve(t, func(w http.ResponseWriter, asked string) bool {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			return asked == kind && endless(w)
		})
		return readLayers(OpenRegistry(t.Context(), ref, "amd64", Loopback))
	}
	t.Run("nothing", func(t *testing.T) { testkit.Must(t, open(t, newParts(), "")) })
	t.Run("manifest", func(t *testing.T) { refused(t, open(t, newParts(), "manifest"), "as a manifest") })
	t.Run("configuration", func(t *testing.T) { refused(t, open(t, newParts(), "configuration"), "error verifying") })
	t.Run("layer", func(t *testing.T) { refused(t, open(t, newParts(), "layer"), "error verifying") })
	for _, size := range []int64{-1, maxManifest + 1} {
		t.Run(fmt.Sprintf("configuration of %d bytes", size), func(t *testing.T) {
			p := newParts()
			p.configSize = size
			refused(t, open(t, p, "configuration"), "a configuration of")
		})
	}
	t.Run("layer of unknown size", func(t *testing.T) {
		p := newParts()
		p.layerSize = -1
		refused(t, open(t, p, "layer"), "layer 1 has the size -1")
	})
}

// TestARegistryThatIsTooSlowIsGivenUp has a registry send nothing, no more, or little, for ever.
func TestARegistryThatIsTooSlowIsGivenUp(t *testing.T) {
	for name, answer := range map[string]func(context.Context, http.ResponseWriter){
		"no answer": func(ctx context.Context, _ http.ResponseWriter) { <-ctx.Done() },
		"an answer that stops": func(ctx context.Context, w http.ResponseWriter) {
			_, _ = w.Write(make([]byte, 100))
			w.(http.Flusher).Flush()
			<-ctx.Done()
		},
		"an answer byte by byte": func(ctx context.Context, w http.ResponseWriter) {
			for ctx.Err() == nil {
				_, _ = w.Write([]byte{'x'})
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer(r.Context(), w)
			}))
			defer s.Close()
			c := http.Client{Transport: &guard{next: http.DefaultTransport, wait: 200 * time.Millisecond}}
			r, err := c.Get(s.URL + "/v2/image/blobs/sha256:0")
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			refused(t, err, errSlow.Error())
		})
	}
}

func TestTheTimeInWhichNobodyReadsDoesNotCount(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 4<<10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer s.Close()
	c := &http.Client{Transport: &guard{next: http.DefaultTransport}}
	r, err := c.Get(s.URL + "/v2/image/blobs/sha256:0")
	testkit.Must(t, err)
	defer r.Body.Close()
	got := testkit.Value(io.ReadAll(io.LimitReader(r.Body, 100)))(t)
	b := r.Body.(*body)
	before := b.waited
	b.wait = before + time.Millisecond
	time.Sleep(100 * time.Millisecond) // what a busy reader would do
	if err := context.Cause(b.ctx); err != nil || b.waited != before {
		t.Errorf("%v, %v were counted", err, b.waited-before)
	}
	b.wait = maxWait
	got = append(got, testkit.Value(io.ReadAll(r.Body))(t)...)
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes of %d", len(got), len(content))
	}
}

func TestABlobIsOneAlsoAfterRedirects(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/v2/") {
			http.Redirect(w, r, s.URL+"/elsewhere"+strings.Repeat("x", len(r.URL.Path)%7), http.StatusFound)
			return
		}
		_, _ = io.CopyN(w, zeros{}, maxManifest+1)
	}))
	defer s.Close()
	c := http.Client{Transport: &guard{next: http.DefaultTransport}}
	for path, good := range map[string]bool{"/v2/a/blobs/sha256:0": true, "/v2/a/manifests/b": false} {
		r, err := c.Get(s.URL + path)
		testkit.Must(t, err)
		_, err = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if (err == nil) != good {
			t.Errorf("%s: %v", path, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
