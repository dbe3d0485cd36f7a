package api

import (
	"slices"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/verdict"
)

// TestTheSourcesOfAVerdict is the truth table of judgeRunning: what the node reports of its programs (- nothing, ? not
// all, + all) and of its units ("", "no", "yes"), and whether a person has confirmed.
func TestTheSourcesOfAVerdict(t *testing.T) {
	declared := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := declared.Add(time.Minute)
	const (
		reload, bus = verdict.DaemonReload, "systemctl reload dbus"
		stale       = "stale until restart of "
		after       = ", effective after "
		why         = notKnown + "why"
	)
	all := verdict.Verdict{
		Restart: []verdict.Service{{Unit: "a"}}, Init: true, Unknown: "why",
		Reload: []verdict.Reload{{Command: reload}, {Command: bus}},
	}
	units := verdict.Verdict{Reload: []verdict.Reload{{Command: reload}}}
	init := verdict.Verdict{Init: true}
	boot := all
	boot.Boot = 1
	for _, tt := range []struct {
		v               verdict.Verdict
		programs, units string
		confirmed       bool
		want            string
		asOf, byPerson  bool
	}{
		{all, "-", "", false, stale + "a" + after + reload + ", " + bus + why, true, false},
		{all, "-", "", true, current, false, true},
		{all, "?", "", false, stale + "a" + after + reload + ", " + bus + why, true, false},
		{all, "?", "no", false, stale + "a" + after + reload + ", " + bus + why, true, false},
		{all, "?", "yes", false, stale + "a" + after + bus + why, true, false},
		{all, "?", "no", true, current + after + reload, false, true},
		{all, "?", "yes", true, current, false, true},
		{all, "+", "", false, stale + "b" + after + reload + ", " + bus, true, false},
		{all, "+", "no", false, stale + "b" + after + reload + ", " + bus, true, false},
		{all, "+", "yes", false, stale + "b" + after + bus, true, false},
		{all, "+", "no", true, stale + "b" + after + reload, false, true},
		{all, "+", "yes", true, stale + "b", false, true},
		{units, "+", "no", false, stale + "b" + after + reload, false, false},
		{units, "+", "yes", true, stale + "b", false, false},
		{units, "-", "", false, current + after + reload, true, false},
		{units, "-", "", true, current, false, true},
		{init, "-", "", false, stale + "init", true, false},
		{init, "-", "", true, current, false, true},
		{init, "+", "", false, stale + "b", false, false},
		{boot, "-", "", false, "stale until reboot", false, false},
		{boot, "-", "", true, "stale until reboot", false, true},
		{boot, "+", "yes", false, "stale until reboot", false, false},
		{verdict.Verdict{}, "-", "", true, current, false, false},
	} {
		var p *control.Push
		if tt.programs != "-" {
			p = &control.Push{Restart: []string{"b"}, UnitsRead: tt.units}
		}
		if tt.programs == "?" {
			p.Omitted = 1
		}
		confirmed := map[bool]time.Time{true: at}[tt.confirmed]
		out := control.RolloutNode{Verdict: current}
		judgeRunning(&out, &tt.v, evidence{p, declared, confirmed})
		if out.Verdict != tt.want || out.AsOf.Equal(declared) != tt.asOf || out.Confirmed.Equal(at) != tt.byPerson ||
			out.Exact != (tt.programs == "+") || out.Exact && !slices.Equal(out.Restart, p.Restart) {
			t.Errorf("%s%q, confirmed %v: %s, as of %v, confirmed %v\nwant %s, %v, %v", tt.programs, tt.units,
				tt.confirmed, out.Verdict, out.AsOf, out.Confirmed, tt.want, tt.asOf, tt.byPerson)
		}
	}
}
