package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// prefetchTime is how long a rollout waits for servers that get its version.
	prefetchTime = 10 * time.Minute
	// silentTime is how long it waits for servers of which nothing is heard.
	silentTime = time.Minute
)

// Prefetch lets a rollout that is not declared yet wait, before its first ring, until the servers of its nodes have the
// version.
func (r *Rollout) Prefetch() { r.Phase = prefetching }

// Prefetching reports whether the rollout waits until the servers of its nodes have the version.
func (r *Rollout) Prefetching() bool { return r.Phase == prefetching }

// Prefetched returns what a rollout needs that is Prefetching. servers are those of its nodes. known tells whether one
// has been heard of lately, and whether it has the version whole. The zero Step is to declare the first ring, and so is
// one with Skip, which names the servers that are not waited for.
func (r *Rollout) Prefetched(servers []string, known func(string) (heard, has bool), now time.Time) Step {
	var getting, silent, skip Nodes
	for _, s := range servers {
		heard, has := known(s)
		switch waited := now.Sub(r.Since); {
		case has && heard:
		case heard && waited < prefetchTime:
			getting = append(getting, s)
		case !heard && waited < silentTime:
			silent = append(silent, s)
		default:
			skip = append(skip, s)
		}
	}
	var wait []string
	if len(getting) > 0 {
		rest := left(r.Since, prefetchTime, now)
		wait = append(wait, fmt.Sprintf("%s to have %s, for %s more", getting, r.Ref(), rest))
	}
	if len(silent) > 0 {
		wait = append(wait, fmt.Sprintf("%s to report, for %s more", silent, left(r.Since, silentTime, now)))
	}
	if len(wait) > 0 {
		return Step{Wait: strings.Join(wait, "; ")}
	}
	slices.Sort(skip)
	return Step{Skip: skip.String()}
}

func left(since time.Time, bound time.Duration, now time.Time) time.Duration {
	return since.Add(bound).Sub(now).Round(time.Second)
}
