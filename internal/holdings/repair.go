package holdings

import (
	"context"
	"errors"
	"slices"

	"dim/internal/image"
)

// Repair brings damaged objects of some versions anew from other servers, and deletes them from damaged. It begins with
// the last version, and ends when nothing is damaged any more: most objects are in many versions. ok is false if there
// is no server to ask.
func (k *Keeper) Repair(
	ctx context.Context, versions []image.Version, damaged map[image.Digest]bool,
) (ok bool, err error) {
	sources := k.Sources()
	if len(sources) == 0 {
		return false, nil
	}
	var errs []error
	for _, v := range slices.Backward(versions) {
		if len(damaged) == 0 {
			break
		}
		errs = append(errs, k.Puller.Repair(ctx, v, damaged, sources))
	}
	return true, errors.Join(errs...)
}
