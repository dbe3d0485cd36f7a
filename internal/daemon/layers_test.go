package daemon

import (
	"errors"
	"os"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// other is a second server of a description, which nobody runs.
const other = `<server name="other" roles="image" dhcp="off">
    <interface network="boot" address="127.0.0.3"/>
  </server>
  <taxonomy>`

// applyWith applies the description that is on disk.
func (s *site) applyWith(r control.ApplyRequest) (control.ApplyResult, error) {
	s.t.Helper()
	text, err := os.ReadFile(s.file)
	testkit.Must(s.t, err)
	r.Yes = true
	r.Description = control.Description{Main: "cluster.xml", Files: map[string][]byte{"cluster.xml": text}}
	return s.client().Apply(s.t.Context(), r)
}

// node returns what the server says of n01.
func (s *site) node() control.Node {
	s.t.Helper()
	n, err := s.client().Node(s.t.Context(), "n01")
	testkit.Must(s.t, err)
	return n
}

// mounts reports whether n01 can mount its root.
func (s *site) mounts() bool {
	_, err := s.nfs("127.0.0.11", 0).Tree("/nodes/n01")
	if err != nil && !errors.Is(err, vfs.EACCES) {
		s.t.Errorf("mount: %v", err)
	}
	return err == nil
}

// checkRefused checks that the description on disk is applied only with a word of consent, and gives it.
func (s *site) checkRefused(want control.LeftLayers) {
	s.t.Helper()
	done, err := s.applyWith(control.ApplyRequest{DryRun: true})
	if testkit.Must(s.t, err); len(done.Left) != 1 || done.Left[0] != want {
		s.t.Errorf("a dry run lists %+v, want %+v", done.Left, want)
	}
	_, err = s.applyWith(control.ApplyRequest{})
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Code != control.Held || !strings.Contains(e.Message, want.Nodes) {
		s.t.Errorf("applied without consent: %v", err)
	}
	_, err = s.applyWith(control.ApplyRequest{LeaveLayers: true})
	testkit.Must(s.t, err)
}

func TestANodeGoesToAnotherServerOnlyWithAWordAndIsNeverServedByTwo(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", "<taxonomy>", other)
	s.start()
	s.capture("compute")
	write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")

	s.describe("", "<taxonomy>", other, `servers="head"`, `servers="other head"`)
	s.checkRefused(control.LeftLayers{Nodes: "n[01-04]", Count: 4, From: "head", To: "other"})
	if s.mounts() {
		t.Error("the server that a node was taken from serves it")
	}
	testkit.Eventually(t, "the nodes are the other server's", func() bool {
		return strings.Contains(s.node().Problem, "server other does not answer") // it is asked about them
	})

	s.describe("", "<taxonomy>", other)
	s.checkRefused(control.LeftLayers{Nodes: "n[01-04]", Count: 4, From: "other", To: "head"})
	if p := s.node().Problem; p != "head serves it as soon as other has confirmed that it no longer does" {
		t.Errorf("the other server may still serve the node, and the problem is %q", p)
	}
	if s.mounts() {
		t.Error("a node is served although another server may still serve it")
	}

	s.describe("")
	s.checkRefused(control.LeftLayers{Nodes: "n[01-04]", Count: 4, From: "other", To: "head", Gone: true})
	testkit.Eventually(t, "the nodes are served here again", s.mounts)
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/own"); got != "mine\n" {
		t.Errorf("the layer that had stayed here has %q", got)
	}
}

func TestADescriptionOfTheCommandLineMovesNoLayer(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", "<taxonomy>", other, `servers="head"`, `servers="other"`)
	s.start()
	s.capture("compute")
	testkit.Must(t, s.stop())
	s.describe("")
	s.start()
	if s.mounts() {
		t.Error("a node is served without its layer")
	}
	const want = "no server serves it: the description gives it to head, and its layer is on other"
	testkit.Eventually(t, "the description is applied", func() bool { return s.node().Details.Servers[0] == "head" })
	testkit.Eventually(t, "it is known where the layer is", func() bool { return s.node().Problem == want })
	testkit.Must(t, s.stop())
	s.start()
	if n := s.node(); n.Problem != want || s.mounts() {
		t.Errorf("after another start: %q", n.Problem)
	}
}
