package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"dim/internal/lab/master"
)

// Intervals between lines of progress.
const (
	terminalInterval = time.Second // the line is rewritten
	plainInterval    = 15 * time.Second
)

// progress shows how far the installation of a master is: on a terminal as one line that is rewritten every second,
// elsewhere as a plain line every now and then.
type progress struct {
	out      io.Writer
	terminal bool
	start    time.Time // lines begin with the time since then

	mu   sync.Mutex
	last master.Progress
}

func newProgress(out *os.File, start time.Time) *progress {
	return &progress{out: out, terminal: term.IsTerminal(int(out.Fd())), start: start}
}

// update records progress; the next line shows it.
func (p *progress) update(now master.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = now
}

// during calls f and shows progress until f returns.
func (p *progress) during(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	interval := plainInterval
	if p.terminal {
		interval = terminalInterval
	}
	wg.Go(func() { p.showEvery(ctx, interval) })
	err := f()
	cancel()
	wg.Wait()
	if p.terminal {
		fmt.Fprint(p.out, clearLine)
	}
	return err
}

func (p *progress) showEvery(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.show()
		}
	}
}

// clearLine moves to the beginning of the terminal's line and erases it (ECMA-48: EL).
const clearLine = "\r\x1b[K"

func (p *progress) show() {
	p.mu.Lock()
	now := p.last
	p.mu.Unlock()
	text := now.Step
	if text == "" {
		text = "starting"
	}
	if now.Total > 0 {
		text += fmt.Sprintf(": %d of %d packages", now.Done, now.Total)
	}
	begin, end := "", "\n"
	if p.terminal {
		begin, end = clearLine, ""
	}
	fmt.Fprintf(p.out, "%s%7.1fs      %s%s", begin, time.Since(p.start).Seconds(), text, end)
}
