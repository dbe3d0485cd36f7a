package reporting

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/verdict"
)

// Residents knows what the resident processes of this server's nodes reported, and what follows from that. Push and
// Set are needed.
type Residents struct {
	Push *push.Hub
	Set  *replica.Set

	mu    sync.Mutex
	units map[cluster.NodeName]unitsAnswer // the last answer of each node: it takes a walk over what has changed
}

// unitsAnswer is whether a node has read its units, by the switch up to which it has looked and read them.
type unitsAnswer struct {
	seen, read int64
	yes        string
}

// of returns what is reported of a node's resident process; the zero Resident if that has not called since the start.
func (r *Residents) of(node cluster.NodeName) fleet.Resident {
	said, ok := r.Push.Status(node)
	if !ok {
		return fleet.Resident{}
	}
	out := fleet.Resident{Reported: said.Called.Round(0), Memory: said.Memory}
	out.State, out.UnitsRead = r.State(node, &said)
	var omitted int
	out.Restart, omitted = fleet.JoinNames(Restart(said.Stale))
	out.Omitted = said.Omitted + omitted
	return out
}

// State returns State and UnitsRead of control.Push by what a node's process said last.
func (r *Residents) State(node cluster.NodeName, said *push.Status) (state, unitsRead string) {
	if !said.Connected(time.Now()) {
		return control.PushLost, ""
	}
	rep, ok := r.Set.Find(replica.ReplicaTree(string(node), said.Image))
	if !ok || rep.ChangedDirs(said.Stamp).Stamp != said.Stamp {
		return control.PushBehind, ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.units[node]
	if !ok || last.seen != said.Stamp || last.read != said.Units {
		last = unitsAnswer{said.Stamp, said.Units, readUnits(rep, said.Units)}
		if r.units == nil {
			r.units = map[cluster.NodeName]unitsAnswer{}
		}
		r.units[node] = last
	}
	return control.PushCurrent, last.yes
}

// readUnits returns whether units have been read since a switch last changed any. stamp is that of the switch up to
// which they have been read; 0: not known. The answer is "" if that is longer ago than the history of switches.
func readUnits(r *replica.Replica, stamp int64) string {
	if stamp == 0 {
		return ""
	}
	changed := r.ChangedDirs(stamp)
	if changed.All {
		return ""
	}
	for dir := range changed.Dirs {
		if verdict.UnitDir(dir) {
			return "no"
		}
	}
	return "yes"
}

// Restart returns what has to be restarted so that nothing uses replaced files: units, and processes that belong to
// none.
func Restart(stale []push.Process) []string {
	what := []string{}
	for _, p := range stale {
		name := p.Unit
		switch {
		case p.PID == 1:
			name = "init"
		case name == "":
			name = fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
		}
		if !slices.Contains(what, name) {
			what = append(what, name)
		}
	}
	slices.Sort(what)
	return what
}
