package stream

import (
	"encoding/json"
	"testing"

	"dim/internal/coord"
	"dim/internal/testkit"
)

func FuzzMessage(f *testing.F) {
	has, err := positionOf(state(2))
	testkit.Must(f, err)
	next, err := positionOf(state(3))
	testkit.Must(f, err)
	to := &adopted{common: next.common, changes: changesTo(next.common)}
	other := state(3)
	other.Description.Files = []coord.File{{Name: "cluster.xml", Data: []byte("<cluster></cluster>")}}
	edited, err := positionOf(other)
	testkit.Must(f, err)
	toEdited := &adopted{common: edited.common, changes: changesTo(edited.common)}
	for _, m := range []*message{
		has.messageTo(&next, to, &lines{}), (&position{}).messageTo(&next, to, &lines{}), {},
		has.messageTo(&edited, toEdited, &lines{edits: true}),
	} {
		f.Add([]byte(testkit.Value(json.Marshal(m))(f)))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMessage(line)
		if err != nil {
			return
		}
		if m.From > 0 && m.complete(has.state.Description) != nil {
			return
		}
		m.Digest = after(has, m).digest() // otherwise nothing comes further
		got, s, err := has.apply(m)
		if err != nil {
			return
		}
		if s.Store != m.Store || s.Revision != m.Revision || got.revision != m.Revision {
			t.Errorf("a message to revision %d leads to %d", m.Revision, s.Revision)
		}
		if _, err := positionOf(s); err != nil {
			t.Errorf("the state after the message cannot be sent: %v", err)
		}
	})
}

// after returns the position after a message, whatever its digest.
func after(p position, m *message) *position {
	before := facts{}
	if m.From > 0 {
		before = p.common.facts.with(p.nodes, nil)
	}
	all, own := before.with(m.Set, m.Removed).split()
	return &position{store: m.Store, revision: m.Revision, common: newCommon(all), nodes: own}
}
