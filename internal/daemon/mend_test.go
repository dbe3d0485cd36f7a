package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/coord"
	"dim/internal/vfs"
)

func TestWhatCannotBeServedIsToldAndTriedAgain(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSite(t, "127.0.0.2")
	s.start()
	declare(t, s)
	must(t, s.stop())
	versions := filepath.Join(s.data, "store", "versions")
	must(t, os.Rename(versions, versions+".away"))
	must(t, os.Mkdir(versions, 0o700))
	s.start()
	if p := s.problem("node n01"); !strings.Contains(p.Text, "serve n01: ") {
		t.Errorf("the status says: %+v", p)
	}
	if _, err := s.nfs("127.0.0.11", 0).Mount("/nodes/n01"); !errors.Is(err, vfs.EACCES) {
		t.Errorf("mount: %v", err)
	}
	must(t, os.Remove(versions))
	must(t, os.Rename(versions+".away", versions))
	eventually(t, "it is served", func() bool { return s.problem("node n01").About == "" })
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/own"); got != "mine\n" {
		t.Errorf("n01 reads %q", got)
	}
}

func TestANodeIsToldToFollowWhatIsNotThere(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	declare(t, s)
	must(t, s.stop())
	c, err := coord.Open(t.Context(), coord.Options{Dir: filepath.Join(s.data, "coord")})
	must(t, err)
	must(t, c.Decide(t.Context(), func(coord.State) (coord.Change, error) {
		return coord.Change{Desired: coord.Refs{
			"n01": {Image: "compute", Tag: "first"}, "n02": {Image: "compute", Number: 99},
		}}, nil
	}))
	must(t, c.Close())
	s.start()
	for node, want := range map[string]string{"n01": "zero\n", "n03": "one\n"} {
		addr := "127.0.0.1" + node[2:]
		eventually(t, node+" follows", func() bool {
			return read(t, s.mount(addr, "/nodes/"+node), "etc/motd") == want
		})
	}
	if p := s.problem("node n02"); !strings.Contains(p.Text, "there is no compute@99") {
		t.Errorf("the status says: %+v", p)
	}
	if got := read(t, s.mount("127.0.0.12", "/nodes/n02"), "etc/motd"); got != "one\n" {
		t.Errorf("n02 keeps %q", got)
	}
}

func TestADescriptionThatCannotBeFollowedDoesNotKeepTheServerFromStarting(t *testing.T) {
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	must(t, s.stop())
	for name, text := range map[string]string{
		"a newer program's": "<cluster name='x' newer='yes'/>",
		"another cluster's": strings.ReplaceAll(described(s), `="head"`, `="elsewhere"`),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := coord.Open(t.Context(), coord.Options{Dir: filepath.Join(s.data, "coord")})
			must(t, err)
			_, err = c.PutDescription(t.Context(),
				coord.Description{Files: []coord.File{{Name: "cluster.xml", Data: []byte(text)}}}, coord.Any)
			must(t, err)
			must(t, c.Close())
			s.given = false
			for range 2 {
				s.start()
				eventually(t, "the status tells", func() bool { return s.problem("description").Text != "" })
				if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "one\n" {
					t.Errorf("n01 reads %q", got)
				}
				must(t, s.stop())
			}
		})
	}
}

// described is the description of s as it is on disk.
func described(s *site) string {
	text, err := os.ReadFile(s.file)
	must(s.t, err)
	return string(text)
}
