package testkit

import (
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// InNetwork calls do in a network namespace of its own, after commands of ip. do must not end the test at once.
func InNetwork(t *testing.T, commands []string, do func()) {
	t.Helper()
	NeedRoot(t, "it makes a network namespace")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine, because it is in another namespace
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		for _, c := range commands {
			if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", c, err, out)
				return
			}
		}
		do()
	}()
	<-done
}
