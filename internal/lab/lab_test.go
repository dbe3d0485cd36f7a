package lab

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitForFindsEveryMatchOnceInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Serial
		s.start(time.Now())
		go func() {
			for _, p := range []string{"boot", " 1\r\nlog", "in:\r\n", "boot 2\r\n"} {
				time.Sleep(time.Second)
				_, _ = s.Write([]byte(p))
			}
		}()
		for _, want := range []string{"boot 1", "login:", "boot 2"} {
			got, err := s.WaitFor(t.Context(), regexp.MustCompile(want))
			if err != nil || got != want {
				t.Fatalf("WaitFor(%q) = %q, %v", want, got, err)
			}
		}
		if at, ok := s.When(regexp.MustCompile("login")); !ok || at != 2*time.Second {
			t.Errorf("the line with login began at %v, %v; want 2s", at, ok)
		}
	})
}

func TestWaitForFailsAtAKernelPanic(t *testing.T) {
	var s Serial
	s.start(time.Now())
	_, _ = s.Write([]byte("Kernel panic - not syncing: no root\r\n"))
	_, err := s.WaitFor(t.Context(), regexp.MustCompile("login:"))
	if err == nil || !strings.Contains(err.Error(), "not syncing") {
		t.Errorf("WaitFor = %v, want the panic with the console's last lines", err)
	}
	s.end()
	_, err = s.WaitFor(t.Context(), regexp.MustCompile("never"))
	if err == nil {
		t.Error("WaitFor on an ended guest = nil error")
	}
}

func TestWaitForFailsIfTheGuestHasEnded(t *testing.T) {
	var s Serial
	s.start(time.Now())
	s.end()
	if _, err := s.WaitFor(t.Context(), regexp.MustCompile("login:")); !errors.Is(err, errGuestEnded) {
		t.Errorf("WaitFor = %v, want errGuestEnded", err)
	}
}
