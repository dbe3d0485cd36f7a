package follow

import (
	"errors"
	"os"
	"strings"
	"testing"

	"dim/internal/coord"
	"dim/internal/testkit"
)

func TestLoadFindsWhatHoldsWithoutTheSharedState(t *testing.T) {
	kept := coord.State{Store: "s", Revision: 7, Images: images(2)}
	described := func(text string) *coord.State {
		s := kept
		s.Description = describe(t, text)
		return &s
	}
	tests := []struct {
		name  string
		state *coord.State // that was kept
		raw   string       // what is in its file instead
		given string       // the description of the command line

		nodes    int
		revision int64
		err      string
	}{
		{name: "nothing at all", err: "no cluster description has been applied: give one with --cluster FILE"},
		{name: "a description and no state", given: small, nodes: 4},
		{name: "a state", state: described(larger()), nodes: 5, revision: 7},
		{name: "a state without a description", state: &kept, err: "no cluster description has been applied"},
		{name: "both", state: described(larger()), given: small, nodes: 4, revision: 7},
		{name: "a state that cannot be read", raw: "{", err: "state.json"},
		{name: "a state that cannot be read and a description", raw: "{", given: small, nodes: 4},
		{name: "a state of a newer format", raw: `{"format": 99}`, err: coord.ErrNewerFormat.Error()},
		{
			name: "a state of a newer format and a description",
			raw:  `{"format": 99}`, given: small, err: coord.ErrNewerFormat.Error(),
		},
		{
			name: "a description without this server", given: foreign(),
			err: "serve as head: cluster small has no server of that name; it has away",
		},
		{name: "a state without this server", state: described(foreign()), err: "it has away"},
		{name: "a description with an error", given: "<cluster/>", err: "cluster.xml:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFollower(t, tt.given)
			if tt.state != nil {
				testkit.Must(t, coord.SaveState(f.StateFile, *tt.state))
			}
			if tt.raw != "" {
				testkit.Must(t, os.WriteFile(f.StateFile, []byte(tt.raw), 0o600))
			}
			err := f.Load()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got the error %v, want %q in it", err, tt.err)
				}
				return
			}
			testkit.Must(t, err)
			now := f.Now()
			if len(now.Cluster.Nodes) != tt.nodes || now.State.Revision != tt.revision {
				t.Errorf("%d nodes at revision %d; want %d at %d",
					len(now.Cluster.Nodes), now.State.Revision, tt.nodes, tt.revision)
			}
			if now.Digest != Describe(now.Cluster).Digest {
				t.Error("the digest is of another description")
			}
		})
	}
}

func TestAStateOfANewerFormatIsToldFromADamagedOne(t *testing.T) {
	f := newFollower(t, small)
	testkit.Must(t, os.WriteFile(f.StateFile, []byte(`{"format": 99}`), 0o600))
	if err := f.Load(); !errors.Is(err, coord.ErrNewerFormat) {
		t.Errorf("got %v", err)
	}
}
