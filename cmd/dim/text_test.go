package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func TestLongNodeSetsAreCut(t *testing.T) {
	var irregular []string
	for i := range 10_000 {
		irregular = append(irregular, fmt.Sprintf("node-%c%d-x", 'a'+i%26, i*7))
	}
	got := countedSet(irregular)
	if !strings.HasPrefix(got, "10,000: node-a[") || !strings.HasSuffix(got, "…") && !strings.HasSuffix(got, "…]") ||
		utf8.RuneCountInString(got) > maxText+len("10,000: ")+2 {
		t.Errorf("got %q", got)
	}
	for set, want := range map[string]string{
		"n[01-04]": "n[01-04]", "": "",
		strings.Repeat("abcdefgh,", 20) + "z": strings.TrimSuffix(strings.Repeat("abcdefgh,", 6), ",") + ",…",
	} {
		if got := cutSet(set); got != want {
			t.Errorf("cutSet(%q) = %q, want %q", set, got, want)
		}
	}
}

func TestTimesHaveAZone(t *testing.T) {
	at := time.Date(2026, 11, 30, 6, 13, 50, 0, time.FixedZone("", 3600))
	if got, err := time.Parse("2006-01-02 15:04:05 -0700", clock(at)); err != nil || !got.Equal(at) {
		t.Errorf("clock is %q: %v", clock(at), err)
	}
}

func TestNothingIsWiderThanTheTerminal(t *testing.T) {
	text := "problem  disk /var/lib/dim: 1 % is free and captures stop\n" +
		"  hint   " + strings.Repeat("x", 100) + "\n" + "short\n"
	got := fit(text, 40)
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 40 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(text), "") {
		t.Errorf("text is lost: got\n%s", got)
	}
	if fit(text, 0) != text {
		t.Error("what is no terminal is broken, too")
	}
}

func TestHelpFitsIntoEightyColumns(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.UsageString()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk((&app{}).root())
}
