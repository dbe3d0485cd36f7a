package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
)

func TestWhatAServerReportedIsShown(t *testing.T) {
	now := time.Now()
	s := control.Server{Name: "is1", Nodes: 2, HasReported: true, Observed: &control.Observed{
		Up: true, Started: now.Add(-time.Hour), Program: "v1", Revision: 7, Stages: map[string]int{"off": 2},
		Shows: map[string]int{"compute@2": 2},
		Versions: []control.HeldVersion{
			{Version: "compute@1"}, {Version: "compute@2"},
			{Version: "compute@3", Missing: &control.Missing{Bytes: 1 << 20, Problem: "no source"}},
		},
		Problems: []control.Problem{{About: "disk /", Text: "full", Hint: "make room"}},
	}}
	var b bytes.Buffer
	a := &app{format: "table", out: &b}
	if err := a.show(s, func(w io.Writer) { printObserved(w, &s, now) }); err != nil {
		t.Fatal(err)
	}
	want := `observed  up 1h, nodes 2: 2 off; they show compute@2; gets compute@3: 1.0 MiB to go: no source; 1 problem
program   dim v1
follows   revision 7 of the declared state
has       compute@1, compute@2
problem   disk /: full
  hint    make room
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
