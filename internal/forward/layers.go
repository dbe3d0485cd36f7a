package forward

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"dim/internal/cluster"
	"dim/internal/control"
)

// askedAtOnce is how many servers are asked at the same time.
const askedAtOnce = 16

// RemoveLayers implements control.Backend. Nodes that the description no longer has may have left files on any server,
// so all are asked.
func (b *Backend) RemoveLayers(ctx context.Context, r control.RemoveLayersRequest) ([]control.RemovedLayer, error) {
	list, err := b.Backend.RemoveLayers(ctx, r)
	if !b.isHead() || err != nil && !isNotFound(err) {
		return list, err
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(askedAtOnce)
	for _, s := range b.Follow.Now().Cluster.Servers {
		if s.Name != b.Server {
			g.Go(func() error {
				there := b.removeAt(ctx, s.Name, r)
				mu.Lock()
				defer mu.Unlock()
				list = append(list, there...)
				return nil
			})
		}
	}
	_ = g.Wait()
	if len(list) == 0 {
		return list, err // not found anywhere
	}
	slices.SortStableFunc(list, func(x, y control.RemovedLayer) int { return strings.Compare(x.Server, y.Server) })
	return list, nil
}

// removeAt is RemoveLayers on one other server.
func (b *Backend) removeAt(
	ctx context.Context, s cluster.ServerName, r control.RemoveLayersRequest,
) []control.RemovedLayer {
	if r.DryRun {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookTime)
		defer cancel()
	}
	list, err := b.at(s).RemoveLayers(ctx, r)
	for i := range list {
		list[i].Server = string(s)
	}
	if err != nil && !isNotFound(err) {
		list = append(list, control.RemovedLayer{Server: string(s), Problem: err.Error()})
	}
	return list
}

func isNotFound(err error) bool {
	e, ok := errors.AsType[*control.Error](err)
	return ok && e.Code == control.NotFound
}
