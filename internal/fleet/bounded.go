package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The lists of a report. An element of two bytes in JSON takes hundreds in memory: those beyond the bounds are refused
// before there is memory for them.
type (
	versionList []Version
	nodeList    []Node
	problemList []Problem
)

// UnmarshalJSON implements json.Unmarshaler.
func (l *versionList) UnmarshalJSON(text []byte) (err error) {
	*l, err = decodeList[Version](text, maxVersions)
	return err
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *nodeList) UnmarshalJSON(text []byte) (err error) {
	*l, err = decodeList[Node](text, maxNodes)
	return err
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *problemList) UnmarshalJSON(text []byte) (err error) {
	all, err := decodeList[Problem](text, maxProblems)
	*l = all
	if errors.Is(err, errTooMany) {
		err = nil // the first ones tell enough
	}
	return err
}

var errTooMany = errors.New("a list has more")

// decodeList decodes a JSON array, or null. Of one that has more than most elements it returns the first ones, and
// errTooMany.
func decodeList[T any](text []byte, most int) (list []T, err error) {
	if string(text) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("a list is no JSON array: %.20q", text)
	}
	for d.More() {
		if len(list) == most {
			return list, fmt.Errorf("%w than %d elements", errTooMany, most)
		}
		var v T
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// plain returns the beginning of a text that another server has sent, as one line that any terminal can show.
func plain(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// The most that a report says of what a server lacks of a version.
const (
	maxBytes = 1 << 60
	maxLeft  = 10 * 365 * 24 * time.Hour
)

// check makes m say something that can be true.
func (m *Missing) check() {
	m.Files, m.Bytes = max(m.Files, 0), min(m.Bytes, maxBytes)
	m.Rate, m.TimeLeft = max(m.Rate, 0), min(max(m.TimeLeft, 0), maxLeft)
	m.Problem = plain(m.Problem)
}
