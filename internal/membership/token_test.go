package membership

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestATokenIsReadAsItWasWritten(t *testing.T) {
	made := newToken(sha256.Sum256([]byte("root")))
	text := made.String()
	if got, err := parseToken(text); err != nil || got != made {
		t.Errorf("%s is read as %+v, %v", text, got, err)
	}
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyz1234567890-") != "" || len(text) > 100 {
		t.Errorf("%q is hard to copy", text)
	}
	for name, bad := range map[string]string{
		"empty": "", "only the prefix": tokenPrefix, "cut": text[:len(text)-1], "longer": text + "a",
		"without the prefix": text[1:], "in capitals": strings.ToUpper(text),
		"mistyped": strings.Replace(text, text[20:21], string('a'+(text[20]-'a'+1)%20), 1),
	} {
		if got, err := parseToken(bad); err == nil {
			t.Errorf("a token that is %s is read as %+v", name, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken([sha256.Size]byte{}).String())
	f.Add("dim1-")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseToken(text); err == nil && got.String() != text {
			t.Errorf("%q is read as %+v, which is %q", text, got, got)
		}
	})
}
