package capture

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"dim/internal/image"
	"dim/internal/testkit"
)

// containerImage makes an image for an architecture of layers of members.
func containerImage(t *testing.T, arch string, layers ...[]tar.Header) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: arch, OS: "linux"})
	testkit.Must(t, err)
	for _, members := range layers {
		b, err := os.ReadFile(archiveOf(t, members...))
		testkit.Must(t, err)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		})
		testkit.Must(t, err)
		img, err = mutate.AppendLayers(img, layer)
		testkit.Must(t, err)
	}
	return img
}

// layoutOf writes an OCI layout with images by their names.
func layoutOf(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	testkit.Must(t, err)
	for ref, img := range images {
		testkit.Must(t, path.AppendImage(img,
			layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref})))
	}
	return dir
}

func (l *lab) image(master string) *lab {
	l.t.Helper()
	other := l.withMaster(master)
	other.o.Arch = "amd64"
	return other
}

// contents returns a version's files, and the types of the rest.
func (l *lab) contents(v image.Version) map[string]string {
	l.t.Helper()
	got := map[string]string{}
	for path, e := range l.entries(v) {
		text := e.Type.String()
		if e.Type == image.Regular {
			f, err := l.store.OpenBlob(e.Digest)
			testkit.Must(l.t, err)
			b, err := io.ReadAll(f)
			testkit.Must(l.t, err, f.Close())
			text = string(b)
		}
		if e.Link != "" {
			text += " =" + e.Link
		}
		got[path] = text
	}
	return got
}

func dirs(names ...string) (list []tar.Header) {
	for _, n := range names {
		list = append(list, tar.Header{Typeflag: tar.TypeDir, Name: n, Mode: 0o755})
	}
	return list
}

func TestLayersAreAppliedInTheirOrder(t *testing.T) {
	l := newLab(t)
	base := append(dirs("d", "d/sub", "e", "usr", "usr/lib", "turn"),
		file("a", "A"), link("b", "a"), file("d/x", "x"), file("d/y", "y"), file("d/sub/f", "f"),
		file("e/old", "old"), file("e/deep/old", "old"), symlink("lib", "usr/lib"), symlink("abs", "/usr/../usr/lib"),
		file("turn/in", ""), file("gone", ""), file("again", "1"))
	second := append(dirs("e"), file("e/new", "new"), file("e/deep/new", "new"), file("e/.wh..wh..opq", ""),
		file("d/.wh.x", ""), file("d/.wh.sub", ""), link("c", "a"),
		file("lib/through", "1"), file("abs/through2", "2"), file("turn", "file"), file(".wh.gone", ""),
		file("again", "2"), file(".wh.again", ""), file(".wh.never", ""), file(".wh..wh.plnk", ""))
	third := []tar.Header{file("a", "other")}
	dir := layoutOf(t, map[string]v1.Image{"v1": containerImage(t, "amd64", base, second, third)})
	want := map[string]string{
		"": "directory", "a": "other", "b": "A =b", "c": "A =b", "d": "directory", "d/y": "y", "e": "directory",
		"e/new": "new", "e/deep": "directory", "e/deep/new": "new",
		"usr": "directory", "usr/lib": "directory", "usr/lib/through": "1", "usr/lib/through2": "2", "lib": "symlink",
		"abs": "symlink", "turn": "file", "again": "2",
	}
	for _, master := range []string{"oci:" + dir, "oci:" + dir + ":v1"} {
		if d := cmp.Diff(want, l.contents(l.image(master).capture().Version)); d != "" {
			t.Errorf("%s (-want +got):\n%s", master, d)
		}
	}
	l.sound()
}

