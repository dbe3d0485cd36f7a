package api

import (
	"context"
	"errors"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/quantity"
)

// Description implements control.Backend.
func (api *API) Description(ctx context.Context, revision int64) (out control.Description, err error) {
	now := api.Follow.Now()
	in := now.State.Description
	if in == nil {
		return out, control.Errorf(control.NotFound, "no cluster description has been applied")
	}
	if revision == 0 || revision == in.Revision {
		out = described(in)
		out.Problem = now.Problem
		return out, nil
	}
	shared, err := api.Follow.Change(ctx)
	if err != nil {
		return out, err
	}
	d, err := shared.DescriptionAt(ctx, revision)
	switch {
	case errors.Is(err, coord.ErrNotFound):
		return out, control.Errorf(control.NotFound, "no description of revision %d is kept", revision).
			WithHint("dim cluster log lists those that are")
	case err != nil:
		return out, follow.APIError(err)
	}
	return described(&d), nil
}

// described returns a description in the words of the API.
func described(d *coord.Description) control.Description {
	out := control.Description{
		Main: d.Files[0].Name, Files: map[string][]byte{}, Digest: d.Digest.String(), Revision: d.Revision,
		Applied: d.Applied,
	}
	for _, f := range d.Files {
		out.Files[f.Name] = f.Data
	}
	return out
}

// Descriptions implements control.Backend.
func (api *API) Descriptions(ctx context.Context) ([]control.AppliedDescription, error) {
	shared, err := api.Follow.Change(ctx)
	if err != nil {
		return nil, err
	}
	history, err := shared.History(ctx)
	if err != nil {
		return nil, follow.APIError(err)
	}
	return appliedList(history), nil
}

// appliedList returns a history in the words of the API. The first entry is the applied description.
func appliedList(history []coord.Description) []control.AppliedDescription {
	list := make([]control.AppliedDescription, len(history))
	for i, d := range history {
		list[i] = control.AppliedDescription{
			Revision: d.Revision, Current: i == 0, Time: d.Applied, Summary: d.Summary, Digest: d.Digest.String(),
			Origin: control.Origin{By: d.By, From: d.From, Message: d.Message},
		}
	}
	return list
}

// invalid turns the problems of a description into an API error that lists them all.
func invalid(err error) error {
	e := control.Errorf(control.Invalid, "%v", err)
	if ps, ok := errors.AsType[*cluster.Problems](err); ok {
		e.Message = "the description has " + quantity.Plural(len(ps.List)+ps.More, "problem")
		for _, p := range ps.List {
			e.Details = append(e.Details, p.String())
		}
	}
	return e
}
