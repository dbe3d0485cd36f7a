package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"dim/internal/cluster/nodeset"
	"dim/internal/image"
	"dim/internal/quantity"
)

func size(n uint64) string { return quantity.Size(n) }

func count(n uint64) string { return quantity.Count(n) }

// versionRef returns the reference to a version: "compute@12".
func versionRef(name string, number int) string {
	return image.Ref{Image: name, Number: number}.String()
}

func plural(n int, what string) string { return quantity.Plural(n, what) }

// ago formats the time since t in one unit: "8s", "5m", "3h", "12d". The zero time is "".
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(max(now.Sub(t), 0))
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// clock formats a time as date, time of day and zone. The zero time is "".
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 -0700")
}

// safe returns a text that a terminal can show. It is quoted when it contains control characters or invalid UTF-8.
func safe(name string) string {
	if utf8.ValidString(name) && strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return name
	}
	return strconv.Quote(name)
}

// showable returns a message that a terminal can show. Args, the command line, are quoted in it as safe quotes them;
// other control characters are escaped one by one. Messages may have several lines.
func showable(message string, args []string) string {
	for _, arg := range args {
		if safe(arg) != arg {
			message = strings.ReplaceAll(message, arg, safe(arg))
		}
	}
	var b strings.Builder
	for i, r := range message {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(message[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, message[i])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// short returns the beginning of a digest, enough to recognise it.
func short(digest string) string { return digest[:min(12, len(digest))] }

// maxText is the width, in columns, of a node set or another long text in a line of a table. JSON has it whole.
const maxText = 60

// cutText shortens a text that is longer than maxText.
func cutText(text string) string {
	if utf8.RuneCountInString(text) <= maxText {
		return text
	}
	return string([]rune(text)[:maxText-1]) + "…"
}

// countedSet is "4: n[01-04]", or "" for no names.
func countedSet(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return count(uint64(len(names))) + ": " + cutSet(nodeset.Fold(names))
}

// cutSet shortens a node set that is longer than maxText: "n[01-04],r1,…". The cell beside it has the number of nodes.
func cutSet(set string) string {
	if len(set) <= maxText {
		return set
	}
	cut := set[:maxText-2]
	if i := strings.LastIndexByte(cut, ','); i > maxText/2 {
		cut = cut[:i]
	}
	if strings.Count(cut, "[") > strings.Count(cut, "]") {
		cut += ",…]"
	}
	return strings.TrimSuffix(cut, ",") + ",…"
}

// fit breaks lines that are wider than width, at a space if there is one in their second half. What follows is indented
// to the second column of the table, or by four. A width below 40, such as 0 for what is no terminal, breaks nothing.
func fit(text string, width int) string {
	if width < 40 {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		rest := []rune(strings.TrimRight(line, " \n"))
		indent := min(secondColumn(line), width/3)
		for len(rest) > width {
			at := width
			for i := width; i > width/2; i-- {
				if rest[i] == ' ' {
					at = i
					break
				}
			}
			b.WriteString(strings.TrimRight(string(rest[:at]), " ") + "\n")
			rest = []rune(strings.Repeat(" ", indent) + strings.TrimLeft(string(rest[at:]), " "))
		}
		b.WriteString(string(rest) + "\n")
	}
	return b.String()
}

// secondColumn returns the position of what follows the first gap of two blanks in a line, 4 if there is none.
func secondColumn(line string) int {
	left := strings.TrimLeft(line, " ")
	start := len(line) - len(left)
	gap := strings.Index(left, "  ")
	if gap < 0 {
		return 4
	}
	rest := strings.TrimLeft(left[gap:], " ")
	return start + utf8.RuneCountInString(left[:len(left)-len(rest)])
}
