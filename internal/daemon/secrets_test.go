package daemon

import (
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
)

const hostKey = "-----BEGIN OPENSSH PRIVATE KEY-----\n" +
	"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"

func TestASecretInAMasterIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.9")
	s.start()
	var warnings []string
	capture := func() control.CaptureResult {
		t.Helper()
		warnings = nil
		done, err := s.client().Capture(t.Context(), control.CaptureRequest{Image: "compute"},
			func(p control.Progress) {
				if p.Warning != "" {
					warnings = append(warnings, p.Warning)
				}
			})
		testkit.Must(t, err)
		return done
	}
	s.put("etc/ssh/ssh_host_ed25519_key", hostKey)
	s.put("etc/machine-id", "0123456789abcdef0123456789abcdef\n") // each node has one of its own
	if done := capture(); len(warnings) != 1 || len(done.Secrets) != 1 ||
		done.Secrets[0] != (control.Secret{Path: "/etc/ssh/ssh_host_ed25519_key", Kind: "SSH host key"}) {
		t.Errorf("%q %+v", warnings, done.Secrets)
	}
	s.put("etc/motd", "more\n")
	if done := capture(); len(warnings) != 0 || len(done.Secrets) != 0 {
		t.Errorf("again: %q %+v", warnings, done.Secrets)
	}
	s.put("etc/ssh/ssh_host_ed25519_key", strings.ToUpper(hostKey[40:])+hostKey)
	if done := capture(); len(warnings) != 1 || len(done.Secrets) != 1 {
		t.Errorf("another key: %q %+v", warnings, done.Secrets)
	}

	s.watch(control.WatchRequest{Debounce: 0.01})
	s.put("root/.ssh/id_ed25519", hostKey)
	testkit.Eventually(t, "the log has a warning of a key that came while the master is watched", func() bool {
		return strings.Contains(s.log.String(), "/root/.ssh/id_ed25519: private key")
	})
}
