package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/lab/master"
)

// output returns what p writes while a master is installed in 35 seconds.
func output(t *testing.T, terminal bool) string {
	var out strings.Builder
	synctest.Test(t, func(t *testing.T) {
		p := &progress{out: &out, terminal: terminal, start: time.Now()}
		err := p.during(t.Context(), func() error {
			time.Sleep(20 * time.Second)
			p.update(master.Progress{Step: "installing essential packages", Done: 12, Total: 69})
			time.Sleep(15 * time.Second)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	return out.String()
}

func TestProgressIsAPlainLineNowAndThen(t *testing.T) {
	want := "   15.0s      starting\n" +
		"   30.0s      installing essential packages: 12 of 69 packages\n"
	if d := cmp.Diff(want, output(t, false)); d != "" {
		t.Error(d)
	}
}

func TestProgressIsOneLineOnATerminal(t *testing.T) {
	got := output(t, true)
	if strings.Contains(got, "\n") || !strings.HasSuffix(got, clearLine) {
		t.Errorf("more than one line, or it is left: %q", got)
	}
	lines := strings.Split(strings.TrimSuffix(got, clearLine), clearLine)
	if len(lines) < 35 || lines[1] != "    1.0s      starting" ||
		lines[34] != "   34.0s      installing essential packages: 12 of 69 packages" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}
