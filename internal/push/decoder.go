package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	slashpath "path"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of a call.
const (
	maxBody    = 64 << 10
	maxEntries = 512
	maxPath    = 4096
	maxWord    = 128
)

// object is one JSON object of a call. Its kind follows from its position and from the fields that are set.
type object struct {
	// The first object.
	Boot   string `json:"boot"`
	Seen   string `json:"seen"`
	Units  string `json:"units"`
	Memory int    `json:"memory"`
	Left   int    `json:"left"`

	// A mount.
	Mount string `json:"mount"`
	Type  string `json:"type"`

	// A process that uses replaced files.
	Stale string `json:"stale"`
	PID   int    `json:"pid"`
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	More  int    `json:"more"`
}

// decode reads a call: JSON objects, one after the other.
func decode(body io.Reader) (Status, error) {
	var s Status
	first := true
	for d := json.NewDecoder(body); ; first = false {
		var x object
		err := d.Decode(&x)
		if errors.Is(err, io.EOF) && !first {
			return s, nil
		}
		switch {
		case err != nil:
		case first:
			err = s.setHeader(&x)
		default:
			err = s.addEntry(&x)
		}
		if err != nil {
			return Status{}, fmt.Errorf("parse call: %w", err)
		}
	}
}

// setHeader takes the first object of a call.
func (s *Status) setHeader(x *object) (err error) {
	s.Boot, s.Memory, s.Omitted = printable(x.Boot), bound(x.Memory), bound(x.Left)
	if s.Image, s.Stamp, err = parseSeen(x.Seen); err != nil {
		return err
	}
	image, units, err := parseSeen(x.Units)
	if image == s.Image && units <= s.Stamp {
		s.Units = units
	}
	return err
}

// addEntry takes a further object. It ignores one of an unknown kind, which a later dim-init may send.
func (s *Status) addEntry(x *object) error {
	switch {
	case len(s.Mounts)+len(s.Stale) >= maxEntries:
		return fmt.Errorf("more than %d mounts and processes", maxEntries)
	case x.Mount != "":
		p, err := parsePath(x.Mount)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, Mount{Path: p, Type: printable(x.Type)})
	case x.Stale != "":
		p, err := parsePath(x.Stale)
		if err != nil {
			return err
		}
		s.Stale = append(s.Stale, Process{
			PID: bound(x.PID), Name: printable(x.Name), Unit: printable(x.Unit), Path: p, More: bound(x.More),
		})
	}
	return nil
}

// parseSeen reads IMAGE:STAMP, the value of seen or units, or nothing.
func parseSeen(s string) (image string, stamp int64, err error) {
	if s == "" {
		return "", 0, nil
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || len(s) > maxWord {
		return "", 0, fmt.Errorf("%q is not IMAGE:STAMP", printable(s))
	}
	if stamp, err = strconv.ParseInt(s[i+1:], 10, 64); err != nil || stamp < 0 {
		return "", 0, fmt.Errorf("%q is not IMAGE:STAMP", printable(s))
	}
	return s[:i], stamp, nil
}

// parsePath reads an absolute path in which a byte may be written as %XX, and returns it without its leading slash.
func parsePath(s string) (string, error) {
	p, err := url.PathUnescape(s)
	if err != nil || len(p) > maxPath || !slashpath.IsAbs(p) || slashpath.Clean(p) != p || p == "/" ||
		strings.IndexByte(p, 0) >= 0 {
		return "", fmt.Errorf("%q is not a path", printable(s))
	}
	return p[1:], nil
}

// printable returns at most maxWord bytes of a text, with "?" in place of what is not a printable character.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxWord {
		s = strings.ToValidUTF8(s[:maxWord], "")
	}
	return s
}

// bound limits a number to what is plausible.
func bound(n int) int { return min(max(n, 0), 1<<30) }
