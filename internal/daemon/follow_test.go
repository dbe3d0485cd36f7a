package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// newImageServer makes the server is1, which serves the nodes of head and has joined its cluster. It knows head's
// description from the start.
func newImageServer(t *testing.T, head *site, addr string) *site {
	t.Helper()
	s := newSite(t, addr)
	s.assume(head, "is1")
	head.describe("", `servers="head"`, `servers="is1"`, "<taxonomy>", fmt.Sprintf(
		`<server name="is1" roles="image" dhcp="off" nfs-port="%d" http-port="%d" tftp-port="%d" api-port="%d">
    <interface network="boot" address="%s"/>
  </server>
  <taxonomy>`, s.ports[0], s.ports[1], s.ports[2], s.ports[3], addr))
	return s
}

// assume makes s an image server of the cluster of head, with its description and an identity that head has signed.
func (s *site) assume(head *site, name string) {
	s.t.Helper()
	s.name, s.file = name, head.file
	ca := filepath.Join(s.data, "ca")
	testkit.Must(s.t, os.RemoveAll(ca), os.CopyFS(ca, os.DirFS(filepath.Join(head.data, "ca"))))
	c := testkit.Value(pki.Open(s.data))(s.t)
	testkit.Must(s.t, c.Assume(cluster.ServerName(name), []cluster.Role{cluster.RoleImage}, time.Now()))
	for _, part := range []string{"servers", "nodes", "key.pem"} {
		testkit.Must(s.t, os.RemoveAll(filepath.Join(ca, part)))
	}
}

func TestAnImageServerFollowsAHeadAndServesWithoutIt(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	s := newImageServer(t, head, "127.0.0.3")
	head.start()
	head.capture("compute")
	s.start()
	follows := func(revision int64) {
		t.Helper()
		testkit.Eventually(t, "it follows the head", func() bool {
			c := s.status().Coord
			return c.OK && c.Kind == "head" && c.Head == "head" && c.Revision >= revision
		})
	}
	follows(head.status().Coord.Revision)
	tree := func() string { return read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd") }
	testkit.Eventually(t, "n01 shows the head's version", func() bool {
		n, err := s.client().Node(t.Context(), "n01")
		return err == nil && n.Version == 1
	})
	if got := tree(); got != "one\n" {
		t.Errorf("n01 reads %q", got)
	}
	testkit.Eventually(t, "the head knows what n01 shows", func() bool {
		n, err := head.client().Node(t.Context(), "n01")
		return err == nil && n.Version == 1 && n.Stage != "unknown"
	})

	testkit.Eventually(t, "the head's status shows the image server", func() bool {
		st := head.status()
		o := st.Servers[1].Observed
		return o != nil && o.Up && o.Revision == st.Coord.Revision && o.Shows["compute@1"] == 4
	})

	t.Run("what is declared is not changed there", func(t *testing.T) { checkRefused(t, s) })
	testkit.Must(t, head.stop())
	testkit.Eventually(t, "the status shows that no head answers", func() bool {
		p := s.problem("shared state")
		return strings.Contains(p.Text, "no head can be followed: server head") && !p.Since.IsZero()
	})
	write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
	testkit.Must(t, s.stop())
	s.given = false
	s.start()
	if got := tree() + read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/own"); got != "one\nmine\n" {
		t.Errorf("after a restart without the head n01 reads %q", got)
	}
	if p := s.problem("shared state"); !strings.Contains(p.Hint, "served what was declared last") {
		t.Errorf("the status shows %+v", p)
	}

	head.start()
	testkit.Must(t, head.tag("compute@1", "later"))
	testkit.Eventually(t, "it follows the head again", func() bool {
		_, err := s.client().Version(t.Context(), "compute@later")
		return err == nil
	})
	follows(head.status().Coord.Revision)
	t.Run("all servers are verified", func(t *testing.T) { checkVerified(t, head, s) })
}

