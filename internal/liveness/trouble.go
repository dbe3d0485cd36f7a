package liveness

import (
	"fmt"
	"strings"
	"time"

	"dim/internal/boot"
)

// Trouble says why a boot does not go on. The zero Trouble means that it does, or that its time is not over yet.
type Trouble struct {
	Text string // what happened last, and what did not follow
	Hint string // likely causes, and what to do
}

const (
	// waitForEach is added to each time limit for each node that boots: a boot fetches some 100 MB, of which a link of
	// 1 Gbit/s carries one a second.
	waitForEach = time.Second
	// brokenOff is the number of boots in a row that ended before dim-init or init ran, from which on the next one is
	// in trouble at once. Two may be the impatience of a person.
	brokenOff = 2
	// maxRepeats bounds the count of boots that ended so.
	maxRepeats = 1000
)

// step is what a boot waits for after an event.
type step struct {
	limit time.Duration // how long one node alone may take
	text  string
	hint  string
}

// next returns what a boot waits for after its last event. ok is false when it waits for nothing.
func (r *record) next() (s step, ok bool) {
	switch l := r.last(); l.Stage {
	case boot.StageDHCP:
		if !r.hasLoader() {
			return step{2 * time.Minute, "its firmware got an address and fetches no boot loader",
					"neither TFTP (UDP port 69) nor HTTP of this server reaches it: check firewalls and the MTU"},
				true
		}
		return step{2 * time.Minute, "its boot loader got an address and does not fetch its script",
			"HTTP of this server does not reach it: look for firewalls, and at its console"}, true
	case boot.StageLoader:
		return step{2 * time.Minute, "it has fetched the boot loader " + loaderOf(l) + ", which does not start",
			secureBoot}, true
	case boot.StageScript:
		return step{2 * time.Minute, "it has fetched its boot script and does not fetch the kernel",
			"its console has the loader's message; the loader tries again by itself"}, true
	case boot.StageKernel:
		return step{3 * time.Minute, "it has fetched the kernel, and nothing came after that",
			"the firmware or loader cannot start this kernel: compare its processor with the image's arch " +
				"(dim image show), and look at its console"}, true
	case boot.StageInitramfs:
		if l.Detail == boot.DetailFetched {
			return step{3 * time.Minute, "it has fetched kernel and initramfs, and its dim-init never reported",
				"the kernel does not start, it has no driver for the boot card, or too little memory: " +
					"its console shows which"}, true
		}
		return step{2 * time.Minute, "its dim-init runs and finds no network card", consoleHint}, true
	case boot.StageLink, boot.StageAddress:
		return step{2 * time.Minute, "its dim-init reported last that " + reported(l), consoleHint}, true
	case boot.StageMount:
		return step{2 * time.Minute, "its root is mounted, and its init was not started", consoleHint}, true
	case boot.StageHandover:
		return step{2 * time.Minute, "its init was started and makes no call",
			"the node was switched off, its kernel has stopped, or its network was cut by what init started: " +
				"its console shows which"}, true
	}
	return step{}, false
}

const (
	consoleHint = "it was switched off, has crashed, or lost its network: look at its console"
	secureBoot  = "switch Secure Boot off: the loaders are not signed. Or the loader is for another processor"
)

func reported(e *boot.Event) string {
	if e.Detail == "" {
		return string(e.Stage) + " was done"
	}
	return "“" + e.Detail + "”"
}

// loaderOf returns the name of the loader in an event of StageLoader.
func loaderOf(e *boot.Event) string {
	name, _, _ := strings.Cut(e.Detail, " ")
	return name
}

// trouble returns why a boot does not go on. booting is how many nodes boot now.
func (r *record) trouble(now time.Time, booting int) Trouble {
	l := r.last()
	if l.Error != "" || l.Stage == boot.StageRunning {
		return Trouble{}
	}
	if t, ok := r.loaderTrouble(now, booting); ok {
		return t
	}
	if r.repeats >= brokenOff && beforeHandover(l.Stage) {
		return Trouble{
			Text: fmt.Sprintf("its last %d boots ended the same way: %s", r.repeats, r.repeated.text),
			Hint: r.repeated.hint,
		}
	}
	s, ok := r.next()
	if !ok || now.Sub(l.Last) < s.limit+time.Duration(booting)*waitForEach {
		return Trouble{}
	}
	return Trouble{s.text, s.hint}
}

// loaderTrouble returns the trouble of firmware that fetches its loader again and again and does not start it.
func (r *record) loaderTrouble(now time.Time, booting int) (t Trouble, ok bool) {
	var first *boot.Event
	var names []string
	for i := range r.events {
		switch e := &r.events[i]; {
		case e.Stage == boot.StageLoader:
			if first == nil {
				first = e
			}
			if i == 0 || r.events[i-1].Stage != boot.StageLoader { // firmware asks for the size first
				names = append(names, loaderOf(e))
			}
		case e.Stage != boot.StageDHCP || e.Detail == boot.DetailIPXE:
			first, names = nil, nil
		}
	}
	limit := 2*time.Minute + time.Duration(booting)*waitForEach
	if len(names) < 2 || now.Sub(first.Time) < limit {
		return t, false
	}
	return Trouble{
		Text: fmt.Sprintf("its firmware has fetched %d boot loaders (last %s) and starts none",
			len(names), names[len(names)-1]),
		Hint: secureBoot,
	}, true
}

// hasLoader reports whether the last DHCP request was one of the loader.
func (r *record) hasLoader() bool { return r.last().Detail == boot.DetailIPXE }

// beforeHandover reports whether a stage comes before the node's own init.
func beforeHandover(s boot.Stage) bool { return s != boot.StageHandover && s != boot.StageRunning }

// endBoot notes how the boot ends in whose place another one begins, and keeps it as an earlier one.
func (r *record) endBoot() {
	r.keepEarlier(r.events)
	r.unsaved = min(r.unsaved+1, len(r.earlier))
	switch s, _ := r.next(); r.last().Stage {
	case boot.StageRunning:
		r.repeats, r.repeated = 0, step{}
	case boot.StageDHCP, boot.StageLoader, boot.StageScript:
	default:
		if s.text != r.repeated.text {
			r.repeats, r.repeated = 0, s
		}
		r.repeats = min(r.repeats+1, maxRepeats)
	}
}
