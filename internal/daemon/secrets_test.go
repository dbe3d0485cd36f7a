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
	capture := func() (secrets []string) {
		t.Helper()
		request := control.CaptureRequest{Image: "compute"}
		done, err := s.client().Capture(t.Context(), request, func(control.Progress) {})
		testkit.Must(t, err)
		for _, w := range done.Warnings {
			if w.Kind == control.WarnSecret {
				secrets = append(secrets, w.Path+": "+w.Text)
			}
		}
		return secrets
	}
	s.put("etc/ssh/ssh_host_ed25519_key", hostKey)
	s.put("etc/machine-id", "0123456789abcdef0123456789abcdef\n") // each node has one of its own
	if got := capture(); len(got) != 1 || !strings.HasPrefix(got[0], "/etc/ssh/ssh_host_ed25519_key: SSH host key ") {
		t.Errorf("%q", got)
	}
	s.put("etc/motd", "more\n")
	if got := capture(); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
	s.put("etc/ssh/ssh_host_ed25519_key", strings.ToUpper(hostKey[40:])+hostKey)
	if got := capture(); len(got) != 1 {
		t.Errorf("another key: %q", got)
	}

	s.watch(control.WatchRequest{Debounce: 0.01})
	s.put("root/.ssh/id_ed25519", hostKey)
	testkit.Eventually(t, "the log has a warning of a key that came while the master is watched", func() bool {
		return strings.Contains(s.log.String(), "/root/.ssh/id_ed25519: private key")
	})
}
