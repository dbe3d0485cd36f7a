// Package secrets recognizes files of a master that the nodes must not share: private keys, and identities that belong
// to a single machine.
//
// It goes by the path and, if that does not decide, by the content. It must not know what a version or a node is, nor
// how its findings are used.
package secrets

import (
	"bytes"
	"path"
	"strings"

	"dim/internal/image"
)

// MaxRead is the number of bytes of a file that Examine needs at most: keys are small.
const MaxRead = 64 << 10

// identities are the paths of identities, and what they are. The last component may be a pattern.
var identities = []struct{ pattern, kind string }{
	{"etc/machine-id", "machine id"},
	{"var/lib/dbus/machine-id", "machine id"},
	{"etc/ssh/ssh_host_*_key", "SSH host key"},
	{"etc/krb5.keytab", "Kerberos keytab"},
	{"etc/hostid", "host id"},
	{"etc/iscsi/initiatorname.iscsi", "iSCSI initiator name"},
	{"etc/nvme/hostid", "NVMe host id"},
	{"etc/nvme/hostnqn", "NVMe host name"},
	{"var/lib/systemd/random-seed", randomSeed},
	{"var/lib/urandom/random-seed", randomSeed},
	{"var/lib/systemd/credential.secret", "credential secret"},
	{"var/lib/NetworkManager/secret_key", "NetworkManager's secret key"},
}

const (
	randomSeed = "random seed"
	privateKey = "private key"
	keytab     = "Kerberos keytab"
)

// Suspect reports whether a file may be a secret; Examine decides. The path is slash-separated and relative to the
// root.
func Suspect(p string, e *image.Entry) bool {
	if e.Type != image.Regular || e.Size == 0 {
		return false
	}
	if identity(p) != "" {
		return true
	}
	hidden := e.Mode&0o004 == 0
	switch {
	case e.Size > MaxRead:
		return false
	case strings.HasPrefix(p, "usr/") && !hidden: // part of the distribution, and so public
		return false
	}
	return !strings.HasPrefix(p, "var/") || hidden || keyName(p)
}

// keyName reports whether the name is one that key files have.
func keyName(p string) bool {
	switch path.Ext(p) {
	case ".key", ".pem", ".keytab":
		return true
	}
	return strings.HasPrefix(path.Base(p), "id_")
}

// identity returns what the identity at a path is, or "" if it is not one.
func identity(p string) string {
	for _, i := range identities {
		if ok, _ := path.Match(i.pattern, p); ok {
			return i.kind
		}
	}
	return ""
}

// Examine returns what kind of secret a suspected file is, or "" if it is not a secret. content is the file's content,
// or its first MaxRead bytes.
func Examine(p string, content []byte) string {
	if kind := identity(p); kind != "" {
		if text := strings.TrimSpace(string(content)); text == "" || kind == "machine id" && text == "uninitialized" {
			return ""
		}
		return kind
	}
	switch {
	case pemKey(content):
		return privateKey
	case bytes.HasPrefix(content, []byte{5, 2}) && strings.Contains(path.Base(p), "keytab"):
		return keytab
	case strings.HasPrefix(p, "etc/wireguard/") && bytes.Contains(content, []byte("PrivateKey")):
		return "WireGuard " + privateKey
	}
	return ""
}

// pemKey reports whether a PEM block (RFC 7468) of any private key begins in b.
func pemKey(b []byte) bool {
	for {
		_, rest, ok := bytes.Cut(b, []byte("-----BEGIN "))
		if !ok {
			return false
		}
		label, after, ok := bytes.Cut(rest, []byte("-----"))
		if ok && len(label) < 64 && bytes.HasSuffix(label, []byte("PRIVATE KEY")) &&
			bytes.IndexByte(label, '\n') < 0 && keyText(after) {
			return true
		}
		b = rest
	}
}

// keyText reports whether the text after a label is a key, and not a sentence that mentions one.
func keyText(b []byte) bool {
	line, rest, ok := bytes.Cut(bytes.TrimLeft(b, "\r"), []byte("\n"))
	if !ok || len(bytes.TrimSpace(line)) > 0 {
		return false
	}
	line, _, _ = bytes.Cut(rest, []byte("\n"))
	line = bytes.TrimSpace(line)
	if bytes.Contains(line, []byte(": ")) { // "Proc-Type: 4,ENCRYPTED"
		return true
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
	return len(line) >= 16 && len(bytes.Trim(line, alphabet)) == 0
}

// Renewed reports whether a machine replaces a secret of this kind itself when it starts.
func Renewed(kind string) bool { return kind == randomSeed }
