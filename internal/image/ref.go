package image

import (
	"fmt"
	"strconv"
	"strings"
)

// Ref is a reference to a version: "compute" (the newest), "compute@12" or "compute@stable" (a tag).
type Ref struct {
	Image  string
	Number int    // 0: not given
	Tag    string // "": not given
}

// String returns the form that ParseRef takes.
func (r Ref) String() string {
	switch {
	case r.Number > 0:
		return fmt.Sprintf("%s@%d", r.Image, r.Number)
	case r.Tag != "":
		return r.Image + "@" + r.Tag
	}
	return r.Image
}

// IsZero reports whether r is the zero Ref, which names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// MarshalText implements encoding.TextMarshaler: the text is String's, and empty for the zero Ref.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes what MarshalText writes.
func (r *Ref) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Ref{}
		return nil
	}
	parsed, err := ParseRef(string(text))
	if err == nil {
		*r = parsed
	}
	return err
}

// ParseRef parses NAME, NAME@NUMBER or NAME@TAG.
func ParseRef(s string) (Ref, error) {
	name, which, given := strings.Cut(s, "@")
	if !ValidName(name) {
		return Ref{}, fmt.Errorf("parse reference %q: %q is not an image name", s, name)
	}
	r := Ref{Image: name}
	if !given {
		return r, nil
	}
	if n, err := strconv.Atoi(which); err == nil && n > 0 {
		r.Number = n
		return r, nil
	}
	if !ValidName(which) {
		return Ref{}, fmt.Errorf("parse reference %q: %q is neither a version number nor a tag", s, which)
	}
	r.Tag = which
	return r, nil
}

// ValidName reports whether s can be the name of an image or a tag: a letter, then letters, digits, '-', '_' and '.',
// at most 64 bytes.
func ValidName(s string) bool {
	if s == "" || len(s) > 64 || !letter(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !letter(c) && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
