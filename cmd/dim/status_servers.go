package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster/nodeset"
	"dim/internal/control"
)

// serversEach is how many servers the status shows one by one.
const serversEach = 8

// printServers shows how many servers are up, and each one if they are few.
func printServers(w io.Writer, servers []control.Server, now time.Time) {
	row(w, "servers", serverCounts(servers))
	if len(servers) > serversEach {
		return
	}
	for i := range servers {
		row(w, "  each", servers[i].Name+": "+serverLine(&servers[i], now))
	}
}

// serverCounts is "40: 38 up, 1 silent (is07), 1 never reported (is40)".
func serverCounts(servers []control.Server) string {
	names := map[string][]string{}
	elsewhere := ""
	for i := range servers {
		names[serverUp(&servers[i])] = append(names[serverUp(&servers[i])], servers[i].Name)
		if len(servers[i].KnownTo) > 0 {
			elsewhere = serverUp(&servers[i])
		}
	}
	parts := []string{}
	for _, state := range []string{serverIsUp, serverIsSilent, serverIsUnknown, elsewhere} {
		list := names[state]
		if len(list) == 0 {
			continue
		}
		part := count(uint64(len(list))) + " " + state
		if state != serverIsUp && state != elsewhere {
			part += " (" + cutSet(nodeset.Fold(list)) + ")"
		}
		parts = append(parts, part)
	}
	return count(uint64(len(servers))) + ": " + strings.Join(parts, ", ")
}

// How a server is, as far as this one knows.
const (
	serverIsUp      = "up"
	serverIsSilent  = "silent"
	serverIsUnknown = "never reported"
)

func serverUp(s *control.Server) string {
	switch {
	case len(s.KnownTo) > 0:
		return "known to " + strings.Join(s.KnownTo, ", ")
	case !s.HasReported:
		return serverIsUnknown
	case s.Observed != nil && !s.Observed.Up:
		return serverIsSilent
	}
	return serverIsUp
}

// serverLine is "up 3h, nodes 64: 60 running, 4 off; they show compute@12".
func serverLine(s *control.Server, now time.Time) string {
	o := s.Observed
	if o == nil {
		return fmt.Sprintf("%s, nodes %s", serverUp(s), count(uint64(s.Nodes)))
	}
	line := "up " + ago(o.Started, now)
	if !o.Up {
		line = "silent for " + ago(s.Reported, now)
	}
	line += ", nodes " + stages(s.Nodes, o.Stages)
	if shown := shownText(o); shown != "" {
		line += "; they show " + shown
	}
	for _, v := range o.Versions {
		if v.Missing != nil {
			line += "; gets " + v.Version + ": " + missingText(v.Missing)
		}
	}
	if s.Behind > 0 {
		line += "; " + plural(int(s.Behind), "change") + " behind"
	}
	if n := len(o.Problems); n > 0 {
		line += "; " + plural(n, "problem")
	}
	return line
}

// printObserved shows what a server reported of itself.
func printObserved(w io.Writer, s *control.Server, now time.Time) {
	row(w, "observed", serverLine(s, now))
	o := s.Observed
	if o == nil {
		return
	}
	row(w, "program", "dim "+safe(o.Program))
	row(w, "follows", fmt.Sprintf("revision %d of the declared state", o.Revision))
	var has []string
	for _, v := range o.Versions {
		if v.Missing == nil {
			has = append(has, v.Version)
		}
	}
	row(w, "has", strings.Join(has, ", "))
	for _, p := range o.Problems {
		row(w, "problem", safe(p.About+": "+p.Text))
		if p.Hint != "" {
			row(w, "  hint", safe(p.Hint))
		}
	}
}

// missingText is "412.0 MiB to go, 40s".
func missingText(m *control.Missing) string {
	text := size(m.Bytes) + " to go"
	if m.Left > 0 {
		text += ", " + time.Duration(m.Left*float64(time.Second)).Round(time.Second).String()
	}
	if m.Problem != "" {
		text += ": " + safe(m.Problem)
	}
	return text
}

// shownText is "compute@12" or "60 compute@12, 4 compute@11": what the nodes of a server show.
func shownText(o *control.Observed) string {
	var parts []string
	for _, version := range slices.Sorted(maps.Keys(o.Shows)) {
		name := version
		if name == "" {
			name = "nothing"
		}
		if len(o.Shows) == 1 {
			return name
		}
		parts = append(parts, count(uint64(o.Shows[version]))+" "+name)
	}
	return strings.Join(parts, ", ")
}
