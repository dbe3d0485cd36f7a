package secrets

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/image"
)

const key = "-----BEGIN PRIVATE KEY-----\n" +
	"MC4CAQAwBQYDK2VwBCIEIHPxqu7sKj9c9MeKd0vvuRXYqKSIMc4pVzQyVYUkPJqT\n-----END PRIVATE KEY-----\n"

func TestSecretsAndFilesThatOnlyLookLikeThem(t *testing.T) {
	for _, c := range []struct {
		path    string
		mode    uint32
		content string
		want    string
	}{
		{"etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n", "machine id"},
		{"etc/machine-id", 0o444, "uninitialized\n", ""},
		{"etc/machine-id", 0o444, "", ""},
		{"etc/ssh/ssh_host_ed25519_key", 0o600, key, "SSH host key"},
		{"etc/ssh/ssh_host_ed25519_key.pub", 0o644, "ssh-ed25519 AAAA root@master\n", ""},
		{"etc/ssl/private/server.key", 0o640, key, "private key"},
		{"etc/ssl/private/old.key", 0o640, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "private key"},
		{
			"etc/ssl/certs/server.pem", 0o644, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + key,
			"private key",
		},
		{"etc/ssl/certs/ca.pem", 0o644, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", ""},
		{"etc/notes", 0o644, "the file begins with -----BEGIN PRIVATE KEY-----, they say\n", ""},
		{
			"root/.ssh/id_ed25519", 0o600,
			"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n", "private key",
		},
		{"usr/share/doc/lib/examples/test.key", 0o644, key, ""},
		{"usr/local/etc/app.key", 0o600, key, "private key"},
		{"var/lib/app/app.pem", 0o644, key, "private key"},
		{"var/lib/app/data", 0o644, key, ""},
		{"etc/krb5.keytab", 0o600, "\x05\x02\x00\x00\x00\x40", "Kerberos keytab"},
		{"etc/http.keytab", 0o600, "\x05\x02\x00\x00\x00\x40", "Kerberos keytab"},
		{"etc/wireguard/wg0.conf", 0o600, "[Interface]\nPrivateKey = x\n", "WireGuard private key"},
		{"var/lib/systemd/random-seed", 0o600, "\x00\x01", "random seed"},
		{"srv/big.key", 0o600, key + strings.Repeat("x", MaxRead), ""},
	} {
		e := &image.Entry{Type: image.Regular, Mode: c.mode, Size: uint64(len(c.content))}
		got := ""
		if Suspect(c.path, e) {
			got = Examine(c.path, []byte(c.content))
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
	if Suspect("etc/machine-id", &image.Entry{Type: image.Symlink, Target: "x"}) {
		t.Error("a symbolic link is suspected")
	}
}

func TestKeysOfOpenSSHAreFound(t *testing.T) {
	for _, format := range []string{"RFC4716", "PKCS8", "PEM"} {
		file := filepath.Join(t.TempDir(), "key")
		args := []string{"-q", "-N", "", "-t", "rsa", "-b", "2048", "-m", format, "-f", file}
		if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
			t.Skipf("ssh-keygen: %v %s", err, out)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := Examine("root/.ssh/id_rsa", b); got != privateKey {
			t.Errorf("%s: %q", format, got)
		}
	}
}

func FuzzExamine(f *testing.F) {
	f.Add("etc/x", []byte(key))
	f.Add("etc/krb5.keytab", []byte("-----BEGIN \n-----BEGIN PRIVATE KEY-----"))
	f.Fuzz(func(_ *testing.T, p string, b []byte) { Examine(p, b) })
}
