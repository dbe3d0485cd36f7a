package layers

import (
	"dim/internal/layer"
	"dim/internal/replica"
)

// Saved lists what was set aside, the latest first. What comes or goes meanwhile may be listed or not: calls of the node do not wait.
func (l Layer) Saved() ([]layer.SetAside, error) {
	if err := l.r.View(func(replica.LayerEntry) error { return nil }); err != nil { // what a crash has left is completed by now
		return nil, err
	}
	return l.saved()
}

// saved is Saved, with the replica locked or not.
func (l Layer) saved() ([]layer.SetAside, error) {
	if l.none() {
		return nil, nil
	}
	list, err := l.root.ReadSaved(l.home)
	if err != nil {
		return nil, err
	}
	node, image := l.r.Name()
	for i := range list {
		list[i].Node, list[i].Image = node, image
	}
	return list, nil
}
