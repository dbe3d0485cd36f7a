package membership

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/peer"
	"dim/internal/pki"
)

const (
	// standingPath is what a head asks for, to find out whether it is still accepted.
	standingPath = "/peer/v1/standing"
	// standingInterval is the interval between two calls of askStanding.
	standingInterval = 5 * time.Second
	// standingTimeout bounds one of them.
	standingTimeout = 5 * time.Second
)

// askStanding asks an image server whether another head goes on without this one. Heads that can reach each other know
// that by their reports. This one may reach only image servers that follow the other head, and they refuse it with the
// proof that the other head made. Without a proof nothing follows from what an image server says: it may lie. The event
// is logged once, by follow.Follower.NoteSuperseded; until that has told the other heads, this is repeated.
func (m *Membership) askStanding(ctx context.Context, c *peer.Client) {
	now := m.Follow.Now()
	authority := m.Credentials.Authority()
	if authority == nil || len(now.OtherHeads(m.Server)) == 0 || now.State.Superseded.Server != "" {
		return
	}
	var images []cluster.ServerName
	for _, s := range now.Cluster.Servers {
		if _, joined := now.State.Servers[string(s.Name)]; joined && !s.Has(cluster.RoleHead) {
			images = append(images, s.Name)
		}
	}
	if len(images) == 0 {
		return
	}
	to := images[rand.IntN(len(images))]
	ended := standing(ctx, c, to)
	if ended == nil || !authority.Proves(ended, m.Credentials.Identity().ID) || overruled(now.State, ended) {
		return
	}
	m.Log.Debug("an image server refuses this head: it follows one that goes on without it", "server", to)
	by := coord.Revocation{Server: string(ended.Head), Time: ended.Time}
	if err := m.Follow.NoteSuperseded(ctx, by); err != nil {
		m.Log.Debug("other heads are not told that the identity of this one has ended", "error", err)
	}
}

// standing returns why a server refuses this one, if the identity of this one has ended.
func standing(ctx context.Context, c *peer.Client, server cluster.ServerName) *pki.EndedError {
	ctx, cancel := context.WithTimeout(ctx, standingTimeout)
	defer cancel()
	hc, base := c.To(server)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+standingPath, nil)
	if err != nil {
		return nil
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil // another one is asked next time
	}
	defer resp.Body.Close()
	return pki.EndedIn(resp.Header)
}

// overruled reports whether the state has ended the identity of the head that goes on without this one, later than that
// head ended the identity of this one: by dim server recover here.
func overruled(s coord.State, ended *pki.EndedError) bool {
	for _, r := range s.Revoked {
		if r.Server == string(ended.Head) && !r.Time.Before(ended.Time) {
			return true
		}
	}
	return false
}
