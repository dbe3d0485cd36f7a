// Package secrets finds what a master should not give to all machines that are made from it: private keys, and identities that must be one
// machine's alone.
//
// It goes by path, and by content where a path alone does not tell; it reads no more than it needs. It does not know what becomes of its
// findings, nor what a version or a node is.
package secrets

import (
	"bytes"
	"path"
	"strings"

	"dim/internal/image"
)

// MaxRead is how many bytes of a file Examine is to be given at most: keys are small.
const MaxRead = 64 << 10

// identities are paths that are one machine's, by what they are. A last component may be a pattern.
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

// Suspect reports whether the entry at a path (slash-separated, from the root, no leading slash) may be a secret: Examine tells.
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
	case strings.HasPrefix(p, "usr/") && !hidden: // what a distribution gives to everybody
		return false
	}
	return !strings.HasPrefix(p, "var/") || hidden || keyName(p)
}

func keyName(p string) bool {
	switch path.Ext(p) {
	case ".key", ".pem", ".keytab":
		return true
	}
	return strings.HasPrefix(path.Base(p), "id_")
}

func identity(p string) string {
	for _, i := range identities {
		if ok, _ := path.Match(i.pattern, p); ok {
			return i.kind
		}
	}
	return ""
}

// Examine tells what a suspected file is, by the beginning of its content, or "" when it is no secret.
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
	case bytes.HasPrefix(content, []byte{5, 2}) && (path.Ext(p) == ".keytab" || strings.Contains(path.Base(p), "keytab")):
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
		if ok && len(label) < 64 && bytes.HasSuffix(label, []byte("PRIVATE KEY")) && bytes.IndexByte(label, '\n') < 0 && keyText(after) {
			return true
		}
		b = rest
	}
}

// keyText reports whether what follows a label looks like a key and not like a sentence about one.
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

// Renewed reports whether a machine replaces a secret of this kind by itself when it starts.
func Renewed(kind string) bool { return kind == randomSeed }
