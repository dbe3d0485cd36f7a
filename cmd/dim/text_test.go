package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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