// checkVerified checks that the head finds what differs on the image server.
func checkVerified(t *testing.T, head, s *site) {
	verify := func() control.VerifyAllResult {
		return testkit.Value(head.client().VerifyAll(t.Context(), "compute", func(control.Progress) {}))(t)
	}
	testkit.Eventually(t, "is1 has reported again", func() bool { return verify().Equal == 4 })
	if got := verify(); len(got.Differ) > 0 || len(got.Servers) != 2 || len(got.Servers[1].Problems) > 0 ||
		got.Servers[0].Objects == 0 || got.Servers[0].Objects != got.Servers[1].Objects {
		t.Errorf("it finds %+v", got)
	}
	blob := s.object("blobs", image.Sum([]byte("one\n")))
	testkit.Must(t, os.WriteFile(blob, []byte("two\n"), 0o600))
	if got := verify(); len(got.Servers[0].Replaced) > 0 || len(got.Servers[1].Problems) > 0 ||
		len(got.Servers[1].Replaced) != 1 {
		t.Errorf("with a damaged blob on is1 it finds %+v", got)
	}
	if got := string(testkit.Value(os.ReadFile(blob))(t)); got != "one\n" {
		t.Errorf("is1 has %q then", got)
	}
	checkTreesAreReplaced(t, s)
	_, err := s.client().VerifyAll(t.Context(), "compute", func(control.Progress) {})
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Unavailable {
		t.Errorf("on the image server: %v", err)
	}
}

// object returns the path of an object of the store.
func (s *site) object(kind string, d image.Digest) string {
	sum := d.String()
	return filepath.Join(s.data, "store", kind, sum[:2], sum)
}

// checkTreesAreReplaced flips a byte of each tree of s, the root among them, which another server has whole.
func checkTreesAreReplaced(t *testing.T, s *site) {
	t.Helper()
	trees := testkit.Value(filepath.Glob(filepath.Join(s.data, "store", "trees", "*", "*")))(t)
	whole := map[string][]byte{}
	for _, file := range trees {
		b := testkit.Value(os.ReadFile(file))(t)
		whole[file] = slices.Clone(b)
		b[len(b)/2] ^= 1
		testkit.Must(t, os.WriteFile(file, b, 0o600))
	}
	got := testkit.Value(s.client().Verify(t.Context(), "", func(control.Progress) {}))(t)
	if len(trees) < 2 || len(got.Problems) > 0 || len(got.Replaced) < len(trees) {
		t.Errorf("with %d damaged trees it finds %+v", len(trees), got)
	}
	for file, b := range whole {
		if !bytes.Equal(b, testkit.Value(os.ReadFile(file))(t)) {
			t.Errorf("%s is still damaged", file)
		}
	}
}

// checkRefused checks that changes of what is declared are refused on an image server.
func checkRefused(t *testing.T, s *site) {
	for what, change := range map[string]func() error{
		"apply": s.apply,
		"tag":   func() error { _, err := s.client().Tag(t.Context(), "compute@1", "x"); return err },
		"capture": func() error {
			r := control.CaptureRequest{Image: "compute"}
			_, err := s.client().Capture(t.Context(), r, func(control.Progress) {})
			return err
		},
		"rollout": func() error {
			r := control.RolloutRequest{Nodes: "n01", Version: "compute@1", When: "now"}
			_, err := s.client().Rollout(t.Context(), r)
			return err
		},
	} {
		err := change()
		e, ok := errors.AsType[*control.Error](err)
		if !ok || e.Code != control.Unavailable || !strings.Contains(e.Message, "image server is1") ||
			e.Hint != "run the command on head (127.0.0.2)" {
			t.Errorf("%s: %#v", what, err)
		}
	}
}

// tag gives a version a tag.
func (s *site) tag(ref, tag string) error {
	_, err := s.client().Tag(s.t.Context(), ref, tag)
	return err
}
