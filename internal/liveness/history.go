package liveness

import (
	"slices"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
)

// Boot is one boot of a node.
type Boot struct {
	Events []boot.Event // oldest first; not to be changed
	// Ended says why the boot ended before the node ran. It is zero for one that ended with a running node, and for
	// the last one, whose Trouble is in State.
	Ended Trouble
}

// History returns the last boots of a node, the latest first.
func (t *Tracker) History(node cluster.NodeName) (list []Boot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.nodes[node]
	if r == nil || len(r.events) == 0 {
		return nil
	}
	list = append(list, Boot{Events: r.events})
	for _, events := range slices.Backward(r.earlier) {
		list = append(list, Boot{events, endOf(events)})
	}
	return list
}

// endOf says why a boot that another one followed ended before the node ran.
func endOf(events []boot.Event) Trouble {
	r := &record{events: events}
	if l := r.last(); l.Error != "" {
		return Trouble{Text: l.Error}
	}
	s, _ := r.next()
	return Trouble{s.text, s.hint}
}

// keepEarlier keeps a boot as an earlier one. A node that was running when it was first seen has not been seen to boot.
// Of boots that got no further than DHCP in a row, such as those of firmware that asks all day, the last one is kept.
func (r *record) keepEarlier(events []boot.Event) {
	if events[0].Stage == boot.StageRunning {
		return
	}
	list := slices.Clone(r.earlier)
	if n := len(list); n > 0 && onlyDHCP(list[n-1]) && onlyDHCP(events) {
		list = list[:n-1]
	}
	list = append(list, events)
	r.earlier = list[max(0, len(list)-maxEarlier):]
}

func onlyDHCP(events []boot.Event) bool {
	return !slices.ContainsFunc(events, func(e boot.Event) bool { return e.Stage != boot.StageDHCP })
}

// replay takes the next events of a node from the journal: more of the same boot, or another one. Boots that the
// journal has twice are kept once.
func (r *record) replay(events []boot.Event) {
	if !beganAt(r.events, events[0].Time) {
		r.forgetEarlier(r.events[0].Time)
		r.keepEarlier(r.events)
		r.forgetEarlier(events[0].Time)
	}
	r.events = events
}

// forgetEarlier removes the earlier boot that began at that time.
func (r *record) forgetEarlier(began time.Time) {
	r.earlier = slices.DeleteFunc(slices.Clone(r.earlier), func(b []boot.Event) bool { return beganAt(b, began) })
}

func beganAt(events []boot.Event, t time.Time) bool { return events[0].Time.Equal(t) }
