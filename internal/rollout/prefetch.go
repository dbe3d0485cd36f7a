package rollout

import (
	"fmt"
	"slices"
	"time"
)

// prefetchTime is how long a rollout waits for servers that get its version.
const prefetchTime = 10 * time.Minute

// Prefetch lets a rollout that is not declared yet wait, before its first ring, until the servers of its nodes have the
// version.
func (r *Rollout) Prefetch() { r.Phase = prefetching }

// Prefetching reports whether the rollout waits until the servers of its nodes have the version.
func (r *Rollout) Prefetching() bool { return r.Phase == prefetching }

// Prefetched returns what a rollout needs that is Prefetching. servers are those of its nodes. known tells whether one
// has the version whole, and from when on it counts as silent if nothing more is heard of it. The zero Step is to
// declare the first ring, and so is one with Skip, which names the servers that are not waited for: those that are
// silent, and in the end those that get the version too slowly.
func (r *Rollout) Prefetched(servers []string, known func(string) (has bool, silent time.Time), now time.Time) Step {
	var getting, skip Nodes
	for _, s := range servers {
		has, silent := known(s)
		switch {
		case !now.Before(silent):
			skip = append(skip, s)
		case has:
		case now.Sub(r.Since) < prefetchTime:
			getting = append(getting, s)
		default:
			skip = append(skip, s)
		}
	}
	if len(getting) > 0 {
		rest := r.Since.Add(prefetchTime).Sub(now).Round(time.Second)
		return Step{Wait: fmt.Sprintf("%s to have %s, for %s more", getting, r.Ref(), rest)}
	}
	slices.Sort(skip)
	return Step{Skip: skip.String()}
}
