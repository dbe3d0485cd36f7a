package holdings

import (
	"context"
	"errors"

	"dim/internal/image"
)

// Repair brings damaged objects of some versions anew from other servers. ok is false if there is none to ask.
func (k *Keeper) Repair(
	ctx context.Context, versions []image.Version, damaged map[image.Digest]bool,
) (ok bool, err error) {
	sources := k.Sources()
	if len(sources) == 0 {
		return false, nil
	}
	var errs []error
	for _, v := range versions {
		errs = append(errs, k.Puller.Repair(ctx, v, damaged, sources))
	}
	return true, errors.Join(errs...)
}
