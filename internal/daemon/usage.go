package daemon

import "dim/internal/control"

// usage tells what the node of x has cost.
func (x *export) usage() (*control.NodeUsage, error) {
	layer, err := x.fs.Usage()
	if err != nil {
		return nil, err
	}
	u := &control.NodeUsage{Files: layer.Files, Layer: layer.Bytes}
	if m := x.meter; m != nil {
		u.Calls, u.Errors, u.Received, u.Sent = m.Calls.Load(), m.Errors.Load(), m.BytesIn.Load(), m.BytesOut.Load()
	}
	return u, nil
}
