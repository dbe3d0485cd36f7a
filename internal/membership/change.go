package membership

import (
	"context"
	"errors"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
)

// Change removes, drains or undrains a server that has joined, or accepts its disk, or only checks that this can be
// done. It returns what a person should know about it. The error is a control.Error. The change is in force here when
// Change returns.
func (m *Membership) Change(
	ctx context.Context, name cluster.ServerName, r control.ServerChange,
) (note string, err error) {
	if r.Do == "remove" && name == m.Server {
		return "", control.Errorf(control.Invalid, "server %s is this one: it cannot remove itself", name).
			WithHint("run dim server rm on a head")
	}
	shared, err := m.Follow.Change(ctx)
	if err != nil {
		return "", err
	}
	_, declared := m.Follow.Cluster().Server(name)
	var do func() error
	switch r.Do {
	case "remove":
		if declared {
			note = "switch it off, and take it out of the description: until then it serves its nodes from its disk"
		}
		if effect := m.effectOfRemoval(name); effect != "" {
			note = strings.TrimPrefix(note+"; "+effect, "; ")
		}
		do = func() error {
			// A head that was removed only here would ask to be added again.
			if err := m.removeMember(ctx, name); err != nil {
				return err
			}
			return shared.RemoveServer(ctx, string(name))
		}
	case "drain":
		note = "its nodes that run are served on; those that boot wait until dim server undrain " + string(name)
		do = func() error { return shared.DrainServer(ctx, string(name), time.Now().UTC().Truncate(time.Second)) }
	case "undrain":
		do = func() error { return shared.DrainServer(ctx, string(name), time.Time{}) }
	case "accept-older":
		note = "what the nodes of " + string(name) + " have written since the disk was copied is lost"
		do = func() error { return shared.AcceptDisk(ctx, string(name)) }
	default:
		return "", control.Errorf(control.Invalid, "change server %s: %q is not a change", name, r.Do)
	}
	if r.DryRun {
		return note, nil
	}
	if err := do(); err != nil {
		if errors.Is(err, coord.ErrNotFound) {
			return "", control.Errorf(control.NotFound, "server %s has not joined", name).
				WithHint("dim server ls lists those that have")
		}
		return "", follow.APIError(err)
	}
	return note, m.Follow.Refresh(ctx, shared)
}
