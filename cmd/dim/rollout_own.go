package main

import (
	"fmt"
	"io"
	"strings"

	"dim/internal/control"
)

// printOwn prints what of the nodes' own a rollout has set aside, or would.
func printOwn(w io.Writer, own []control.OwnChanges, planned bool) {
	aside := false
	for _, o := range own {
		if text := o.Left + o.Kept; text != "" {
			fmt.Fprintf(w, "%s: %s\n", o.Nodes, safe(text))
			continue
		}
		if o.Unknown != "" {
			fmt.Fprintf(w, "%s: what they have of their own is not known: %s\n", o.Nodes, safe(o.Unknown))
			continue
		}
		aside = true
		whose := "its own"
		if o.Count > 1 {
			whose = "their own"
		}
		line := fmt.Sprintf("%s: %s: %s of %s", o.Nodes, would(planned, "set aside"), plural(o.Paths, "path"), whose)
		if len(o.Packages) > 0 {
			line += "; packages lost: " + strings.Join(o.Packages, ", ")
		}
		if len(o.Accounts) > 0 {
			line += "; accounts lost: " + strings.Join(o.Accounts, ", ")
		}
		fmt.Fprintln(w, safe(line))
		for _, note := range o.Notes {
			fmt.Fprintln(w, "  "+safe(note))
		}
		for _, path := range o.First {
			fmt.Fprintln(w, "  "+safe(string(path)))
		}
		if more := o.Paths - len(o.First); more > 0 && len(o.First) > 0 {
			fmt.Fprintf(w, "  and %s more\n", plural(more, "path"))
		}
	}
	if aside && !planned {
		fmt.Fprintln(w, "dim node saved NODE lists all, dim node restore NODE PATH brings one back")
	}
}
