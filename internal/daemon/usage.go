package daemon

import (
	"dim/internal/control"
	"dim/internal/layers"
)

// usage tells what the node of x has cost.
func (x *export) usage() (*control.NodeUsage, error) {
	use, err := layers.Of(x.fs).Usage()
	if err != nil {
		return nil, err
	}
	u := &control.NodeUsage{Files: use.Files, Layer: use.Bytes}
	if m := x.meter; m != nil {
		u.Calls, u.Errors, u.Received, u.Sent = m.Calls.Load(), m.Errors.Load(), m.BytesIn.Load(), m.BytesOut.Load()
	}
	return u, nil
}
