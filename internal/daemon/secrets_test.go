package daemon

import (
	"strings"
	"testing"

	"dim/internal/control"
)

const hostKey = "-----BEGIN OPENSSH PRIVATE KEY-----\n" +
	"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"

func TestASecretInAMasterIsToldOfOnce(t *testing.T) {
	s := newSite(t, "127.0.0.9")
	s.start()
	var told []string
	capture := func() control.CaptureResult {
		t.Helper()
		told = nil
		done, err := s.client().Capture(t.Context(), control.CaptureRequest{Image: "compute"},
			func(p control.Progress) {
				if p.Warning != "" {
					told = append(told, p.Warning)
				}
			})
		must(t, err)
		return done
	}
	s.put("etc/ssh/ssh_host_ed25519_key", hostKey)
	s.put("etc/machine-id", "0123456789abcdef0123456789abcdef\n") // each node has one of its own
	if done := capture(); len(told) != 1 || len(done.Secrets) != 1 ||
		done.Secrets[0] != (control.Secret{Path: "/etc/ssh/ssh_host_ed25519_key", Kind: "SSH host key"}) {
		t.Errorf("%q %+v", told, done.Secrets)
	}
	s.put("etc/motd", "more\n")
	if done := capture(); len(told) != 0 || len(done.Secrets) != 0 {
		t.Errorf("again: %q %+v", told, done.Secrets)
	}
	s.put("etc/ssh/ssh_host_ed25519_key", strings.ToUpper(hostKey[40:])+hostKey)
	if done := capture(); len(told) != 1 || len(done.Secrets) != 1 {
		t.Errorf("another key: %q %+v", told, done.Secrets)
	}

	s.watch(control.WatchRequest{Debounce: 0.01})
	s.put("root/.ssh/id_ed25519", hostKey)
	eventually(t, "the log tells of a key that came while the master is watched", func() bool {
		return strings.Contains(s.log.String(), "/root/.ssh/id_ed25519: private key")
	})
}
