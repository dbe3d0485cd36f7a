package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"dim/internal/control"
)

// progress shows the progress of a capture. On a terminal it rewrites one line; elsewhere it prints a line at longer
// intervals.
type progress struct {
	w     io.Writer
	width int // of the terminal; 0: none
	last  time.Time
	shown bool
}

// Intervals between two lines.
const (
	terminalInterval = 100 * time.Millisecond
	fileInterval     = 10 * time.Second
)

func newProgress(w io.Writer) *progress {
	return &progress{w: w, last: time.Now(), width: terminalWidth(w)}
}

// terminalWidth returns the width of the terminal that w is; 0: it is none.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

func (p *progress) show(at control.Progress) { p.line(progressLine(at, time.Now())) }

// line shows a line, if it is time for one.
func (p *progress) line(line string) {
	now := time.Now()
	interval := fileInterval
	if p.width > 0 {
		interval = terminalInterval
	}
	if now.Sub(p.last) < interval {
		return
	}
	p.last, p.shown = now, true
	if p.width == 0 {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprintf(p.w, "\r%.*s\x1b[K", p.width-1, line)
}

// end removes the line from a terminal.
func (p *progress) end() {
	if p.shown && p.width > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// progressLine shows files, bytes, rate and, once the total is known, the time left.
func progressLine(at control.Progress, now time.Time) string {
	line := fmt.Sprintf("%s: %s %s", at.Image, at.Stage, count(at.Files))
	if at.FilesTotal > 0 {
		line += "/" + count(at.FilesTotal)
	}
	line += " files, " + size(at.Bytes)
	if at.BytesTotal > 0 {
		line += " of " + size(at.BytesTotal)
	}
	took := now.Sub(at.Started)
	if took < time.Second || at.Bytes == 0 {
		return line
	}
	rate := float64(at.Bytes) / took.Seconds()
	line += fmt.Sprintf(", %s/s", size(uint64(rate)))
	if at.BytesTotal > at.Bytes {
		left := time.Duration(float64(at.BytesTotal-at.Bytes) / rate * float64(time.Second))
		line += ", " + span(left) + " left"
	}
	return line
}
