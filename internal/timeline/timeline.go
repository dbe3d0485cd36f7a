// Package timeline says where the time of a boot went, and whether that is more than other nodes take.
//
// # Concepts
//
// A boot is a sequence of events, such as that the kernel was asked for. A Step is the time from one event to the next
// one. Events that repeat each other, such as DHCP requests of firmware, are one Step. What happens in a Step follows
// from the two events around it: between the fetch of the initramfs and the first report of dim-init the kernel starts.
//
// A Step is slow if it takes three times as long as the median of the same step of other nodes, and three seconds more.
//
// # What it must not know
//
// Which nodes are compared, and how a boot is observed.
package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"dim/internal/boot"
)

// Boot is the timeline of one boot.
type Boot struct {
	Began time.Time
	Took  time.Duration // until the node ran; until its last step if it does not
	Ran   bool          // the node got as far as running
	Steps []Step
}

// Step is a part of a boot.
type Step struct {
	Stage  boot.Stage
	Began  time.Time
	Took   time.Duration // until the next step; 0 of the last one
	Text   string        // the last message about it
	Error  string        // why the last try failed; "" if it succeeded
	Count  int           // how many equal events it has, such as requests
	Median time.Duration // of the boots that it was compared with; 0: they are too few
	Slow   bool

	doing activity
}

// Finding says in a sentence why a boot took long, and what to do.
type Finding struct{ Text, Hint string }

const (
	// MinCompared is the least number of boots whose median says anything.
	MinCompared = 3
	// slowFactor and slowExtra bound the time of a step that is not slow: it takes less than slowFactor medians, or
	// less than slowExtra more than the median.
	slowFactor = 3
	slowExtra  = 3 * time.Second
)

// Of returns the timeline of the events of a boot. until is the time at which its last step ends if the node does not
// run; zero: that is not known.
func Of(events []boot.Event, until time.Time) (b Boot) {
	for i := range events {
		e := &events[i]
		doing := activityOf(e)
		if n := len(b.Steps); n > 0 && b.Steps[n-1].doing == doing {
			last := &b.Steps[n-1]
			last.Text, last.Error, last.Count = cmp.Or(e.Detail, last.Text), e.Error, last.Count+e.Count
			continue
		}
		b.Steps = append(b.Steps,
			Step{Stage: e.Stage, Began: e.Time, Text: e.Detail, Error: e.Error, Count: e.Count, doing: doing})
	}
	if len(b.Steps) == 0 {
		return b
	}
	last := &b.Steps[len(b.Steps)-1]
	b.Began, b.Ran = b.Steps[0].Began, last.Stage == boot.StageRunning
	end := last.Began
	if !b.Ran && until.After(end) {
		end = until
	}
	for i := range b.Steps {
		next := end
		if i+1 < len(b.Steps) {
			next = b.Steps[i+1].Began
		}
		b.Steps[i].Took = max(0, next.Sub(b.Steps[i].Began))
	}
	b.Took = max(0, end.Sub(b.Began))
	return b
}

// Compare sets the medians of b's steps, and which of them are slow, by boots of other nodes.
func (b *Boot) Compare(others []Boot) {
	times := map[activity][]time.Duration{}
	for i := range others {
		for doing, took := range others[i].longest() {
			times[doing] = append(times[doing], took)
		}
	}
	for i := range b.Steps {
		s := &b.Steps[i]
		if list := times[s.doing]; len(list) >= MinCompared && s.Stage != boot.StageRunning {
			s.Median = median(list)
			s.Slow = s.Took >= slowFactor*s.Median && s.Took >= s.Median+slowExtra
		}
	}
}

// longest returns the longest step of each activity.
func (b *Boot) longest() map[activity]time.Duration {
	steps := map[activity]time.Duration{}
	for i := range b.Steps {
		steps[b.Steps[i].doing] = max(steps[b.Steps[i].doing], b.Steps[i].Took)
	}
	return steps
}

// median returns the median of durations, 0 for none. It sorts them.
func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	half := len(list) / 2
	if len(list)%2 == 1 {
		return list[half]
	}
	return (list[half-1] + list[half]) / 2
}

// Slowest describes the slow step that took the most time beyond the median; ok is false when none is slow. others are
// the boots that b was compared with, and who says which nodes they are of: "15 nodes of rack 2".
func (b *Boot) Slowest(others []Boot, who string) (f Finding, ok bool) {
	var worst *Step
	for i := range b.Steps {
		s := &b.Steps[i]
		if s.Slow && (worst == nil || s.Took-s.Median > worst.Took-worst.Median) {
			worst = s
		}
	}
	if worst == nil {
		return f, false
	}
	f = Finding{
		Text: fmt.Sprintf("%s took %s, where %s took %s", worst.doing, Span(worst.Took), who, Span(worst.Median)),
		Hint: hints[worst.doing],
	}
	if speed, usual, slow := b.linkIsSlow(others); slow {
		f.Hint = fmt.Sprintf(
			"its link has %d Mb/s, theirs has %d Mb/s: look at its cable and its switch port", speed, usual)
	}
	return f, true
}

// linkIsSlow reports whether the link of a boot is slower than that of most of the others. The speeds are in Mb/s.
func (b *Boot) linkIsSlow(others []Boot) (speed, usual int, slow bool) {
	counts := map[int]int{}
	for i := range others {
		if s := others[i].speed(); s > 0 {
			counts[s]++
		}
	}
	for s, n := range counts {
		if n > counts[usual] {
			usual = s
		}
	}
	speed = b.speed()
	return speed, usual, speed > 0 && speed < usual && 2*counts[usual] > len(others)
}

// speed returns the speed in dim-init's report of the link, such as "the boot card … has a link, 1000 Mb/s", in Mb/s;
// 0 if it is not there.
func (b *Boot) speed() int {
	for i := range b.Steps {
		s := &b.Steps[i]
		if _, text, ok := strings.Cut(s.Text, "has a link, "); ok && s.Stage == boot.StageLink {
			speed, _ := strconv.Atoi(strings.TrimSuffix(text, " Mb/s")) // 0 if it is no number
			return speed
		}
	}
	return 0
}

// Span formats a duration for people: "140 ms", "3.1 s", "41 s", "2m10s".
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
