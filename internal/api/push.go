package api

import (
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/verdict"
)

// pushed returns what is known of the resident process on n; nil when it has not called.
func (api *API) pushed(n *cluster.Node) *control.Push {
	said, ok := api.Push.Status(n.Name)
	if !ok {
		return nil
	}
	out := &control.Push{
		State: control.PushLost, Reported: said.Called, Memory: said.Memory, Omitted: said.Omitted,
		Mounts: []control.NodeMount{}, Stale: []control.Process{}, Restart: restartOf(said.Stale),
	}
	if said.Connected(time.Now()) {
		out.State = control.PushBehind
		r, ok := api.Set.Find(replica.ReplicaTree(string(n.Name), said.Image))
		if ok && r.ChangedDirs(said.Stamp).Stamp == said.Stamp {
			out.State = control.PushCurrent
			out.UnitsRead = unitsRead(r, said.Units)
		}
	}
	for _, m := range said.Mounts {
		out.Mounts = append(out.Mounts, control.NodeMount{Path: "/" + m.Path, Type: m.Type})
	}
	for _, p := range said.Stale {
		out.Stale = append(out.Stale, control.Process{
			PID: p.PID, Name: p.Name, Unit: p.Unit, Path: "/" + p.Path, More: p.More,
		})
	}
	return out
}

// unitsRead returns whether units have been read since a switch last changed any. stamp is that of the switch up to
// which they have been read; 0: not known. The answer is "" if that is longer ago than the history of switches.
func unitsRead(r *replica.Replica, stamp int64) string {
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

// restartOf returns what has to be restarted so that nothing uses replaced files: units, and processes that belong to
// none.
func restartOf(stale []push.Process) []string {
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
