package rollout

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/coord"
)

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	s := newSite(2)
	made, err := s.declare(2, Boot, "1 23", withCommands)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, s.load(t, 1), cmp.AllowUnexported(Rollout{})); diff != "" {
		t.Error(diff)
	}
	if text := string(s.state.Rollouts[1]); !strings.Contains(text, `"nodes":"n[2-3]"`) {
		t.Errorf("it is written as %s", text)
	}
	for _, bad := range []string{
		`{`, `{"ring":7,"rings":[{"nodes":"n1"}]}`, `{"ring":-1}`, `{"rings":[{"nodes":"n["}]}`,
	} {
		s.state.Rollouts[2] = json.RawMessage(bad)
		if _, _, err := Load(s.state, 2); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestARecordOfAnEarlierProgramIsRead(t *testing.T) {
	const kept = `{"id":1,"image":"compute","version":2,"when":"now",` +
		`"rings":[{"nodes":"n[1-3]","declared":"2026-11-25T12:00:00Z"}],"all":false,` +
		`"state":"done","ring":0,"phase":"switching","since":"2026-11-25T12:00:00Z",` +
		`"started":"2026-11-25T12:00:00Z","ended":"2026-11-25T12:00:00Z",` +
		`"before":[{"nodes":"n1"},{"desired":"compute@stable","next":"compute@3","nodes":"n2"},` +
		`{"next":"compute@3","nodes":"n3"}],"current":1}`
	r, ok, err := Load(coord.State{Rollouts: map[int]json.RawMessage{1: json.RawMessage(kept)}}, 1)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	for node, want := range map[string]string{"n1": "compute@1", "n2": "compute@stable", "n3": "compute@1"} {
		if got := r.Previous(node).String(); got != want {
			t.Errorf("%s followed %s, want %s", node, got, want)
		}
	}
	var c coord.Change
	if err := r.put(&c); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, string(c.Rollouts[1])); diff != "" {
		t.Errorf("it is written in another form (-read +written):\n%s", diff)
	}
}
