package capture

import (
	"context"
	"strings"

	"dim/internal/capture/oci"
	"dim/internal/store"
)

// captureLayout captures an image in an OCI layout directory.
func (o *Options) captureLayout(ctx context.Context, s *store.Store, place string) (Result, error) {
	img, err := oci.OpenLayout(place, o.Arch)
	if err != nil {
		return Result{}, err
	}
	return o.captureImage(ctx, s, img)
}

// captureRegistry captures an image in a registry.
func (o *Options) captureRegistry(ctx context.Context, s *store.Store, place string, plain oci.Plain) (Result, error) {
	img, err := oci.OpenRegistry(ctx, strings.TrimPrefix(place, "//"), o.Arch, plain)
	if err != nil {
		return Result{}, err
	}
	return o.captureImage(ctx, s, img)
}

// captureImage reads nothing of an image whose manifest was captured before.
func (o *Options) captureImage(ctx context.Context, s *store.Store, img *oci.Image) (Result, error) {
	return o.captureBundle(ctx, s, bundle{identity: "oci " + img.Digest, layered: true, unpack: img.Unpack})
}
