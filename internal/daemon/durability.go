package daemon

import (
	"dim/internal/cluster"
	"dim/internal/replica"
)

// durability is what replies to the nodes of an image promise.
func durability(im *cluster.Image) replica.Durability {
	switch im.Durability {
	case cluster.DurabilityAsyncMetadata:
		return replica.AsyncNames
	case cluster.DurabilityAsync:
		return replica.Relaxed
	}
	return replica.Synced
}
