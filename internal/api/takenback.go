package api

import (
	"context"
	"errors"
	"slices"

	"dim/internal/cluster"
	"dim/internal/cluster/changes"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
)

// takenBack adds the changes of others that the description takes back.
//
// Nothing in a file says from which description it was made. The history has the file from which each description was
// applied: what was applied from the same file last is the base. If nothing was, the base may be any description. Then
// only what the last change made, and the description makes again as it was before, is taken back.
func (p *application) takenBack(ctx context.Context, out *control.ApplyResult) error {
	if p.request.From == "" || p.request.Revision != 0 || p.shared == nil {
		return nil
	}
	history, err := p.shared.History(ctx)
	if err != nil {
		return follow.APIError(err)
	}
	at := slices.IndexFunc(history, func(d coord.Description) bool { return d.From == p.request.From })
	guessed := at < 0
	if guessed {
		at = 1
	}
	if at == 0 || at >= len(history) || history[0].Revision != revision(p.now) {
		return nil
	}
	base, err := p.base(ctx, history[at].Revision)
	if base == nil || err != nil {
		return err
	}
	if guessed {
		out.TakenBack = changes.Reverted(base, p.now.Cluster, p.next)
	} else {
		out.TakenBack = changes.TakenBack(base, p.now.Cluster, p.next)
	}
	if len(out.TakenBack) > 0 {
		out.Since = appliedList(history)[:at]
	}
	return nil
}

// base returns a description of the history; nil if it is not kept, or if this program cannot read it.
func (p *application) base(ctx context.Context, revision int64) (*cluster.Cluster, error) {
	d, err := p.shared.DescriptionAt(ctx, revision)
	if errors.Is(err, coord.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, follow.APIError(err)
	}
	c, err := follow.Parse(&d)
	if err != nil {
		p.api.Log.Warn("an earlier description cannot be read", "from", revision, "error", err)
		return nil, nil
	}
	return c, nil
}
