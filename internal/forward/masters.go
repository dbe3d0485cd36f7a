package forward

import (
	"context"
	"errors"
	"strings"

	"dim/internal/control"
	"dim/internal/control/client"
)

// Capture implements control.Backend. The head that has the master captures it.
func (b *Backend) Capture(
	ctx context.Context, r control.CaptureRequest, progress func(control.Progress),
) (control.CaptureResult, error) {
	done, head, err := withMaster(ctx, b,
		func() (control.CaptureResult, error) { return b.Backend.Capture(ctx, r, progress) },
		func(c *client.Client) (control.CaptureResult, error) { return c.Capture(ctx, r, progress) })
	done.Server = head
	return done, err
}

// Watch implements control.Backend. The head that has the master watches it.
func (b *Backend) Watch(ctx context.Context, r control.WatchRequest) (control.Watch, error) {
	w, _, err := withMaster(ctx, b, func() (control.Watch, error) { return b.Backend.Watch(ctx, r) },
		func(c *client.Client) (control.Watch, error) { return c.Watch(ctx, r) })
	return w, err
}

// withMaster makes a call on the head that has a master, and returns its name if it is another one. When it returns,
// this head knows what the call has changed, if the shared state answers.
func withMaster[T any](
	ctx context.Context, b *Backend, local func() (T, error), remote func(*client.Client) (T, error),
) (v T, head string, err error) {
	v, err = local()
	none, ok := errors.AsType[*control.Error](err)
	if !ok || none.Code != control.Elsewhere {
		return v, "", err
	}
	var silent []string
	for _, name := range b.Follow.Now().OtherHeads(b.Server) {
		v, err := remote(b.at(name))
		e, _ := errors.AsType[*control.Error](err)
		switch {
		case e != nil && e.Code == control.Elsewhere:
		case unanswered(err):
			silent = append(silent, err.Error())
		default:
			if err == nil {
				_ = b.Follow.Confirm(ctx) // the call was made, whatever this head knows of it
			}
			return v, string(name), err
		}
	}
	if len(silent) == 0 {
		return v, "", none.WithHint("no other head has it either: correct master= in the description, or put it there")
	}
	none.Message += "; " + strings.Join(silent, "; ")
	return v, "", none.WithHint("one of the heads that do not answer may have it")
}
