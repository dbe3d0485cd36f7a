package reporting

import (
	"slices"
	"testing"

	"dim/internal/push"
)

func TestWhatHasToBeRestarted(t *testing.T) {
	got := Restart([]push.Process{
		{PID: 7, Name: "sshd", Unit: "sshd.service"}, {PID: 8, Name: "sshd", Unit: "sshd.service"},
		{PID: 1, Name: "systemd", Unit: "init.scope"}, {PID: 9, Name: "tool"},
	})
	if want := []string{"init", "sshd.service", "tool (pid 9)"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Restart(nil); got == nil || len(got) > 0 {
		t.Errorf("for nothing %q", got)
	}
}
