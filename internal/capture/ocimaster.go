package capture

import (
	"context"
	"strings"

	"dim/internal/capture/oci"
	"dim/internal/capture/unpack"
	"dim/internal/store"
)

// captureLayout captures an image in an OCI layout directory.
func (o *Options) captureLayout(ctx context.Context, s *store.Store, path string) (Result, error) {
	img, err := oci.OpenLayout(path, o.Arch)
	if err != nil {
		return Result{}, err
	}
	return o.captureImage(ctx, s, img)
}

// captureRegistry captures an image in a registry.
func (o *Options) captureRegistry(
	ctx context.Context, s *store.Store, reference string, plain oci.Plain,
) (Result, error) {
	img, err := oci.OpenRegistry(ctx, strings.TrimPrefix(reference, "//"), o.Arch, plain)
	if err != nil {
		return Result{}, err
	}
	return o.captureImage(ctx, s, img)
}

// captureImage captures a container image. It does not read the layers if the manifest is that of the previous capture.
func (o *Options) captureImage(ctx context.Context, s *store.Store, img *oci.Image) (Result, error) {
	b := bundle{identity: "oci " + img.Digest}
	for _, l := range img.Layers() {
		b.source.Layers = append(b.source.Layers, unpack.Layer{DiffID: l.DiffID, Open: l.Open})
	}
	return o.captureBundle(ctx, s, b)
}
