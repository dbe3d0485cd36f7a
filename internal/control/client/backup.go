package client

import (
	"bufio"
	"bytes"
	"context"
	"net/http"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// BackupState returns what a backup needs of the daemon, which brings the state on disk up to date.
func (c *Client) BackupState(ctx context.Context) (control.BackupState, error) {
	return call[control.BackupState](ctx, c, http.MethodPost, "/v1/backup/state", nil)
}

// Stage asks for a copy of what a replica has on disk. The daemon removes it after release.
func (c *Client) Stage(ctx context.Context, r control.StageRequest) (s control.Staged, release func(), err error) {
	resp, err := c.do(ctx, http.MethodPost, "/v1/backup/stage", r)
	if err != nil {
		return s, nil, err
	}
	release = func() { resp.Body.Close() }
	line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err != nil {
		release()
		return s, nil, control.Errorf(control.Unavailable, "the daemon ended before it answered: %v", err)
	}
	err = readLine(bytes.TrimSpace(line), &struct{}{}, func(l wire.Line) {
		if l.Staged != nil {
			s = *l.Staged
		}
	})
	if s.Path == "" {
		release()
		return s, nil, err
	}
	return s, release, nil
}
