package follow

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"dim/internal/coord"
	"dim/internal/image"
)

// extent is how much a declared state changes of the one before.
type extent int

const (
	sameContent  extent = iota // but for the revision
	moreRecords                // of rollouts, or there are more versions: no node follows something else for it
	otherContent               // anything else
)

// extent returns how much d changes of old. What a change was not about is the same value in both: packages coord and
// stream.
func (d *Declared) extent(old *Declared) extent {
	a, b := &old.State, &d.State
	switch {
	case a.Revision == 0, a.Store != b.Store, a.Restoring != b.Restoring,
		d.Digest != old.Digest, d.Problem != old.Problem, a.Description != b.Description,
		!maps.Equal(a.Desired, b.Desired), !maps.Equal(a.Next, b.Next),
		!maps.Equal(a.Layers, b.Layers), !maps.Equal(a.Leaving, b.Leaving), !maps.Equal(a.Renaming, b.Renaming),
		!reflect.DeepEqual(a.Servers, b.Servers), !maps.Equal(a.Revoked, b.Revoked),
		a.Superseded != b.Superseded,
		!maps.Equal(a.Watches, b.Watches):
		return otherContent
	}
	x := extentOfImages(a.Images, b.Images)
	if !maps.EqualFunc(a.Rollouts, b.Rollouts, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
		x = max(x, moreRecords)
	}
	return x
}

// extentOfImages returns how much the images b change of a.
func extentOfImages(a, b map[string]*coord.Image) extent {
	if len(a) != len(b) {
		return otherContent
	}
	x := sameContent
	for name, after := range b {
		before := a[name]
		switch {
		case before == nil, before.Current != after.Current, !maps.Equal(before.Tags, after.Tags),
			!begins(after.Versions, before.Versions):
			return otherContent
		case len(before.Versions) == len(after.Versions):
		case after.Current == 0: // nodes follow the newest
			return otherContent
		default:
			x = moreRecords
		}
	}
	return x
}

// begins reports whether a list begins with some versions.
func begins(list, with []image.Version) bool {
	return len(list) >= len(with) && slices.EqualFunc(list[:len(with)], with, func(a, b image.Version) bool {
		return a.Number == b.Number && a.Digest == b.Digest
	})
}
