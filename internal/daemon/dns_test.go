package daemon

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
)

// A server with dns="on" answers for the applied description, over UDP and TCP, and follows it.
func TestAServerAnswersDNS(t *testing.T) {
	testkit.NeedProgram(t, "dig")
	if !inNetwork(t) {
		return
	}
	s := newSite(t, "127.0.0.1")
	s.describe("", `dhcp="off" `, `dhcp="off" dns="on" `)
	s.start()
	dig := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "dig",
			append([]string{"@127.0.0.1", "+short", "+time=20"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for question, want := range map[string]string{
		"n03.small.example": "127.0.0.13", "n03.small.example +tcp": "127.0.0.13",
		"-x 127.0.0.13": "n03.small.example.", "example.com": "",
	} {
		if got := dig(strings.Fields(question)...); got != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	text := string(testkit.Value(os.ReadFile(s.file))(t))
	next := strings.NewReplacer("{10+node}", "{20+node}", `to="4"`, `to="5"`).Replace(text)
	testkit.Value(s.client().Apply(t.Context(), control.ApplyRequest{Yes: true, Description: control.Description{
		Main: "cluster.xml", Files: map[string][]byte{"cluster.xml": []byte(next)},
	}}))(t)
	if got := dig("n05.small.example"); got != "127.0.0.25" {
		t.Errorf("after another description was applied: %q", got)
	}
	if got := dig("-x", "127.0.0.13"); got != "" {
		t.Errorf("an address that no node has any more: %q", got)
	}
}