func TestAnImageIsChosenByArchitectureAndName(t *testing.T) {
	amd := containerImage(t, "amd64", []tar.Header{file("arch", "amd64")})
	arm := containerImage(t, "arm64", []tar.Header{file("arch", "arm64")})
	both := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux",
			Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux",
			Architecture: "arm64", Variant: "v8"}}})
	multi := t.TempDir()
	path, err := layout.Write(multi, empty.Index)
	testkit.Must(t, err, path.AppendIndex(both))
	l := newLab(t)
	other := l.image("oci:" + multi)
	other.o.Arch = "arm64"
	if got := l.contents(other.capture().Version)["arch"]; got != "arm64" {
		t.Errorf("for arm64 came %q", got)
	}
	named := layoutOf(t, map[string]v1.Image{"one": amd,
		"two": containerImage(t, "amd64", []tar.Header{file("two", "")}), "arm": arm})
	for master, want := range map[string]string{
		"oci:" + named:             "name one of",
		"oci:" + named + ":three":  `no image "three"`,
		"oci:" + named + ":arm":    "not for linux/amd64",
		"oci:/no/such":             "no OCI layout",
		"docker://127.0.0.1:1/x:y": "refused",
		"docker://:::":             "could not parse",
	} {
		if _, err := Run(context.Background(), l.store, l.image(master).o); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", master, err, want)
		}
	}
}

func TestALayerWithAnotherDigestIsRefused(t *testing.T) {
	l := newLab(t)
	img := containerImage(t, "amd64", []tar.Header{file("a", "1")})
	dir := layoutOf(t, map[string]v1.Image{"v1": img})
	layers, err := img.Layers()
	testkit.Must(t, err)
	digest, err := layers[0].Digest()
	testkit.Must(t, err)
	other := containerImage(t, "amd64", []tar.Header{file("a", "2")})
	layers, err = other.Layers()
	testkit.Must(t, err)
	r, err := layers[0].Compressed()
	testkit.Must(t, err)
	b, err := io.ReadAll(r)
	testkit.Must(t, err, os.Chmod(filepath.Join(dir, "blobs/sha256", digest.Hex), 0o600),
		os.WriteFile(filepath.Join(dir, "blobs/sha256", digest.Hex), b, 0o600))
	if _, err := Run(context.Background(), l.store, l.image("oci:"+dir).o); err == nil ||
		!strings.Contains(err.Error(), "digest") {
		t.Errorf("another layer: %v", err)
	}
	config, err := img.ConfigFile()
	testkit.Must(t, err)
	config = config.DeepCopy()
	config.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	lying, err := mutate.ConfigFile(img, config)
	testkit.Must(t, err)
	dir = layoutOf(t, map[string]v1.Image{"v1": lying})
	if _, err := Run(context.Background(), l.store, l.image("oci:"+dir).o); err == nil ||
		!strings.Contains(err.Error(), "digest") {
		t.Errorf("another diff id: %v", err)
	}
	if _, err := l.store.Resolve(image.Ref{Image: "other"}); err == nil {
		t.Error("a version was made")
	}
}

func TestAnImageInARegistryIsReadOnce(t *testing.T) {
	l := newLab(t)
	var blobs atomic.Int32
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host + "/site/compute:stable")
	testkit.Must(t, err, remote.Write(ref, containerImage(t, "amd64", []tar.Header{file("a", "1"), file("b", "2")},
		[]tar.Header{file(".wh.b", "")})))
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	other := l.image("docker://" + host + "/site/compute:stable")
	first := other.capture()
	if d := cmp.Diff(map[string]string{"": "directory", "a": "1"}, l.contents(first.Version)); d != "" {
		t.Error(d)
	}
	was := blobs.Load()
	if r := other.capture(); r.Changed || blobs.Load() > was+1 { // the configuration is read
		t.Errorf("unchanged: %+v, %d blobs", r, blobs.Load()-was)
	}
	testkit.Must(t, remote.Write(ref, containerImage(t, "amd64", []tar.Header{file("a", "new")})))
	if r := other.capture(); !r.Changed || r.Version.Number != 2 {
		t.Errorf("another image by the same tag: %+v", r)
	}
}
