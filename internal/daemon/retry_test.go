package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/coord"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

func TestWhatCannotBeServedIsAProblemAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	declareState(t, s)
	testkit.Must(t, s.stop())
	trees := filepath.Join(s.data, "store", "trees")
	testkit.Must(t, os.Rename(trees, trees+".away"))
	testkit.Must(t, os.Mkdir(trees, 0o700))
	s.start()
	if p := s.problem("node n01"); !strings.Contains(p.Text, "serve n01: ") {
		t.Errorf("the status shows: %+v", p)
	}
	if _, err := s.nfs("127.0.0.11", 0).Mount("/nodes/n01"); !errors.Is(err, vfs.EACCES) {
		t.Errorf("mount: %v", err)
	}
	testkit.Must(t, os.Remove(trees))
	testkit.Must(t, os.Rename(trees+".away", trees))
	testkit.Eventually(t, "it is served", func() bool { return s.problem("node n01").About == "" })
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/own"); got != "mine\n" {
		t.Errorf("n01 reads %q", got)
	}
}

func TestANodeThatIsToFollowAMissingVersionIsAProblem(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	declareState(t, s)
	testkit.Must(t, s.stop())
	c, err := coord.Open(t.Context(), coord.Options{Dir: filepath.Join(s.data, "coord")})
	testkit.Must(t, err)
	testkit.Must(t, c.Decide(t.Context(), func(coord.State) (coord.Change, error) {
		return coord.Change{Desired: coord.Refs{
			"n01": {Image: "compute", Tag: "first"}, "n02": {Image: "compute", Number: 99},
		}}, nil
	}))
	testkit.Must(t, c.Close())
	s.start()
	for node, want := range map[string]string{"n01": "zero\n", "n03": "one\n"} {
		testkit.Eventually(t, node+" follows", func() bool { return readAs(s, node, "etc/motd") == want })
	}
	if p := s.problem("node n02"); !strings.Contains(p.Text, "there is no compute@99") {
		t.Errorf("the status shows: %+v", p)
	}
	if got := read(t, s.mount("127.0.0.12", "/nodes/n02"), "etc/motd"); got != "one\n" {
		t.Errorf("n02 keeps %q", got)
	}
}

func TestADescriptionThatCannotBeFollowedDoesNotKeepTheServerFromStarting(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	testkit.Must(t, s.stop())
	for name, text := range map[string]string{
		"a newer program's": "<cluster name='x' newer='yes'/>",
		"another cluster's": strings.ReplaceAll(described(s), `="head"`, `="elsewhere"`),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := coord.Open(t.Context(), coord.Options{Dir: filepath.Join(s.data, "coord")})
			testkit.Must(t, err)
			_, err = c.PutDescription(t.Context(),
				coord.Description{Files: []coord.File{{Name: "cluster.xml", Data: []byte(text)}}}, -1)
			testkit.Must(t, err)
			testkit.Must(t, c.Close())
			s.given = false
			for range 2 {
				s.start()
				testkit.Eventually(t, "the status shows it", func() bool { return s.problem("description").Text != "" })
				if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "one\n" {
					t.Errorf("n01 reads %q", got)
				}
				testkit.Must(t, s.stop())
			}
		})
	}
}

// described is the description of s as it is on disk.
func described(s *site) string {
	text, err := os.ReadFile(s.file)
	testkit.Must(s.t, err)
	return string(text)
}
