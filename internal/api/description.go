package api

import (
	"context"
	"errors"
	"fmt"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
)

// Description implements control.Backend.
func (api *API) Description(context.Context) (control.Description, error) {
	now := api.Follow.Now()
	in := now.State.Description
	if in == nil {
		return control.Description{}, control.Errorf(control.NotFound, "no cluster description has been applied")
	}
	out := control.Description{
		Main: in.Files[0].Name, Files: map[string][]byte{}, Digest: in.Digest.String(), Revision: in.Revision,
		Applied: in.Applied, Problem: now.Problem,
	}
	for _, f := range in.Files {
		out.Files[f.Name] = f.Data
	}
	return out, nil
}

// Apply implements control.Backend.
func (api *API) Apply(ctx context.Context, in control.Description) (control.Description, error) {
	c, err := cluster.Parse(cluster.Source{
		Name: in.Main, XML: in.Files[in.Main],
		Open: func(name string) ([]byte, error) {
			if data, ok := in.Files[name]; ok {
				return data, nil
			}
			return nil, fmt.Errorf("%s did not come with the description", name)
		},
	})
	if err != nil {
		return in, invalid(err)
	}
	if _, ok := c.Server(api.Server); !ok {
		return in, control.Errorf(control.Invalid,
			"apply %s: it has no server %s, which is the one that runs here", in.Main, api.Server)
	}
	shared, err := api.Follow.Change(ctx)
	if err != nil {
		return in, err
	}
	revision := in.Revision
	if revision == 0 {
		revision = coord.Any
	}
	if _, err := shared.PutDescription(ctx, follow.Describe(c), revision); err != nil {
		return in, follow.APIError(err)
	}
	if err := api.Follow.Refresh(ctx, shared); err != nil {
		return in, err
	}
	return api.Description(ctx)
}

// invalid turns the problems of a description into an API error that lists them all.
func invalid(err error) error {
	e := control.Errorf(control.Invalid, "%v", err)
	if ps, ok := errors.AsType[*cluster.Problems](err); ok {
		e.Message = fmt.Sprintf("the description has %d problems", len(ps.List)+ps.More)
		for _, p := range ps.List {
			e.Details = append(e.Details, p.String())
		}
	}
	return e
}
