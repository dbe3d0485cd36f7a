package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of what a node can have us read and keep.
const (
	maxBody    = 64 << 10
	maxEntries = 512
	maxPath    = 4096
	maxWord    = 128
)

// said is one JSON object of a call; which of the fields it has tells what it is.
type said struct {
	Boot   string `json:"boot"` // of the first object
	Seen   string `json:"seen"`
	Memory int    `json:"memory"`
	Left   int    `json:"left"`

	Mount string `json:"mount"`
	Type  string `json:"type"`

	Stale string `json:"stale"`
	PID   int    `json:"pid"`
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	More  int    `json:"more"`
}

// parse reads a call: JSON objects, one after the other.
func parse(body io.Reader) (Said, error) {
	var out Said
	first := true
	for d := json.NewDecoder(body); ; first = false {
		var x said
		err := d.Decode(&x)
		if errors.Is(err, io.EOF) && !first {
			return out, nil
		}
		if err == nil {
			err = out.take(&x, first)
		}
		if err != nil {
			return Said{}, fmt.Errorf("parse call: %w", err)
		}
	}
}

func (out *Said) take(x *said, first bool) (err error) {
	switch {
	case first:
		out.Boot, out.Memory, out.Left = clean(x.Boot, maxWord), bound(x.Memory), bound(x.Left)
		out.Image, out.Stamp, err = parseSeen(x.Seen)
		return err
	case len(out.Mounts)+len(out.Stale) >= maxEntries:
		return fmt.Errorf("more than %d things are said", maxEntries)
	case x.Mount != "":
		p, err := parsePath(x.Mount)
		if err != nil {
			return err
		}
		out.Mounts = append(out.Mounts, Mount{Path: p, Type: clean(x.Type, maxWord)})
	case x.Stale != "":
		p, err := parsePath(x.Stale)
		if err != nil {
			return err
		}
		out.Stale = append(out.Stale, Process{
			PID: bound(x.PID), Name: clean(x.Name, maxWord), Unit: clean(x.Unit, maxWord), Path: p, More: bound(x.More),
		})
	}
	return nil // what a later dim-init may say
}

// parseSeen reads IMAGE:STAMP, or nothing.
func parseSeen(s string) (image string, stamp int64, err error) {
	if s == "" {
		return "", 0, nil
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || len(s) > maxWord {
		return "", 0, fmt.Errorf("seen is %q, want IMAGE:STAMP", clean(s, maxWord))
	}
	if stamp, err = strconv.ParseInt(s[i+1:], 10, 64); err != nil || stamp < 0 {
		return "", 0, fmt.Errorf("seen is %q, want IMAGE:STAMP", clean(s, maxWord))
	}
	return s[:i], stamp, nil
}

// parsePath reads an absolute path with %XX for bytes that a line cannot have.
func parsePath(s string) (string, error) {
	p, err := url.PathUnescape(s)
	if err != nil || len(p) > maxPath || !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.IndexByte(p, 0) >= 0 {
		return "", fmt.Errorf("%q is no path", clean(s, maxWord))
	}
	return p[1:], nil
}

// clean bounds what a node calls something, and takes out what is no visible character.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

func bound(n int) int { return min(max(n, 0), 1<<30) }
