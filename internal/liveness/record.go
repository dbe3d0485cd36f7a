package liveness

import (
	"slices"
	"time"

	"dim/internal/boot"
)

const (
	// maxEvents bounds what is kept of one boot: ten stages, some twice, and some failures. The first and the last are
	// kept.
	maxEvents = 40
	// sameBoot is how long a second DHCP request belongs to the same boot: the loader asks soon after the firmware.
	sameBoot = 5 * time.Minute
	// maxEarlier bounds the boots that are kept of each node besides the last one.
	maxEarlier = 3
	// reportLost is how long after the last report an NFS call shows that a node runs although it never reported the
	// handover: reports are sent once, and may be lost.
	reportLost = time.Minute
)

// record is what is kept of one node.
type record struct {
	// events are the last boot, sorted by time except that the first one stays first. A slice that was handed out is
	// never changed: each change makes a new one.
	events []boot.Event
	// earlier are the boots before that, oldest first. unsaved is how many of them, the last ones, the journal lacks.
	earlier [][]boot.Event
	unsaved int

	lastCall    time.Time
	lastContact time.Time
	probe       probe
	refusal     Refusal
	clock       clock

	// repeats is how many boots in a row ended before the node ran, all of them waiting for the step repeated.
	repeats  int
	repeated step

	claim *boot.Event // a DHCP request in the name of the node, which runs; nil: none
	saved time.Time   // when the journal got events that say that the node boots
}

// runs reports whether the last that is known of a node is that it runs.
func (r *record) runs() bool { return len(r.events) > 0 && r.last().Stage == boot.StageRunning }

// addClaim adds a request in the name of a node that runs. The first one counts.
func (r *record) addClaim(e boot.Event) {
	if r.claim == nil {
		r.claim = &e
		return
	}
	c := *r.claim
	c.Count++
	c.Last = later(c.Last, e.Last)
	r.claim = &c
}

// begin begins another boot with the claim.
func (r *record) begin() {
	r.endBoot()
	r.events = []boot.Event{*r.claim}
	r.claim = nil
}

// last returns the last event; there must be one.
func (r *record) last() *boot.Event { return &r.events[len(r.events)-1] }

// lastSeen returns when the node gave its last sign of life by itself.
func (r *record) lastSeen() time.Time {
	seen := later(r.lastCall, r.lastContact)
	if len(r.events) > 0 {
		seen = later(seen, r.last().Last)
	}
	return seen
}

// state draws the conclusions of what is known at a time, when so many nodes boot.
func (r *record) state(now time.Time, booting int) State {
	s := State{Stage: Off, Events: r.events, LastCall: r.lastCall, LastSeen: r.lastSeen(), Refusal: r.refusal}
	s.MayRun = now.Sub(later(s.LastSeen, r.probe.answered)) < upTimeout
	if len(r.events) == 0 {
		return s
	}
	l := r.last()
	s.Stage, s.Since, s.Detail, s.Error = l.Stage, l.Time, l.Detail, l.Error
	for i := len(r.events) - 1; i >= 0 && r.events[i].Stage == l.Stage; i-- {
		s.Since = r.events[i].Time
		// Firmware whose address is declined, or that asks by the wrong card, asks again and again. What was wrong
		// stays until the boot goes on.
		if l.Stage == boot.StageDHCP && s.Error == "" {
			s.Error = r.events[i].Error
		}
	}
	if first := r.events[0]; first.Stage != boot.StageRunning {
		s.Began = first.Time
	}
	s.Booting = givenKernel(l) && now.Sub(l.Last) < bootTimeout
	s.Running = l.Stage == boot.StageRunning
	s.Trouble = r.trouble(now, booting)
	if r.started() && r.probe.silent(s.LastSeen) {
		s.Running, s.Booting = false, false
		s.Stage, s.Since, s.Detail = Silent, s.LastSeen, r.probe.cause()
	}
	if s.Running {
		s.Ahead = r.clock.ahead
	}
	return s
}

// started reports whether the node's own init was started.
func (r *record) started() bool {
	return len(r.events) > 0 && (r.last().Stage == boot.StageRunning || r.last().Stage == boot.StageHandover)
}

// givenKernel reports whether a node whose last event is e was given a kernel and does not run yet.
func givenKernel(e *boot.Event) bool {
	switch e.Stage {
	case boot.StageScript:
		return e.Error == "" // else there was no kernel to give
	case boot.StageKernel, boot.StageInitramfs, boot.StageLink, boot.StageAddress, boot.StageMount, boot.StageHandover:
		return true
	}
	return false
}

// runsAt reports whether an NFS call at that time shows that the node runs, which is not known yet.
func (r *record) runsAt(at time.Time) bool {
	if len(r.events) == 0 {
		return true
	}
	l := r.last()
	booting := l.Stage != boot.StageHandover && at.Sub(l.Last) < reportLost
	return l.Stage != boot.StageRunning && !booting
}

// add adds an event to the last boot, or begins another boot with it.
func (r *record) add(e boot.Event) {
	if len(r.events) == 0 {
		r.events = []boot.Event{e}
		return
	}
	if e.Stage == boot.StageDHCP && !r.asksAgain(e.Time) {
		r.endBoot()
		r.events = []boot.Event{e}
		return
	}
	r.insert(e)
}

// asksAgain reports whether a DHCP request at that time belongs to the last boot.
func (r *record) asksAgain(at time.Time) bool {
	l := r.last()
	return (l.Stage == boot.StageDHCP || l.Stage == boot.StageLoader) && at.Sub(l.Last) < sameBoot
}

// insert puts e where its time belongs, behind events of the same time. A report can come late: dim-init cannot send
// the first ones before it has an address.
func (r *record) insert(e boot.Event) {
	events := slices.Clone(r.events)
	defer func() { r.events = events }()
	if l := &events[len(events)-1]; l.Stage == e.Stage && l.Detail == e.Detail && l.Error == e.Error {
		l.Count++
		l.Last = later(l.Last, e.Last)
		return
	}
	i := len(events)
	for i > 1 && events[i-1].Time.After(e.Time) { // never before the boot's first event
		i--
	}
	events = slices.Insert(events, i, e)
	if len(events) > maxEvents {
		events = slices.Delete(events, maxEvents/2, maxEvents/2+1)
	}
}
