package layers

import (
	"time"

	"dim/internal/layer"
	"dim/internal/replica"
)

// Saved lists what was set aside, the latest first. Calls of the node do not wait: what comes or goes meanwhile
// may be listed or not.
func (l Layer) Saved() ([]layer.SetAside, error) {
	load := func(replica.LayerEntry) error { return nil }
	if err := l.r.View(load); err != nil { // it completes what a crash has interrupted
		return nil, err
	}
	return l.saved()
}

// saved is Saved, with the replica locked or not.
func (l Layer) saved() ([]layer.SetAside, error) { return l.SavedSince(time.Time{}) }

// SavedSince is Saved of what was set aside at a time or later. It does not read the layer, so it costs little where
// nothing was. What an interrupted switch still has to set aside is not listed.
func (l Layer) SavedSince(at time.Time) ([]layer.SetAside, error) {
	if l.none() {
		return nil, nil
	}
	list, err := l.root.ReadSaved(l.home, at)
	if err != nil {
		return nil, err
	}
	node, image := l.r.Name()
	for i := range list {
		list[i].Node, list[i].Image = node, image
	}
	return list, nil
}
