package forward

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/cluster"
	"dim/internal/control"
)

const (
	// verifiers is how many other servers verify a version at the same time.
	verifiers = 8
	// verifyTime bounds the time that a server takes for it.
	verifyTime = 6 * time.Hour
)

// VerifyAll implements control.Backend: every server reads its own copy of the version.
func (b *Backend) VerifyAll(
	ctx context.Context, ref string, progress func(control.Progress),
) (control.VerifyAllResult, error) {
	out, err := b.Backend.VerifyAll(ctx, ref, progress)
	if err != nil {
		return out, err
	}
	var g errgroup.Group
	g.SetLimit(verifiers)
	for i := range out.Servers {
		if s := &out.Servers[i]; s.Server != string(b.Server) {
			g.Go(func() error {
				b.verifyAt(ctx, s, &out)
				return nil
			})
		}
	}
	_ = g.Wait()
	return out, ctx.Err()
}

// verifyAt lets a server verify a version, and notes what it found.
func (b *Backend) verifyAt(ctx context.Context, s *control.ServerVerified, all *control.VerifyAllResult) {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	done, err := b.at(cluster.ServerName(s.Server)).Verify(ctx, all.Ref, func(control.Progress) {})
	s.Objects, s.Bytes = done.Objects, done.Bytes
	s.Problems = append(s.Problems, done.Problems...)
	s.Replaced = append(s.Replaced, done.Replaced...)
	switch {
	case err != nil:
		s.Problems = append(s.Problems, err.Error())
	case done.Digest != all.Digest:
		s.Problems = append(s.Problems, fmt.Sprintf("it has another %s, with the digest %s", all.Ref, done.Digest))
	}
}
