package api

import (
	"encoding/base64"
	"strings"
	"testing"
)

// hostKey is a public key whose content names its type.
func hostKey(kind string) string {
	return base64.StdEncoding.EncodeToString(append([]byte{0, 0, 0, byte(len(kind))}, kind+"\x00\x00\x00\x01x"...))
}

func TestOnlyPublicKeysAreTakenForHostKeys(t *testing.T) {
	const ed = "ssh-ed25519"
	for _, text := range []string{ed + " " + hostKey(ed) + " root@n01\n", ed + "\t" + hostKey(ed)} {
		if kind, key, ok := parseHostKey([]byte(text)); !ok || kind != ed || key != hostKey(ed) {
			t.Errorf("%q: %q %q %v", text, kind, key, ok)
		}
	}
	for _, text := range []string{
		"", "\n", ed, ed + " x", ed + " !!!!", ed + " AAAA", "ssh-rsa " + hostKey(ed),
		"@revoked " + hostKey("@revoked"),
		"@cert-authority * " + ed + " " + hostKey(ed), "two\n" + ed + " " + hostKey(ed), hostKey(ed),
		ed + " " + hostKey(ed) + "=",
	} {
		if kind, key, ok := parseHostKey([]byte(text)); ok {
			t.Errorf("%q is taken for %q %q", text, kind, key)
		}
	}
}

func FuzzParseHostKey(f *testing.F) {
	f.Add([]byte("ssh-ed25519 " + hostKey("ssh-ed25519") + " root@n01\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		kind, key, ok := parseHostKey(content)
		if ok && (len(strings.Fields(kind+" "+key)) != 2 || strings.ContainsAny(kind+key, "\r\n*,|#")) {
			t.Errorf("%q gives %q %q", content, kind, key)
		}
	})
}
