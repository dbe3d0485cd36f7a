package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// TestVersionsComeToAnImageServer changes the master, and lets the image server miss versions while it is off.
func TestVersionsComeToAnImageServer(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.4")
	s := newImageServer(t, head, "127.0.0.5")
	head.start()
	s.start()
	motd := func() string { return read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd") }
	shows := func(number int) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("n01 shows version %d", number), func() bool {
			n, err := s.client().Node(t.Context(), "n01")
			return err == nil && n.Version == number
		})
	}
	head.capture("compute")
	shows(1)
	if got := motd(); got != "one\n" {
		t.Errorf("n01 reads %q", got)
	}
	for i := 2; i <= 4; i++ {
		head.put("etc/motd", fmt.Sprintf("%d\n", i))
		head.capture("compute")
		shows(i)
	}
	if got := motd(); got != "4\n" {
		t.Errorf("n01 reads %q", got)
	}

	testkit.Must(t, s.stop())
	for i := 5; i <= 9; i++ {
		head.put("etc/motd", fmt.Sprintf("%d\n", i))
		head.capture("compute")
	}
	s.given = false
	s.start()
	shows(9)
	if got := motd(); got != "9\n" {
		t.Errorf("after a rest n01 reads %q", got)
	}
	held, err := filepath.Glob(filepath.Join(s.data, "store", "versions", "compute", "*"))
	testkit.Must(t, err)
	for _, name := range held {
		if number := strings.TrimSuffix(filepath.Base(name), ".json"); number == "6" {
			t.Errorf("version %s came, which no node needs", number)
		}
	}
	for _, v := range testkit.Value(s.client().Versions(t.Context(), "compute"))(t) {
		if v.Number == 6 && v.Problem != "" || v.Number == 9 && v.Problem == "" { // the master has no kernel
			t.Errorf("version %d has the problem %q", v.Number, v.Problem)
		}
	}
}
