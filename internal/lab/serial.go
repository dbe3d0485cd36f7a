package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

// errGuestEnded is returned by WaitFor if the guest has ended without showing the mark.
var errGuestEnded = errors.New("the guest has ended")

// fatalMessages matches messages after which a boot cannot succeed.
var fatalMessages = regexp.MustCompile(
	`Kernel panic|grub>|grub rescue>|Bad executable|No bootable device|UEFI Interactive Shell|` +
		`You are in emergency mode`)

// Line is one line of a serial console.
type Line struct {
	At   time.Duration // when it began, since the guest's start
	Text string
}

// Serial collects the output of a guest's serial console.
type Serial struct {
	mu        sync.Mutex
	text      []byte
	cursor    int // WaitFor searches from here on
	lines     []Line
	lineStart bool // the next byte begins a line
	started   time.Time
	ended     bool
	changed   chan struct{} // closed and replaced at every change
}

func (s *Serial) start(at time.Time) {
	s.started, s.lineStart, s.changed = at, true, make(chan struct{})
}

// Write adds output of the guest. It never fails.
func (s *Serial) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Since(s.started)
	s.text = append(s.text, p...)
	for _, part := range bytes.SplitAfter(p, []byte("\n")) {
		if len(part) == 0 {
			continue
		}
		if s.lineStart {
			s.lines = append(s.lines, Line{At: at})
		}
		last := &s.lines[len(s.lines)-1]
		last.Text += strings.TrimRight(string(part), "\r\n")
		s.lineStart = part[len(part)-1] == '\n'
	}
	s.signal()
	return len(p), nil
}

func (s *Serial) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *Serial) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// WaitFor waits until the console shows mark, after the match of the previous WaitFor, and returns the match. It fails
// if the guest ends, or if the console shows a match of stopOn or a message after which a boot cannot succeed, such as
// a kernel panic or a boot loader's prompt. The error contains the end of the console.
func (s *Serial) WaitFor(ctx context.Context, mark *regexp.Regexp, stopOn ...*regexp.Regexp) (string, error) {
	stops := append([]*regexp.Regexp{fatalMessages}, stopOn...)
	for {
		s.mu.Lock()
		found, err := s.search(mark, stops)
		changed := s.changed
		s.mu.Unlock()
		if found != "" {
			return found, nil
		}
		if err == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return "", fmt.Errorf("wait for %q: %w; the end of the console:\n%s", mark, err, s.Tail(25))
	}
}

// search returns a match of mark, or an error if there will be none. It is called with mu held.
func (s *Serial) search(mark *regexp.Regexp, stops []*regexp.Regexp) (string, error) {
	rest := s.text[s.cursor:]
	if at := mark.FindIndex(rest); at != nil && at[1] > at[0] {
		s.cursor += at[1]
		return string(rest[at[0]:at[1]]), nil
	}
	for _, stop := range stops {
		if m := stop.Find(rest); m != nil {
			return "", fmt.Errorf("the console shows %q", m)
		}
	}
	if s.ended {
		return "", errGuestEnded
	}
	return "", nil
}

// Lines returns all lines so far.
func (s *Serial) Lines() []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Line(nil), s.lines...)
}

// When returns the time of the first line that matches.
func (s *Serial) When(mark *regexp.Regexp) (time.Duration, bool) {
	for _, l := range s.Lines() {
		if mark.MatchString(l.Text) {
			return l.At, true
		}
	}
	return 0, false
}

// Tail returns the last n lines, each with its time.
func (s *Serial) Tail(n int) string {
	lines := s.Lines()
	var b strings.Builder
	for _, l := range lines[max(0, len(lines)-n):] {
		fmt.Fprintf(&b, "%7.1fs  %s\n", l.At.Seconds(), l.Text)
	}
	return b.String()
}
