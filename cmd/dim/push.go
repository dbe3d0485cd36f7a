package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"dim/internal/control"
)

// printPush prints the state of a node's resident process and what it reported.
func printPush(w io.Writer, p *control.Push, now time.Time) {
	if p == nil {
		return
	}
	row(w, "push", fmt.Sprintf("%s, last report %s ago, uses %s",
		p.State, ago(p.Reported, now), size(uint64(p.Memory)*1024)))
	var mounts []string
	for _, m := range p.Mounts {
		mounts = append(mounts, m.Path)
	}
	if len(mounts) > 0 {
		row(w, "mounts", safe(strings.Join(mounts, " ")))
	}
	if len(p.Restart) > 0 {
		row(w, "restart", safe(strings.Join(p.Restart, " ")))
	}
	if p.UnitsRead == "no" {
		row(w, "units", "changed since systemd has read them: systemctl daemon-reload")
	}
	for _, s := range p.Stale {
		text := fmt.Sprintf("%s (pid %d): %s", s.Name, s.PID, s.Path)
		if s.More > 0 {
			text += fmt.Sprintf(" and %d more", s.More)
		}
		row(w, "stale", safe(text))
	}
	if p.Omitted > 0 {
		row(w, "omitted", fmt.Sprintf("%d more", p.Omitted))
	}
}
